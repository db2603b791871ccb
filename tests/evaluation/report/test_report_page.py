"""The report in a real browser: from disk and from a static server."""

from __future__ import annotations

import copy
import hashlib
import io
import re
import shutil
import time
from itertools import pairwise

import numpy as np
import pytest
from browser import served, wait_until
from PIL import Image
from report_folders import DIFF, EVIL, EVIL_ANSWER, EVIL_NAME
from report_pages import content_of_page, open_page, run_ids

from evaluation.report.page import write_page
from evaluation.web.page import inline_json

pytestmark = pytest.mark.slow  # a browser, which not every machine has

MANY = 2000
VIEW = ".view3d canvas"


@pytest.fixture
def http_address(finished):
    with served(finished) as address:
        yield address


def pixels(page, selector):
    return np.asarray(Image.open(io.BytesIO(page.locator(selector).screenshot())).convert("RGB"), float)


def is_drawn(page, selector):
    return (pixels(page, selector) < 200).any(axis=-1).mean() > 0.02


def wait_drawn(page, selector=VIEW, seconds=60.0):
    end = time.monotonic() + seconds
    while not is_drawn(page, selector):
        assert time.monotonic() < end, "the 3D view stays empty"
        page.wait_for_timeout(200)


# --- the sections, from disk and over http ------------------------------------------------------------------


@pytest.mark.parametrize("how", ["file", "http"])
def test_sorts_filters_plays_compares_and_draws(context, address, http_address, how):
    page = open_page(context, address if how == "file" else http_address)
    assert page.get_by_role("heading", level=1).inner_text() == "Text-to-3D by score distillation"
    table = page.locator("table").first
    first = "tbody tr:first-child th:first-child"
    assert table.locator(first).inner_text() == "SDS"
    minutes = table.get_by_role("button", name="Minutes")
    minutes.click()
    minutes.click()
    assert table.locator("thead [aria-sort]").get_attribute("aria-sort") == "descending"
    assert table.locator(first).inner_text() == EVIL_NAME
    page.keyboard.press("g")
    wait_until(page, "document.querySelectorAll('.card a').length === 9")
    page.get_by_role("searchbox").fill("torus")
    wait_until(page, "document.querySelectorAll('.card a').length === 3")
    page.get_by_role("searchbox").fill("")
    page.get_by_label("Order").select_option("match")
    wait_until(page, "document.querySelectorAll('.card a').length === 9")
    shown = page.locator(".card .about b").all_inner_texts()
    assert shown[:3] == ["Match 0.900", "Match 0.850", "Match 0.800"]
    assert shown[-1] == "Match —"
    page.get_by_role("button", name="Play all").click()
    wait_until(
        page,
        "[...document.querySelectorAll('.grid video')].filter((v) => v.currentTime && !v.paused).length >= 6",
    )
    page.get_by_role("button", name="Stop all").click()
    assert page.locator(".grid video").count() == 0
    for i in range(2):
        page.locator(".card .pick input").nth(i).check(force=True)
    page.get_by_role("link", name="Compare 2").click()
    wait_until(
        page, "[...document.querySelectorAll('.compare video')].filter((v) => v.currentTime > 0).length === 2"
    )
    page.get_by_role("button", name="Open the 3D views").click()
    wait_until(page, "current.views?.length === 2 && current.views.every((v) => v.ready)")
    for i in range(2):
        wait_drawn(page, f"{VIEW} >> nth={i}")


@pytest.mark.parametrize("how", ["file", "http"])
def test_the_3d_view_changes_when_it_is_turned(context, address, http_address, how):
    address = address if how == "file" else http_address
    page = open_page(context, address)
    [identity] = run_ids(page, "SDS", "a red cube")
    page.goto(f"{address}#run={identity}")
    page.get_by_role("button", name="Open the 3D view").click()
    wait_drawn(page)
    assert page.evaluate("current.view.count") == 400  # as Spark has read them
    page.wait_for_timeout(1800)  # drawing has come to rest
    before = pixels(page, VIEW)
    canvas = page.locator(VIEW)
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + 60, box["y"] + 100)
    page.mouse.down()
    page.mouse.move(box["x"] + 200, box["y"] + 110, steps=5)
    page.mouse.up()
    page.wait_for_timeout(1800)
    after = pixels(page, VIEW)
    assert np.abs(after - before).mean() > 2.0
    canvas.focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("+")
    page.wait_for_timeout(1800)
    assert np.abs(pixels(page, VIEW) - after).mean() > 1.0


def test_a_picture_turns_while_the_pointer_is_on_it(context, address):
    page = open_page(context, address, "gallery")
    card = page.locator(".card:has(a)").first
    card.hover()
    wait_until(page, "[...document.querySelectorAll('.grid video')].some((v) => v.currentTime && !v.paused)")
    assert page.locator(".grid video").count() == 1
    page.mouse.move(5, 5)
    wait_until(page, "document.querySelectorAll('.grid video').length === 0")


def test_filters_by_method_and_by_seed(context, two_seeds):
    page = open_page(context, two_seeds, "gallery")
    wait_until(page, "document.querySelectorAll('.card a').length === 9")
    page.locator(".filters label", has_text=re.compile("^Seed")).locator("select").select_option("1")
    wait_until(page, "document.querySelectorAll('.card a').length === 3")
    page.locator(".chips").get_by_label("VSD").uncheck(force=True)
    wait_until(page, "document.querySelectorAll('.card a').length === 2")
    shown = page.evaluate(
        "[...document.querySelectorAll('.card a')].map((a) => runs.get(a.hash.slice(5)))"
        ".map((r) => [columnOf(r).method, r.seed])"
    )
    assert sorted(shown) == sorted([[EVIL_NAME, 1], ["SDS", 1]])
    again = context.new_page()  # the address keeps both
    again.goto(page.evaluate("location.href"))
    wait_until(again, "document.querySelectorAll('.card a').length === 2")


@pytest.fixture
def two_seeds(finished, tmp_path):
    """The report, but the runs of the first prompt have another seed."""
    folder = shutil.copytree(finished, tmp_path / "report")
    data = content_of_page(folder)
    for run in data["runs"]:
        run["seed"] = int(run["prompt"] == 0)
    return write_page(data, folder).as_uri()


def test_a_mesh_is_drawn_upright_and_in_its_colour(context, address):
    """The box is long along glTF's z, which is our front: from the front it is a square."""
    page = open_page(context, address)
    [identity] = run_ids(page, EVIL_NAME, "a red cube")
    page.goto(f"{address}#run={identity}")
    page.get_by_role("button", name="Open the 3D view").click()
    wait_drawn(page)
    assert page.evaluate("current.view.count") >= 8  # as GLTFLoader has read them
    page.evaluate("current.view.orbit(-(current.view.media.start ?? 0) * 2 * Math.PI, -15 * Math.PI / 180)")
    page.wait_for_timeout(1800)
    seen = pixels(page, VIEW)
    solid = (seen < 240).any(axis=-1)
    rows, columns = np.nonzero(solid)
    assert np.ptp(rows) == pytest.approx(np.ptp(columns), rel=0.1)
    assert np.median(seen[solid], axis=0) == pytest.approx([30, 160, 60], abs=4)


def test_compared_views_turn_together(context, address):
    page = open_page(context, address)
    ids = run_ids(page, prompt="a red cube")
    page.goto(f"{address}#compare={','.join(ids)}")
    page.get_by_role("button", name="Open the 3D views").click()
    wait_until(page, "current.views?.length === 3 && current.views.every((v) => v.ready)")
    page.evaluate("current.views[1].orbit(0.7, 0.2, 0.8)")
    positions = page.evaluate("current.views.map((v) => v.camera.position.toArray())")
    assert positions[0] == pytest.approx(positions[1], abs=1e-6)
    assert positions[2] == pytest.approx(positions[1], abs=1e-6)
    times = page.evaluate(
        "current.player.turn(0.5), current.player.videos.map((v) => v.currentTime / v.duration)"
    )
    assert times == pytest.approx([0.5] * 3, abs=0.02)


def test_a_runs_page_has_everything(context, address):
    page = open_page(context, address)
    [identity] = run_ids(page, "SDS", "a red cube")
    page.goto(f"{address}#run={identity}")
    page.get_by_role("heading", name="Curves").wait_for()
    wait_until(page, "document.querySelectorAll('.curves canvas').length === 2")
    assert page.locator(".curves figcaption").all_inner_texts() == [
        "Gradient on the latents, root mean square",
        "Timestep, mean and range over the views of a step",
    ]
    wait_until(
        page,
        "[...document.querySelectorAll('.strip img')].every((i) => (i.loading = 'eager') && i.naturalWidth)",
    )
    assert page.locator(".strip:not(.over) .label").all_inner_texts()[:5] == [
        "Colour",
        "Truth",
        "Normals",
        "Depth",
        "Alpha",
    ]
    assert page.locator(".legend li").count() == 4
    assert page.get_by_text("Configuration, 8 values").count() == 1
    assert page.locator("img:not([alt])").count() == 0
    page.keyboard.press("j")
    wait_until(page, f"location.hash !== '#run={identity}'")
    page.keyboard.press("k")
    wait_until(page, f"location.hash === '#run={identity}'")
    page.keyboard.press("Escape")
    wait_until(page, "location.hash.startsWith('#gallery')")


def test_a_slider_shows_the_asset_over_the_run(context, address):
    page = open_page(context, address)
    [identity] = run_ids(page, "SDS", "a red cube")
    page.goto(f"{address}#run={identity}")
    page.get_by_role("heading", name="Over the run").wait_for()
    wait_until(
        page,
        "[...document.querySelectorAll('.moment img')].every((i) => (i.loading = 'eager') && i.naturalWidth)",
    )
    page.locator(".moment").scroll_into_view_if_needed()
    said, seen = [], []
    for _ in range(3):
        said.append(page.locator(".moments output").inner_text())
        seen.append(pixels(page, ".moment"))
        page.get_by_role("slider", name="Steps").press("ArrowLeft")
    assert said == ["300 steps, Match 0.9", "100 steps, Match 0.2", "0 steps, Match 0.1"]
    assert min(np.abs(a - b).mean() for a, b in pairwise(seen)) > 1.0
    page.get_by_role("button", name="100", exact=True).click()
    assert np.abs(pixels(page, ".moment") - seen[1]).mean() < 0.1
    assert "after 0, 100, 300 steps" in page.locator(".strip.over img").get_attribute("alt")


def test_what_is_not_finished_and_how_to_cite(context, address):
    page = open_page(context, address, "missing")
    assert sorted(page.locator("tbody tr th:first-child").all_inner_texts()) == [
        "failed",
        "missing",
        "preempted",
    ]
    page.keyboard.press("r")
    commands = page.locator("pre").first.inner_text()
    assert commands.splitlines() == [
        "python -m trace_bench -m method=sds,vsd prompt_set=toy --config-dir FOLDER",
        "python -m evaluation.score",
        *page.evaluate("data.judges"),
        "python -m evaluation.report",
    ]
    assert "@software{trace_bench" in page.locator("pre").last.inner_text()


def test_a_link_to_filters_opens_them_again(context, address):
    page = open_page(context, address, "gallery")
    page.get_by_role("searchbox").fill("red")
    page.get_by_label("Order").select_option("match")
    link = page.evaluate("location.href")
    again = context.new_page()
    again.goto(link)
    wait_until(again, "document.querySelectorAll('.card a').length === 3")
    assert again.get_by_role("searchbox").input_value() == "red"


# --- hostile texts ---------------------------------------------------------------------------------------


def test_texts_of_others_are_shown_and_never_run(context, address):
    page = open_page(context, address)
    assert EVIL_NAME in page.locator("table").first.inner_text()
    places = [
        "overview",
        "gallery",
        "gallery&sort=match",
        "missing",
        "cite",
        f"compare={','.join(run_ids(page)[:4])}",
    ]
    places += [f"run={i}" for i in run_ids(page)]
    for place in places:
        page.goto(f"{address}#{place}")
        page.wait_for_timeout(150)
        assert page.evaluate("window.evil") is None
        assert page.locator("svg[onload], img[onerror]").count() == 0
    [identity] = run_ids(page, "VSD", EVIL)
    page.goto(f"{address}#run={identity}")
    assert page.get_by_role("heading", level=1).inner_text() == f"“{EVIL}”"
    [judged] = run_ids(page, "SDS", "a red cube")
    page.goto(f"{address}#run={judged}")
    page.locator("blockquote").first.wait_for()
    assert page.locator("blockquote").first.inner_text() == EVIL_ANSWER
    assert page.locator(".said figcaption").first.inner_text() == (
        "Against vsd; this run is on the left. Asked about: 3D plausibility, Overall."
    )
    assert page.get_by_text("In words, 6 of 8 shown:").count() == 1
    assert page.get_by_text("Cut: 1,000 more characters in the judge's answers.jsonl.").count() == 1
    page.goto(f"{address}#missing")
    assert f"MemoryError: {EVIL} '…/x.pt' runs/x (step 7)" in page.locator("tbody").inner_text()


def test_an_address_of_no_run_says_so(context, address):
    page = open_page(context, address, "run=<img src=x onerror=window.evil=1>")
    assert page.get_by_role("heading", level=1).inner_text() == "No such run"
    assert page.evaluate("window.evil") is None


# --- where something is missing --------------------------------------------------------------------------


def test_a_picture_stays_where_webgl_fails(context, address):
    context.add_init_script("HTMLCanvasElement.prototype.getContext = () => null")
    page = open_page(context, address)
    page.goto(f"{address}#compare={','.join(run_ids(page, prompt='a red cube'))}")
    page.get_by_role("button", name="Open the 3D views").click()
    page.get_by_text("No 3D view: this browser has no WebGL 2.").first.wait_for()
    assert page.locator(".view3d img").first.evaluate("(i) => i.naturalWidth") > 0


def test_a_picture_stays_where_the_graphics_memory_is_taken_back(context, address):
    page = open_page(context, address)
    [identity] = run_ids(page, "SDS", "a red cube")
    page.goto(f"{address}#run={identity}")
    page.get_by_role("button", name="Open the 3D view").click()
    wait_drawn(page)
    page.evaluate("current.view.renderer.getContext().getExtension('WEBGL_lose_context').loseContext()")
    page.get_by_text("No 3D view: the browser took its graphics memory back").wait_for()
    assert page.locator(VIEW).count() == 0
    assert page.locator(".view3d img").evaluate("(i) => i.naturalWidth") > 0
    assert is_drawn(page, ".view3d img")


def test_the_overview_names_papers_and_explains_its_words(context, address):
    page = open_page(context, address)
    section = page.locator("section", has=page.get_by_role("heading", name="Methods and priors"))
    heads = section.locator("table").evaluate_all(
        "(all) => all.map((t) => [...t.tHead.rows[0].cells].map((c) => c.textContent))"
    )
    assert heads[2:] == [
        ["Init", "Runs", "Paper"],
        [
            "Prior",
            "Paper",
            "Repository",
            "Revision",
            "SHA-256 of the weights used",
            "Model that carries the LoRA",
        ],
    ]
    assert section.locator("table").nth(2).get_by_role("link").count() == 1
    assert "Holm's correction" in page.locator("main").inner_text()
    page.get_by_text("What the numbers mean").click()
    terms = page.locator(".meanings dt").all_inner_texts()
    assert terms == page.evaluate("[...data.quantities, ...data.columns].map((q) => q.label)")
    assert {"Match", "Minutes", "HF", "Complete", "Loading"} <= set(terms)
    assert len(set(terms)) == len(terms)


def test_the_changes_of_the_code_are_shown_as_text(context, finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "report")
    path = next((folder / "runs").iterdir())
    assert '"diff":null' in path.read_text()
    path.write_text(path.read_text().replace('"diff":null', f'"diff":{inline_json(DIFF)}'))
    page = open_page(context, (folder / "index.html").as_uri(), f"run={path.stem}")
    page.get_by_text("Uncommitted changes of the code").click()
    assert page.locator(".diff pre").inner_text() == DIFF
    assert page.get_by_text(hashlib.sha256(DIFF.encode()).hexdigest()).count() == 1


def test_a_page_without_its_folder_says_what_to_copy(context, address, finished, tmp_path, complaints):
    shutil.copy(finished / "index.html", tmp_path)
    page = open_page(context, (tmp_path / "index.html").as_uri())
    page.goto(f"{(tmp_path / 'index.html').as_uri()}#run={run_ids(page)[0]}")
    page.get_by_text("is missing: copy the whole folder.").wait_for()
    complaints.clear()  # the missing files were the test's doing


@pytest.mark.parametrize("size", [(360, 740), (1280, 800)])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_the_screen(context, address, size, scheme):
    page = open_page(context, address)
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": size[0], "height": size[1]})
    for place in [
        "overview",
        "gallery",
        "missing",
        "cite",
        f"run={run_ids(page)[0]}",
        f"compare={','.join(run_ids(page)[:2])}",
    ]:
        page.goto(f"{address}#{place}")
        page.wait_for_timeout(200)
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0], place


def resident(pid):
    """Bytes of a process in memory, its share of the code that several use."""
    with open(f"/proc/{pid}/smaps_rollup") as file:  # noqa: PTH123
        return 1024 * int(re.search(r"^Pss:\s+(\d+) kB", file.read(), re.MULTILINE)[1])


# --- size and speed --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def many(finished, tmp_path_factory):
    """A report of 2,000 runs: the small one's, again and again."""
    folder = shutil.copytree(finished, tmp_path_factory.mktemp("many") / "report")
    data = content_of_page(folder)
    runs = []
    for i in range(MANY):
        run = copy.deepcopy(data["runs"][i % len(data["runs"])])
        key = hashlib.sha256(str(i).encode()).hexdigest()[: len(run["media"]["key"])]
        for kind in ("poster.webp", "turntable.mp4"):  # the browser decodes each run's own
            target = folder / "media" / key / kind
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(folder / "media" / run["media"]["key"] / kind, target)
        colour = (i % 256, i // 256 * 30, 90)
        Image.new("RGB", (256, 256), colour).save(folder / "media" / key / "poster.webp")
        run["media"]["key"] = key
        prompt = i // 10
        run |= {"id": f"{run['id']}-{i}", "prompt": prompt, "place": prompt, "column": i % 3, "seed": i % 10}
        runs.append(run)
    data |= {
        "runs": runs,
        "prompts": [f"prompt {i}, a rather long one with a duck" for i in range(MANY // 10)],
    }
    write_page(data, folder)
    return folder / "index.html"


@pytest.mark.long  # timed, so it needs a quiet machine
def test_two_thousand_runs_paint_at_once_scroll_and_stay_small(context, browser, many):
    libraries = sum(path.stat().st_size for path in (many.parent / "library").iterdir())
    print(f"index {many.stat().st_size / 1e6:.2f} MB, libraries {libraries / 1e6:.2f} MB")
    assert many.stat().st_size + libraries <= 3e6  # the page without media, as docs/report.md says
    times = []
    for _ in range(3):  # the best of three: a busy machine is not the page's fault
        page = context.new_page()
        page.goto(f"{many.as_uri()}#gallery")
        page.locator(".card a").first.wait_for()
        times.append(
            page.evaluate(
                """() => new Promise((found) => new PerformanceObserver((list) => found(
                  list.getEntries().at(-1).startTime)).observe({ type: 'paint', buffered: true }))"""
            )
        )
    painted = min(times)
    assert painted <= 2000
    heights = page.evaluate(
        "[document.querySelector('.rows').offsetHeight, document.querySelectorAll('.card').length]"
    )
    assert heights[0] > 10_000
    assert heights[1] < 200  # only the rows on the screen exist
    frames = page.evaluate(
        """() => new Promise((done) => {
          const box = document.querySelector('.grid');
          const frames = [];
          let last = performance.now();
          const step = () => {
            const now = performance.now();
            frames.push(now - last);
            last = now;
            box.scrollTop += 800;
            if (frames.length > 60) done(frames);
            else requestAnimationFrame(step);
          };
          requestAnimationFrame(step);
        })"""
    )
    assert np.median(frames) < 150
    assert page.evaluate("document.querySelectorAll('.card').length") < 200
    page.get_by_label("Order").select_option("match")
    page.locator(".grid").evaluate("(box) => { box.scrollTop = box.scrollHeight; }")
    wait_until(page, "document.querySelectorAll('.card a').length > 0")
    processes = browser.new_browser_cdp_session().send("SystemInfo.getProcessInfo")["processInfo"]
    memory = max(resident(process["id"]) for process in processes if process["type"] == "renderer")
    print(f"painted after {painted:.0f} ms, median frame {np.median(frames):.0f} ms, {memory / 1e6:.0f} MB")
    assert memory < 500e6
