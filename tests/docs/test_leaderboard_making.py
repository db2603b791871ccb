"""`make leaderboard` from run folders to pages: a whole board, then a method without the others' runs."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
from run_folders import draw, write_run

from evaluation.metrics.load import load_metrics
from evaluation.metrics.score import score_all
from evaluation.results.collect import collect
from evaluation.results.controls import committed
from scripts import make_leaderboard
from scripts.leaderboard import completeness, making
from scripts.leaderboard.page import BLOCKS, EMPTY
from scripts.leaderboard.profiles import picture_of
from scripts.leaderboard.rows import FILE, Board, dumps, loads
from scripts.leaderboard.sections import MAIN, SECTIONS
from scripts.results.workshop import Workshop, _evaluation
from trace_bench.run_folder.manifest import read_manifest, write_manifest
from trace_bench.run_folder.reading import Run
from trace_bench.system.errors import TraceBenchError

PROMPTS = ("a red sphere", "an orange cube")
FIRST, NEW = ("sds", "vsd", "reward_sds"), "cfd"
PACKAGES = {"torch": "2.15.0", "diffusers": "0.42.1", "numpy": "2.4.6"}


def write_runs(root, methods, commit="c" * 40):
    """The runs of some methods, drawn as the true objects, turned by an angle that is the method's."""
    runs = []
    for i, method in enumerate(methods):
        for k, prompt in enumerate(PROMPTS):
            folder = write_run(
                root,
                method=method,
                prompt=prompt,
                prompt_id=str(k),
                prompt_set="toy_bench",
                count=len(PROMPTS),
            )
            draw(folder, prompt, turn=20.0 * (i + 1), views=8, resolution=32)
            adapter = {"adapter_repo": None} if method == "vsd" else {}
            manifest = replace(
                read_manifest(folder),
                prior={"sha256": ("b" if adapter else "a") * 64} | adapter,
                environment={"trace_bench": "1", "commit": commit, "dirty": False, "packages": PACKAGES},
                reward={"metrics": ["clip_score"]} if method == "reward_sds" else {},
                rig={"n_views": 8},
            )
            write_manifest(folder, manifest)
            runs.append(Run(folder, manifest))
    return runs


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder of pages, with controls, and a planner that asks for the runs that were written."""
    pages = tmp_path / "pages"
    (pages / "docs").mkdir(parents=True)
    for page, name in [*BLOCKS, make_leaderboard.STATISTICS]:
        with (pages / page).open("a", encoding="utf-8") as file:
            file.write(f"<!-- results: {name} -->\n\n{EMPTY}\n\n<!-- end of results -->\n")
    controls = committed().assign(variant="")
    (pages / FILE).write_text(dumps(Board(sections={"controls": controls})), encoding="utf-8")

    def plan(shop, sweep):
        methods = sweep[-1].removeprefix("method=").split(",")
        found = shop.output_root.glob("runs/*/*/*/*/*/manifest.json")
        return [
            SimpleNamespace(folder=path.parent)
            for path in sorted(found)
            if read_manifest(path.parent).run.method in methods
        ]

    monkeypatch.setattr(Workshop, "plan", plan)
    monkeypatch.setattr(making, "listed_methods", lambda: [*FIRST, NEW])
    monkeypatch.setattr(completeness, "listed_methods", lambda: [*FIRST, NEW])
    monkeypatch.setattr(make_leaderboard, "problems", lambda board, metrics: [])
    return pages


def make(pages, root, methods):
    metrics = load_metrics(_evaluation())
    for section in SECTIONS:
        score_all(write_runs(root / section, methods), metrics)
    folders = ["--folder", str(pages), "--output-root", str(root), "--methods", ",".join(methods)]
    status = make_leaderboard.main(folders)
    board = loads((pages / FILE).read_text(encoding="utf-8"), metrics)
    return status, board


@pytest.mark.slow
def test_a_new_method_needs_no_runs_of_others(site, tmp_path):
    status, first = make(site, tmp_path / "mine", FIRST)
    assert status == 0
    assert set(first.sections[MAIN]["method"]) == set(FIRST)
    assert set(first.sections["nerf"]["method"]) == {"sds", "vsd"}, "only the methods that the paper compares"
    assert set(first.sections[MAIN]["commit"]) == {"c" * 12}
    assert first.versions["prior"] == {"with adapter": "b" * 64, "without adapter": "a" * 64}
    assert first.sections[MAIN]["optimised"].fillna("").ne("").sum() == len(PROMPTS)
    assert f"| tiny CLIP | Text-asset alignment | 2 | {len(PROMPTS)} |" in page(site), "SDS and VSD, one seed"
    drawn = {name: (site / picture_of(name)).read_bytes() for name in FIRST}
    assert make_leaderboard.main(["--folder", str(site), "--check"]) == 0

    shutil.rmtree(tmp_path / "mine")
    status, second = make(site, tmp_path / "theirs", (NEW,))
    assert status == 0
    assert set(second.sections[MAIN]["method"]) == {*FIRST, NEW}
    assert set(second.sections["equal_work"]["method"]) == {*FIRST, NEW}
    for name, frame in first.sections.items():
        after = second.sections[name]
        if name != "controls":
            after = after[after["method"] != NEW].reset_index(drop=True)
        assert after["fingerprint"].tolist() == frame["fingerprint"].tolist(), name
    assert {name: (site / picture_of(name)).read_bytes() for name in FIRST} == drawn
    assert (site / picture_of(NEW)).is_file()
    assert "| CFD " in page(site)
    assert make_leaderboard.main(["--folder", str(site), "--check"]) == 0


def page(folder):
    return (folder / "docs" / "leaderboard.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_rows_of_another_version_than_the_controls_are_refused(site, tmp_path):
    """Controls are made first, when there are no rows to compare them with."""
    metrics, board = load_metrics(_evaluation()), Board()
    old, new = write_runs(tmp_path / "controls", ("sds",)), write_runs(tmp_path / "rows", ("sds",))
    for run in old:
        run.manifest.environment["trace_bench"] = "0"
    score_all([*old, *new], metrics)
    frame = collect(tmp_path / "controls", metrics).frame
    controls = SimpleNamespace(
        metrics=metrics, runs=lambda _: old, results=lambda _: SimpleNamespace(controls=frame)
    )
    making.add_controls(board, controls)
    with pytest.raises(TraceBenchError, match="has the version of trace_bench 0, the new rows 1"):
        making.add(board, MAIN, Workshop(site, tmp_path / "rows"), ("method=sds",))


@pytest.mark.slow
def test_a_section_that_is_refused_leaves_the_rows_of_others(site, tmp_path, monkeypatch, capsys):
    """The runs of equal work were made with another version. While runs are made, no file of the checkout
    changes: their manifests would say so, and they would be refused."""
    root, before, made = tmp_path / "mine", (site / FILE).read_text(encoding="utf-8"), []

    def make(shop, sweep):
        made.append(shop.output_root.name)
        assert (site / FILE).read_text(encoding="utf-8") == before
        assert not (site / picture_of(NEW)).exists()

    monkeypatch.setattr(Workshop, "make", make)
    metrics = load_metrics(_evaluation())
    for section in SECTIONS:
        runs = write_runs(root / section, (NEW,))
        if section == "equal_work":
            for run in runs:
                other = replace(run.manifest, environment=run.manifest.environment | {"trace_bench": "2"})
                write_manifest(run.folder, other)
        score_all(runs, metrics)
    folders = ["--folder", str(site), "--output-root", str(root), "--methods", NEW]
    assert make_leaderboard.main(folders) == 2
    assert "The leaderboard has the version of trace_bench 1, the new rows 2" in capsys.readouterr().err
    assert made == [MAIN, "equal_work"]
    assert (site / picture_of(NEW)).is_file()
    board = loads((site / FILE).read_text(encoding="utf-8"), metrics)
    assert set(board.sections[MAIN]["method"]) == {NEW}
    assert "equal_work" not in board.sections
    assert make_leaderboard.main(["--folder", str(site), "--pages"]) == 0
    assert "equal work: all methods" in " ".join(page(site).split())


@pytest.mark.slow
def test_a_set_with_a_missing_run_is_refused(site, tmp_path, monkeypatch, capsys):
    """A run that was planned, but could not be made."""
    root, before = tmp_path / "mine", (site / FILE).read_text(encoding="utf-8")
    for section in SECTIONS:
        for run in write_runs(root / section, (NEW,)):
            if section == MAIN and run.manifest.run.prompt_id == "1":
                write_manifest(run.folder, replace(run.manifest, status="failed"))
    monkeypatch.setattr(Workshop, "make", lambda *_: None)
    folders = ["--folder", str(site), "--output-root", str(root), "--methods", NEW]
    score = load_metrics(_evaluation())
    score_all(list(Workshop(site, root / MAIN).done().values()), score)
    assert make_leaderboard.main(folders) == 2
    assert "is not finished, but should be" in capsys.readouterr().err
    assert (site / FILE).read_text(encoding="utf-8") == before


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "status"), [("TraceBenchError", 0), ("OSError", 2)])
def test_a_run_that_its_settings_make_fail_is_a_result(site, tmp_path, monkeypatch, kind, status):
    """Only where settings vary, and only if the error is by them: not one of a full disk."""
    root, metrics = tmp_path / "mine", load_metrics(_evaluation())
    for section in (MAIN, "inits"):
        runs = write_runs(root / section, (NEW,))
        score_all(runs, metrics)
        if section == "inits":
            write_manifest(runs[1].folder, replace(runs[1].manifest, status="failed", prior={}))
            error = {"type": kind, "message": "Every Gaussian would be pruned.", "step": 56}
            (runs[1].folder / "error.json").write_text(json.dumps(error))
            monkeypatch.setattr(Workshop, "command", lambda *_: None)  # makes the missing runs, but cannot
    folders = ["--folder", str(site), "--output-root", str(root), "--methods", NEW]
    assert make_leaderboard.main([*folders, "--sections", f"{MAIN},inits"]) == status
    board = loads((site / FILE).read_text(encoding="utf-8"), metrics)
    if status:
        assert board.failures == []
        assert "inits" not in board.sections
        return
    (failed,) = board.failures
    assert (failed.section, failed.method, failed.prompt_id) == ("inits", NEW, "1")
    assert failed.why == "Every Gaussian would be pruned. (step 56)"
    assert failed.fingerprint == runs[1].manifest.fingerprint
    assert list(board.sections["inits"]["prompt_id"]) == ["0"]
    assert "makes no asset at init" in page(site)
