"""`make results`: every result in README and docs has a stage that makes it, and is what that stage makes."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from evaluation.metrics.base import Score, score_run
from evaluation.results.collect import Results
from scripts import make_leaderboard
from scripts.leaderboard.page import BLOCKS
from scripts.leaderboard.rows import FILE, Board, dumps
from scripts.leaderboard.sections import MAIN
from scripts.make_results import options
from scripts.results import costs, decisions, toy, workshop
from scripts.results.document import blocks, fill_table, keep_times, numbers, pages, replace_block
from scripts.results.stages import STAGES
from scripts.results.workshop import ROOT, Workshop
from trace_bench.priors import flops
from trace_bench.run_folder.index import read_index
from trace_bench.run_folder.manifest import Manifest, read_manifest, write_manifest
from trace_bench.run_folder.reading import Run
from trace_bench.sweeps import budget
from trace_bench.sweeps.planning import make_plan
from trace_bench.system.errors import TraceBenchError
from trace_bench.toyworld import held_out_prompts

SHOP = Workshop(ROOT, ROOT / "outputs" / "results")
COUNTED = [(page, name) for stage in ("costs", "toyworld") for page, name in STAGES[stage].blocks]
QUICK = [
    "steps=2", "init.n=80", "rig.n_views=8", "rig.resolution=16", "resolution=24", "device=cpu",
    "representation.densify.max_gaussians=500",
]  # fmt: skip


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


# Every result has a stage, and every stage's results have a place.


def test_every_block_belongs_to_a_stage_and_every_stage_has_its_blocks():
    written = {
        (str(page.relative_to(ROOT)), name)
        for page in pages(ROOT)
        for name in blocks(page.read_text("utf-8"))
    }
    made = [key for stage in STAGES.values() for key in stage.blocks] + list(BLOCKS)
    assert len(made) == len(set(made))
    assert written == set(made)


def test_every_marker_is_part_of_a_block():
    for page in pages(ROOT):
        text = page.read_text("utf-8")
        assert text.count("<!-- results:") == text.count("<!-- end of results") == len(blocks(text)), page


def test_every_picture_is_made_by_a_stage():
    made = [name for stage in STAGES.values() for name in stage.pictures]
    assert len(made) == len(set(made))
    if (ROOT / FILE).is_file():
        board = make_leaderboard.read(ROOT, Workshop(ROOT, ROOT))
        made += [path.name for path in make_leaderboard.pictures(board)]
    pictures = {path.name for path in (ROOT / "docs" / "images").glob("*.png")}
    assert pictures == set(made)
    shown = {
        name for page in pages(ROOT) for name in re.findall(r"images/([\w.]+)\)", page.read_text("utf-8"))
    }
    assert shown == pictures


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name in STAGES if name != "experiments"])
def test_every_sweep_can_be_planned(name, tmp_path):
    """tests/sweeps/test_experiments.py plans the experiments."""
    for sweep in STAGES[name].sweeps:
        plan = Workshop(ROOT, tmp_path).plan(sweep)
        assert {run.identity.prior for run in plan} == {"tiny_flow" if "prior=tiny_flow" in sweep else "tiny"}


# What is counted, not run.


def made(page: str, name: str) -> str:
    (make,) = (stage.blocks[page, name] for stage in STAGES.values() if (page, name) in stage.blocks)
    return make(SHOP, blocks(read(page))[name])


@pytest.fixture
def printed_units(monkeypatch):
    """Counting SDXL takes a minute, so here its TFLOP are those of docs/methods.md."""
    text = blocks(read("docs/methods.md"))["unit-costs"]
    unet, forward, backward = map(float, re.search(r"([\d.]+), ([\d.]+) and ([\d.]+)\)\.", text).groups())
    counted = flops.unit_tflop

    def unit_tflop(unet_config, vae_config, text_length, resolution):
        if json.loads(unet_config).get("cross_attention_dim") == 2048:
            return {
                "unet_fwd": unet,
                "unet_bwd": 0.0,
                "vae_enc_fwd": forward,
                "vae_enc_bwd": backward,
                "vae_dec": 0.0,
            }
        return counted(unet_config, vae_config, text_length, resolution)

    monkeypatch.setattr(flops, "unit_tflop", unit_tflop)
    forget()
    yield
    forget()


def forget():
    """What was counted with other numbers."""
    costs.cost_of.cache_clear()
    budget.tflop_of_run.cache_clear()
    budget.unit_costs.cache_clear()


@pytest.mark.slow
@pytest.mark.usefixtures("printed_units")
def test_counted_blocks_are_as_committed():
    for page, name in COUNTED:
        assert made(page, name) == blocks(read(page))[name].strip("\n"), (page, name)


@pytest.mark.long
def test_counted_blocks_are_as_committed_with_sdxl_counted():
    """Slow: counting SDXL takes a minute."""
    forget()
    for page, name in COUNTED:
        assert made(page, name) == blocks(read(page))[name].strip("\n"), (page, name)


# What follows from the leaderboard's file.


def test_prompts_and_seeds_are_those_of_the_leaderboard(tmp_path):
    """Three methods, of which two differ by prompts alone; a prompt without a score is left out."""
    rng, rows = np.random.default_rng(0), []
    for method, on_prompts, on_seeds in (("a", 0.0, 0.0), ("b", 0.05, 0.0), ("c", 0.05, 0.08)):
        for prompt in range(200):
            level = on_prompts * rng.normal()
            for seed in (0, 1):
                value = 0.7 + level + on_seeds * rng.normal()
                rows.append((method, str(prompt), seed, value, 100 * value))
    frame = pd.DataFrame(rows, columns=["method", "prompt_id", "seed", "soft_iou", "colour_error"])
    frame.loc[0, "soft_iou"] = math.nan
    (tmp_path / "docs").mkdir()
    (tmp_path / FILE).write_text(dumps(Board(sections={MAIN: frame})), encoding="utf-8")
    shop = Workshop(tmp_path, tmp_path)
    iou = decisions.measured(shop)["soft_iou"]
    assert iou.shape == (199, 3, 2)
    assert iou[..., 0, :] == pytest.approx(0.7)
    narrow, middle, wide = decisions.spreads(iou)
    assert (narrow.prompts, narrow.seeds) == (pytest.approx(0.05, rel=0.15), pytest.approx(0.0, abs=1e-6))
    assert (middle.prompts, middle.seeds) == pytest.approx((0.05, 0.08), rel=0.2)
    assert wide.prompts == pytest.approx(0.05 * math.sqrt(2), rel=0.2)
    block = decisions.prompts_needed_block(shop, "")
    assert "`docs/leaderboard.json`: 3 methods on 199 prompts, 2 seeds each." in block
    assert "| prompts, 4 seeds | prompts, 1 seed, 3 comparisons | seeds on 199 prompts |" in block


# What is run.


SECONDS = {"sds": 10.0, "sdi": 200.0}
IOU = {"sds": 0.7, "csd": 0.5, "ism": 0.8, "dreamer_xl": 0.79}


def invent(shop, *sweeps):
    """Finished runs with scores, without making them: match and IoU rise by 0.01 from prompt to prompt."""
    for run in {run.folder: run for sweep in sweeps for run in shop.plan(sweep)}.values():
        who = run.identity
        run.folder.mkdir(parents=True, exist_ok=True)
        seconds = SECONDS.get(who.method, 30.0) + int(who.prompt_id)
        manifest = Manifest(
            status="done", fingerprint=run.fingerprint, run=who,
            seconds={"load": 0.0, "init": 1.0, "distill": seconds - 3.0, "render": 2.0, "total": seconds},
            cost={"unet_fwd": 17 * who.steps, "unet_bwd": 0, "tflop": 1.0}, prompt_source={"count": 8},
            rig={"n_views": 120, "resolution": 128}, environment={"cpus": 4, "gpu": None},
            finished="2026-01-01T00:00:00+00:00", files=["config.yaml"],
        )  # fmt: skip
        write_manifest(run.folder, manifest)
        iou = IOU.get(who.method, 0.6) + 0.01 * int(who.prompt_id)
        write_score(
            run.folder,
            shop.metrics["ground_truth"],
            match=iou,
            soft_iou=iou,
            colour_error=9.0,
            depth_error=0.1,
            chamfer=0.1,
            janus=0.1,
        )
        write_score(run.folder, shop.metrics["clip_score"], clip_score=80.0, recognised=1.0)


def write_score(folder, metric, **values):
    """A score file as `evaluation.score` leaves it."""

    class Given(type(metric)):
        def files(self, run):
            return []

        def score(self, run):
            return Score(values, rows=[{"view": 0}])

    given = Given.__new__(Given)
    given.__dict__.update(metric.__dict__)
    score_run(given, Run(folder, read_manifest(folder)))


@pytest.mark.long
def test_blocks_are_made_from_the_runs(tmp_path, monkeypatch):
    few = {name: toy.EXPERIMENT_SWEEPS[name] for name in ("diversity", "nerf_qualitative")}
    monkeypatch.setattr(toy, "EXPERIMENT_SWEEPS", few)
    shop = Workshop(ROOT, tmp_path)
    invent(shop, toy.METHODS_SWEEP, toy.NERF_SWEEP, toy.NERF_PICTURES_SWEEP, *few.values())

    methods = toy.methods_table(shop, blocks(read("docs/methods.md"))["toy-methods"])
    assert "| SDS | 0.735 ± 0.024 | 0.735 ± 0.024 | 9.0 ± 0.0 | 80.0 ± 0.0 | 8/8 | 13 | 4080 |" in methods
    assert "| Dreamer XL (TSM on the tiny prior) | 0.825 ± 0.024 |" in methods
    said = methods.replace("\n", " ")
    assert "With eight prompts, 0 of the 136 differences between methods in Match are decided; eight" in said
    assert "ISM's lead over Dreamer XL is 0.010 (95 % interval of this difference alone: 0.010 to" in said
    assert (
        "the mushroom's run on four cores, with one run on each core, including turntable and 120 views"
        in methods
    )

    nerf = toy.nerf_table(shop, blocks(read("docs/nerf.md"))["toy-nerf"])
    assert "| TraCe | 0.635 ± 0.024 | 8/8 | 30 to 37 |" in nerf
    others = toy.nerf_seconds(shop, "").replace("\n", " ")
    assert "including 120 pictures of 128 pixels and the mesh." in others
    assert (
        "a red mushroom takes at most 33 s; only SDI takes longer, 203 s for its 17 UNet items per step."
        in others
    )

    readme = toy.readme_table(shop, "")
    assert re.search(r"\| SDS +\| 3DGS .* \*\*0.735 ± 0.024\*\* .* 8/8 \| +0.2[23] \| +4080 \| +8 \|", readme)
    assert re.search(r"\| Truth +\| — .* 1.000 ± 0.000 ", readme)
    assert re.search(r"\| Control: \w+ +\| — ", readme)
    disk = toy.disk_space(shop, "").replace("\n", " ")
    assert re.fullmatch(
        r"On average, a toy run \(128 pixels\) has 0.0 MB. At 512 .* and 2,000 files for 660 runs\.", disk
    )
    times = toy.experiment_times(shop, "").replace("\n", " ")
    assert re.search(r"four cores, .*: `nerf_qualitative` \d\d s, `diversity` \d min\.$", times)


def test_results_of_a_sweep_have_its_runs_and_their_steps(tmp_path, monkeypatch):
    found = Results(
        pd.DataFrame({"folder": ["runs/a", "runs/b"]}),
        steps=pd.DataFrame({"folder": ["runs/a/steps/00015", "runs/b/steps/00015"]}),
    )
    monkeypatch.setattr(workshop, "collect", lambda *_: found)
    monkeypatch.setattr(Workshop, "runs", lambda *_: [])
    monkeypatch.setattr(Workshop, "_names", lambda *_: {"runs/b": None})
    results = Workshop(tmp_path, tmp_path).results(("method=sds",))
    assert results.frame["folder"].tolist() == ["runs/b"]
    assert results.steps["folder"].tolist() == ["runs/b/steps/00015"]


def test_a_missing_run_stops_the_command(tmp_path):
    with pytest.raises(TraceBenchError, match="is not finished, but should be"):
        toy.readme_table(Workshop(ROOT, tmp_path), "")


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """README and docs, and what two calls of the command did to them; minutes of the first call are kept."""
    folder = tmp_path_factory.mktemp("pages")
    shutil.copy(ROOT / "README.md", folder)
    shutil.copytree(ROOT / "docs", folder / "docs")
    return folder


def call(folder, *arguments):
    settings = [part for item in QUICK for part in ("--set", item)]
    command = [sys.executable, ROOT / "scripts" / "make_results.py", *arguments, *settings]
    places = ["--folder", folder, "--output-root", folder / "runs"]
    done = subprocess.run([*command, *places], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def contents(folder):
    files = [folder / "README.md", *(folder / "docs").rglob("*")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files if path.is_file()}


@pytest.mark.long
def test_a_stage_runs_and_a_second_call_does_nothing(copy):
    """Slow: it makes 24 assets, in two steps each."""
    before = contents(copy)
    first = call(copy, "readme")
    assert "0 of 24 runs are there" in first
    after = contents(copy)
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {"README.md", "docs/cluster.md", "docs/images/contact_sheet.png"}
    manifests = {name: run.manifest for name, run in read_index(copy / "runs").runs.items()}
    assert len(manifests) == 24

    second = call(copy, "readme")
    assert "24 of 24 runs are there" in second
    assert "nothing changed" in second
    assert contents(copy) == after
    assert {name: run.manifest for name, run in read_index(copy / "runs").runs.items()} == manifests

    table = blocks(after["README.md"].decode())["toy"]
    assert re.search(
        r"^\| SDS +\| 3DGS .*\| +4 \| +8 \|$", table, re.MULTILINE
    )  # two steps of two items, 8 runs
    around = re.compile(r"<!-- results: toy -->.*?<!-- end of results -->", re.DOTALL)
    assert around.sub("", after["README.md"].decode()) == around.sub("", before["README.md"].decode())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["reedme"], "there is no stage reedme; the stages are costs, "),
        (["readme", "--set", "steps=2"], "name a copy of the pages with --folder"),
    ],
)
def test_mistakes_are_refused(arguments, message, capsys):
    with pytest.raises(SystemExit) as left:
        options(arguments)
    assert left.value.code == 2
    assert message in capsys.readouterr().err


def test_help_lists_the_stages(capsys):
    with pytest.raises(SystemExit):
        options(["--help"])
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown and stage.what in shown for name, stage in STAGES.items())


# Blocks and tables.

PAGE = """before

<!-- results: one -->

old

<!-- end of results -->

- item
  <!-- results: two -->
  old
  <!-- end of results -->
"""


def test_a_block_is_replaced_within_its_blank_lines_and_indentation():
    page = replace_block(replace_block(PAGE, "one", str.upper), "two", lambda old: f"{old}\nnew")
    assert page == PAGE.replace("old", "OLD", 1).replace("  old\n", "  old\n  new\n")
    assert blocks(page) == {"one": "OLD", "two": "old\nnew"}
    with pytest.raises(ValueError, match="no block 'three'"):
        replace_block(PAGE, "three", str.upper)


def test_a_table_is_filled_by_row_and_column():
    table = "| m | a | b |\n|---|---:|---|\n| x | 1 | 2 (3) |\n| y | 4 | 5 |"
    filled = fill_table(table, {"x": {"b": numbers("2 (3)", ["7", "8.5"])}, "y": {"a": "9"}})
    assert filled == "| m | a | b |\n|---|---:|---|\n| x | 1 | 7 (8.5) |\n| y | 9 | 5 |"
    with pytest.raises(ValueError, match="the row 'y'"):
        fill_table(table, {"x": {"a": "1"}})
    with pytest.raises(ValueError, match="no row z"):
        fill_table(table, {"x": {}, "y": {}, "z": {}})


def test_times_of_the_old_text_can_be_kept():
    old = "| m | IoU | Minutes |\n| - | --: | ------: |\n| x | 0.1 |    0.23 |\n\nMinutes on two cores."
    new = "| m | IoU | Minutes |\n| - | --: | ------: |\n| x | 0.2 |    1.50 |\n\nMinutes on four cores."
    assert keep_times(old, new) == old.replace("0.1", "0.2")
    assert keep_times("Times: 3 s", "Times: 4 s") == "Times: 3 s"
    assert keep_times("3 MB", "4 MB") == "4 MB"


# README.


def test_readme_and_makefile_name_the_same_commands():
    makefile, readme = read("Makefile"), read("README.md")
    recipe = re.search(r"^bench:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)[1]
    sweep, chain = (line.strip().replace("$(PY)", "python") for line in recipe.splitlines())
    stages = chain.removeprefix("python -m evaluation.cli ").split(
        " then "
    )  # one after the other, in one process
    steps = [
        sweep,
        *("python -m evaluation." + stage.replace("contact-sheet", "contact_sheet") for stage in stages),
    ]
    listed = re.search(r"one by one, in that environment:\n\n((?:    .*\n)+)", readme)[1]
    assert steps == [line.strip() for line in listed.splitlines()]
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    assert (
        set(
            re.findall(
                r"\bmake ([a-z-]+)", "\n".join(re.findall(r"`[^`\n]+`|^    .*$", readme, re.MULTILINE))
            )
        )
        <= targets
    )
    assert f"-m {' '.join(STAGES['readme'].sweeps[0])} hydra/launcher=local" in steps[0]


def test_readme_says_which_prompts_were_held_out():
    assert "Results on eight prompts" in read("README.md")
    assert "The last two were held out of training" in read("README.md")
    runs = make_plan(["method=sds", "prompt_set=toy"], multirun=True)
    held_out = [run.prompt.text in held_out_prompts() for run in runs]
    assert held_out == [False] * 6 + [True] * 2
    assert "SDS takes 240 steps × 2 = 480" in read("README.md")
    assert runs[0].job.steps == 240
    assert re.search(r"^\| SDS .*\| +480 \| +8 \|$", blocks(read("README.md"))["toy"], re.MULTILINE)
