"""What a reader does with the report's page: sorts, types, goes back, follows old links, changes colours."""

from __future__ import annotations

import json
import shutil

import pytest
from browser import wait_until
from report_pages import content_of_page, open_page, run_ids

from evaluation.report.page import write_page

pytestmark = pytest.mark.slow  # a browser, which not every machine has

CARDS = "document.querySelectorAll('.card a').length"


def sorted_cells(page, cells, labels=0, clicks=1):
    """A table's only column after clicks on its heading."""
    return page.evaluate(
        """([cells, labels, clicks]) => {
            const body = cells.map((cell) => [[cell, 0, ""]]);
            const table = sortableTable({ head: [["x", "", ""]], body, labels });
            for (let i = 0; i < clicks; i += 1) table.querySelector("thead button").click();
            return [...table.querySelectorAll("tbody tr")].map((row) => row.innerText);
        }""",
        [cells, labels, clicks],
    )


def test_a_sorted_row_keeps_its_prompt(context, address, finished):
    """Unsorted, a prompt stands once, above its rows."""
    page = open_page(context, address)
    wanted = [t for t in content_of_page(finished)["tables"] if t["name"].startswith("prompts-")]
    page.locator("summary", has_text=wanted[0]["caption"]).first.click()
    rows = page.locator("details.result[open] tbody tr")
    rows.first.wait_for()
    firsts = [row.split("\t")[0].strip() for row in rows.all_inner_texts()]
    assert "" in firsts
    page.locator("details.result[open] thead button", has_text="Match").first.click()
    after = [row.split("\t")[0].strip() for row in rows.all_inner_texts()]
    assert "" not in after
    assert set(after) == set(firsts) - {""}


def test_numbers_sort_as_numbers_and_names_as_names(context, address):
    page = open_page(context, address)
    p = ["1", "< .0001", ".5000", ".0002", "1.2e-05", "—"]
    assert sorted_cells(page, p) == ["1.2e-05", "< .0001", ".0002", ".5000", "1", "—"]
    assert sorted_cells(page, p, clicks=2) == ["1", ".5000", ".0002", "< .0001", "1.2e-05", "—"]
    assert sorted_cells(page, ["7/8", "1/2", "−3", "1,024"]) == ["−3", "1/2", "7/8", "1,024"]
    methods = ["TraCe", "SDS", "Consistent3D", "ASD", "VSD"]
    assert sorted_cells(page, methods, labels=1) == ["ASD", "Consistent3D", "SDS", "TraCe", "VSD"]


def test_a_run_s_numbers_are_those_of_the_tables(context, address, finished):
    """They are rounded once."""
    (table,) = [t for t in content_of_page(finished)["tables"] if t["name"].startswith("prompts-")]
    assert '"0.847"' in (finished / "tables" / f"{table['file']}.js").read_text()
    page = open_page(context, address, "gallery&sort=soft_iou")
    wait_until(page, f"{CARDS} > 0")
    assert page.locator(".card .about b").first.inner_text() == "IoU 0.847"


def test_slash_puts_the_cursor_into_the_search(context, address):
    page = open_page(context, address)
    page.keyboard.press("/")
    page.keyboard.type("red cup")  # c and r are keys of sections
    assert page.get_by_role("searchbox").input_value() == "red cup"
    assert page.evaluate("current.name") == "gallery"


def test_the_gallery_is_as_it_was_left(context, address):
    page = open_page(context, address, "gallery")
    page.get_by_role("searchbox").fill("red")
    page.get_by_label("Order").select_option("match")
    page.locator(".card a").first.click()
    wait_until(page, "current.name === 'run'")
    page.keyboard.press("Escape")
    wait_until(page, "current.name === 'gallery'")
    assert page.get_by_role("searchbox").input_value() == "red"
    assert page.evaluate("location.hash") == "#gallery&q=red&sort=match"


@pytest.mark.parametrize(
    "place", ["gallery&sort=gone", "gallery&panel=-1", "gallery&panel=7", "gallery&panel=x"]
)
def test_a_link_from_another_report_opens_the_gallery(context, address, place):
    page = open_page(context, address, place)
    wait_until(page, f"{CARDS} > 0")


def test_a_prompt_s_link_shows_its_runs_in_any_panel_and_representation(context, finished, tmp_path):
    """The last prompt alone has its runs in a second set, in a representation that others do not have."""
    folder = shutil.copytree(finished, tmp_path / "report")
    data = content_of_page(folder)
    last = len(data["prompts"]) - 1
    second = json.loads(json.dumps(data["panels"][0])) | {"title": "second"}
    for column in second["columns"][:1]:
        column["representation"] = "NeRF"
    data["panels"].append(second)
    for run in data["runs"]:
        if run["prompt"] == last:
            run["panel"] = 1
    page = open_page(context, write_page(data, folder).as_uri())
    page.locator(".prompts a", has_text=data["prompts"][last]).first.click()
    runs = sum(run["prompt"] == last for run in data["runs"])
    assert runs > 1
    wait_until(page, f"{CARDS} === {runs}")


def test_curves_show_small_numbers_and_take_new_colours(context, finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "report")
    page = open_page(context, (folder / "index.html").as_uri())
    run = run_ids(page)[0]
    path = folder / "runs" / f"{run}.js"
    text = path.read_text()
    begin = text.index("{")
    more, end = json.JSONDecoder().raw_decode(text[begin:])
    steps = more["curves"]["step"]
    more["curves"] = {"step": steps, "seconds": steps, "rate": [3e-4 / (k + 1) for k in range(len(steps))]}
    path.write_text(text[:begin] + json.dumps(more) + text[begin + end :])
    page.goto(f"{(folder / 'index.html').as_uri()}#run={run}")
    page.locator(".curves canvas").wait_for()
    page.locator(".curves .u-over").hover()
    value = float(page.locator(".u-series", has_text="Value").locator(".u-value").inner_text())
    assert 0 < value <= 3e-4
    drawn = "document.querySelector('.curves canvas').toDataURL()"
    before = page.evaluate(drawn)
    page.keyboard.press("d")
    wait_until(page, f"{drawn} !== {json.dumps(before)}")


def test_clearing_the_choice_is_seen_on_a_run_s_page_and_a_fifth_is_refused_in_words(context, address):
    page = open_page(context, address)
    ids = run_ids(page)
    page.evaluate("(ids) => ids.forEach((id) => choose(id, true))", ids[:5])
    assert "At most 4 runs can be compared." in page.locator("#tray").inner_text()
    page.goto(f"{address}#run={ids[0]}")
    button = page.locator(".runhead button")
    wait_until(page, "document.querySelector('.runhead button').innerText === 'Do not compare'")
    page.get_by_role("button", name="Clear").click()
    assert button.inner_text() == "Compare"


def test_typing_is_quick_among_many_runs(context, finished, tmp_path):
    """The shown representation is found once for a search, not once for each run."""
    folder = shutil.copytree(finished, tmp_path / "report")
    page = open_page(context, (folder / "index.html").as_uri(), "gallery")
    counted = """(() => {
        let calls = 0;
        const real = representationOf;
        representationOf = (state) => { calls += 1; return real(state); };
        matching({ q: "", panel: 0, as: null, off: new Set(), seed: "" });
        representationOf = real;
        return calls;
    })()"""
    assert page.evaluate(counted) == 1
