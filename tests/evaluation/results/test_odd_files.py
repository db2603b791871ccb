"""One odd file stops nobody: it is a problem with a path and one reason, and the others go on."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import time

import pytest
from judgement_files import elo_file, preferences
from run_folders import draw, write_run, write_score

from evaluation.figures.contact_sheet import make_sheets
from evaluation.metrics.base import score_run
from evaluation.metrics.ground_truth import GroundTruth
from evaluation.metrics.score import score_all
from evaluation.results.collect import collect, save
from evaluation.tables.method_tables import make_tables
from trace_bench.run_folder.index import read_index
from trace_bench.run_folder.manifest import utc_now
from trace_bench.run_folder.states import state_of
from trace_bench.sweeps import sweep_plan
from trace_bench.sweeps.slurm import commands as slurm
from trace_bench.sweeps.status import main as status
from trace_bench.sweeps.status import report, verify

pytestmark = pytest.mark.slow

TRUTH = {"ground_truth": GroundTruth()}
SHEET = {"views": {"front": 0.0}, "prompts": None, "columns": None, "tile_px": 32}
NAMES: dict = {"method": {}, "representation": {}}


@pytest.fixture(autouse=True)
def _own(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACE_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(slurm, "is_here", lambda: False)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two finished runs with scores, their sweep, a tournament and a study."""
    out = tmp_path_factory.mktemp("made")
    for method in ("sds", "vsd"):
        folder = write_run(out, method=method)
        draw(folder, "a red cube", views=4, resolution=32)
        write_score(folder, TRUTH["ground_truth"], iou=0.5, delta_e=1.0, depth_error=0.1, chamfer=0.1)
    names = [path.parent.relative_to(out).as_posix() for path in out.glob("runs/*/*/*/*/*/manifest.json")]
    sweep_plan.write_plan(out, ["python"], names)
    sweep_plan.write_jobs(out, names, {"7_1": names})
    elo_file(out, [("sds", "overall", 1000.0, 5.0)])
    preferences(out)
    return out


@pytest.fixture
def root(made, tmp_path):
    return shutil.copytree(made, tmp_path / "outputs")


def read_everything(root):
    """What all readers say: problems, and that none of them raises."""
    text, _ = report(root, time.time())
    verify(root)
    results = collect(root, TRUTH)
    make_tables(results, TRUTH, NAMES, ["sds", "vsd"])
    _, problems = make_sheets(results, root, SHEET, ["sds", "vsd"])
    save(results, root)
    return text, results, [*results.problems, *problems]


def set_in(path, keys, value):
    data = json.loads(path.read_text())
    node = data
    for key in keys[:-1]:
        node = node[key]
    node[keys[-1]] = value
    path.write_text(json.dumps(data))


def test_without_odd_files_there_are_no_problems(root):
    text, results, problems = read_everything(root)
    assert problems == []
    assert "Problem" not in text
    assert len(results.frame) == 2


MANIFESTS = {
    "seconds: null": (["seconds"], None),
    "cost: null": (["cost"], None),
    "environment: []": (["environment"], []),
    "a prompt that is a number": (["run", "prompt"], 7),
    "files: null": (["files"], None),
    "views: a": (["views"], "a"),
    "a lone surrogate": (["run", "prompt"], "a \ud800"),
    "an infinite cost": (["cost", "tflop"], float("inf")),
    "a number beyond 64 bits": (["run", "seed"], 10**30),
    "minutes in words": (["declared"], {"minutes": "many"}),
    "slurm in words": (["environment"], {"slurm": "yes"}),
    "a million million views": (["views"], 10**12),
    "a nested list as a version": (["schema_version"], [[1]]),
    "text as seconds": (["seconds"], {"total": "12"}),
    "negative seconds": (["seconds"], {"total": -5.0}),
    "seconds with 300 digits": (["seconds"], {"total": 1e300}),
    "a key that controls the terminal": (["seconds"], {"\x1b[31m\n": None}),
    "a long value": (["environment"], {"gpu": ["x" * 5000]}),
}


@pytest.mark.parametrize("what", MANIFESTS)
def test_an_odd_manifest_is_a_problem_and_the_others_go_on(root, what):
    (path,) = root.glob("runs/vsd/*/*/*/*/manifest.json")
    set_in(path, *MANIFESTS[what])
    text, results, problems = read_everything(root)
    assert list(results.frame["method"]) == ["sds"]
    (problem,) = problems
    assert problem.startswith(str(path))
    assert problem.isprintable()
    assert len(problem) < 800
    assert "\n" not in problem
    assert "1 unreadable" in text


SCORES = {
    "a value in words": (["values", "iou"], "good"),
    "values: null": (["values"], None),
    "inputs: []": (["inputs"], []),
    "rows: 3": (["rows"], 3),
    "a version that is a list": (["schema_version"], []),
}


@pytest.mark.parametrize("what", SCORES)
def test_an_odd_score_file_is_a_problem_and_is_made_again(root, what):
    (path,) = root.glob("runs/vsd/*/*/*/*/scores/ground_truth.json")
    set_in(path, *SCORES[what])
    _, results, problems = read_everything(root)
    assert len(results.frame) == 2
    assert results.frame.set_index("method")["iou"].isna().to_dict() == {"sds": False, "vsd": True}
    (problem,) = problems
    assert problem.startswith(str(path))
    runs = [run for run in read_index(root).runs.values() if run.identity.method == "vsd"]
    outcome = score_all(runs, TRUTH)
    assert outcome.problems == []
    assert outcome.computed == {"ground_truth": 1}
    assert not score_run(TRUTH["ground_truth"], runs[0])
    assert read_everything(root)[2] == []


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("plan.json", "{"),
        ("plan.json", "[]"),
        ("plan.json", '{"command": 1, "issued": "", "runs": []}'),
        ("plan.json", '{"command": "x", "issued": null, "runs": []}'),
        ("plan.json", '{"command": "x", "issued": "", "runs": ["odd"]}'),
        ("plan.json", '{"command": "x", "issued": "", "runs": ["runs/a/b/c/../../.."]}'),
        ("plan.json", '{"command": "x", "issued": "", "runs": "runs"}'),
        ("jobs-7.json", '{"7_1": 3}'),
        ("jobs-7.json", '{"7_1; rm": []}'),
        ("jobs-7.json", "[" * 100_000),
        ("jobs-7.json", "null"),
    ],
)
def test_an_odd_plan_is_a_problem_of_status(root, file, content):
    (path,) = root.glob(f"sweeps/*/{file}")
    path.write_text(content)
    text, results, problems = read_everything(root)
    assert f"Problem: {path}" in text
    assert text.startswith("2 runs under")
    assert problems == []
    assert len(results.frame) == 2


@pytest.mark.parametrize(
    ("pattern", "keys", "value"),
    [
        ("gpteval3d/*/elo.json", ["tournaments", 0, "rows", 0, "elo"], "high"),
        ("gpteval3d/*/elo.json", ["tournaments"], None),
        ("gpteval3d/*/elo.json", ["judge"], "me"),
        ("user_study/*/preferences.json", ["rows", 0, "percent", "ours", "value"], "most"),
        ("user_study/*/preferences.json", ["raters"], 5),
        ("runs/vsd/*/*/*/*/renders/cameras.json", [0, "azimuth_deg"], "left"),
        ("runs/vsd/*/*/*/*/renders/cameras.json", [0], None),
    ],
)
def test_odd_judgements_and_cameras_are_problems(root, pattern, keys, value):
    (path,) = root.glob(pattern)
    set_in(path, keys, value)
    _, results, problems = read_everything(root)
    assert len(results.frame) == 2
    (problem,) = problems
    assert problem.startswith(str(path))


def test_a_clock_in_the_future_gives_no_negative_time(root):
    future = "2099-01-01T00:00:00+00:00"
    (path,) = root.glob("runs/vsd/*/*/*/*/manifest.json")
    set_in(path, ["started"], future)
    (path.parent / ".claim").write_text(json.dumps({"pid": 1, "host": "another-machine"}))
    set_in(path, ["status"], "running")
    (other,) = root.glob("runs/sds/*/*/*/*/manifest.json")
    set_in(other, ["started"], future)
    set_in(other, ["finished"], future)
    text, _ = report(root, time.time())
    assert "Running longest" in text
    assert " -" not in text.partition("Slowest")[2]
    assert "1.0 runs per hour" not in text or "-" not in text.partition("Throughput")[2].splitlines()[0]


def test_tables_and_status_use_the_same_words(root):
    (path,) = root.glob("runs/vsd/*/*/*/*/manifest.json")
    set_in(path, ["status"], "running")
    set_in(path, ["started"], utc_now())
    run = next(run for run in read_index(root).runs.values() if run.identity.method == "vsd")
    assert state_of(run.folder, run.manifest) == "killed"
    text, results, _ = read_everything(root)
    assert results.unfinished == {"killed": 1}
    assert "1 done, 1 killed" in text


def test_slurm_that_does_not_answer_is_said(root, monkeypatch):
    def fail(ids):
        raise slurm.SlurmError("squeue failed: Unable to contact slurm controller.")

    monkeypatch.setattr(slurm, "is_here", lambda: True)
    monkeypatch.setattr(slurm, "queued", fail)
    text, _ = report(root, time.time())
    assert "Slurm did not answer, so the state of its jobs is unknown: squeue failed: Unable to" in text


# --- files that would hang a reader, fill the memory or control the terminal -----------------------------


@contextlib.contextmanager
def at_most(seconds):
    """Fail a block that waits for longer, for example for a pipe; no reader catches this."""

    def stop(*_):
        pytest.fail(f"a reader waited for {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def as_a_pipe(path):
    path.unlink()
    os.mkfifo(path)


def as_a_folder(path):
    path.unlink()
    path.mkdir()


def with_a_terabyte(path):
    os.truncate(path, 2**40)  # sparse: takes no space


ODD_KINDS = {
    as_a_pipe: "is not a regular file",
    as_a_folder: "is a folder",
    with_a_terabyte: "has more than 256 MB",
}
READ = [
    "runs/vsd/*/*/*/*/manifest.json", "runs/vsd/*/*/*/*/scores/ground_truth.json",
    "runs/vsd/*/*/*/*/renders/cameras.json", "sweeps/*/plan.json", "sweeps/*/jobs-7.json",
    "gpteval3d/*/elo.json", "user_study/*/preferences.json",
]  # fmt: skip


@pytest.mark.parametrize("pattern", READ)
@pytest.mark.parametrize("change", ODD_KINDS)
def test_a_file_of_another_kind_or_size_is_a_problem(root, change, pattern):
    (path,) = root.glob(pattern)
    change(path)
    with at_most(20.0):
        text, results, problems = read_everything(root)
    said = [line for line in [*text.splitlines(), *problems] if str(path) in line]
    assert said
    assert ODD_KINDS[change] in said[0]
    assert "sds" in list(results.frame["method"])


def test_a_score_that_was_changed_reaches_no_table(root):
    (path,) = root.glob("runs/vsd/*/*/*/*/scores/ground_truth.json")
    path.write_text(path.read_text().replace('"iou": 0.5', '"iou": 0.9'))
    _, results, problems = read_everything(root)
    (problem,) = problems
    assert problem.startswith(f"{path} was changed after it was written")
    frame = results.frame.set_index("method")
    assert (frame["iou"]["sds"], frame["iou"].isna()["vsd"]) == (0.5, True)


def test_a_score_of_an_earlier_version_has_no_checksum(root):
    (path,) = root.glob("runs/vsd/*/*/*/*/scores/ground_truth.json")
    content = json.loads(path.read_text())
    del content["checksum"]
    path.write_text(json.dumps(content))
    _, results, problems = read_everything(root)
    assert problems == []
    assert list(results.frame["iou"]) == [0.5, 0.5]


def test_a_plan_does_not_control_the_terminal(root, capsys):
    (path,) = root.glob("sweeps/*/plan.json")
    set_in(path, ["command"], "python \x1b[2J\u202e")
    assert status([f"output_root={root}"]) == 0
    said = capsys.readouterr().out
    assert "python" in said
    assert said.replace("\n", "").isprintable()
