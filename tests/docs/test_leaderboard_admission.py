"""Only complete, scored rows of one version enter the leaderboard, and the check names what is missing."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from leaderboard_rows import METRICS, frame
from omegaconf import OmegaConf

from evaluation.results.controls import committed
from scripts.leaderboard import making
from scripts.leaderboard.admission import check_versions, judges_of, merged, prompts_sha256, versions_of
from scripts.leaderboard.completeness import listed_methods, pending, problems
from scripts.leaderboard.rows import Board, Failed, dumps, loads
from scripts.leaderboard.sections import MAIN, SECTIONS, prompts_of
from scripts.leaderboard.sensitivity import without_asset
from trace_bench.system.config_path import conf_dir
from trace_bench.system.errors import TraceBenchError

SHA256 = {"without": "92692d17" * 8, "with": "e9ad67aa" * 8}


def fake_run(adapter=False, **changes):
    """A run with the parts of a manifest that admission reads, as those of sds (or vsd, with an adapter)."""
    about = {"trace_bench": "1", "sha256": SHA256["with" if adapter else "without"], "n_views": 24,
             "torch": "2.15.0", "diffusers": "0.42.1", "commit": "c" * 40, "dirty": False}  # fmt: skip
    about |= changes
    manifest = SimpleNamespace(
        environment={
            "trace_bench": about["trace_bench"], "commit": about["commit"], "dirty": about["dirty"],
            "packages": {"torch": about["torch"], "diffusers": about["diffusers"], "numpy": "2.4.6"},
        },
        prior={"sha256": about["sha256"]} | ({"adapter_repo": None} if adapter else {}),
        rig={"n_views": about["n_views"]},
    )  # fmt: skip
    return SimpleNamespace(manifest=manifest, folder=Path("outputs/x"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"trace_bench": "2"}, "the version of trace_bench"),
        ({"torch": "2.14.3"}, "the version of torch"),
        ({"diffusers": "0.41.0"}, "the version of diffusers"),
        ({"sha256": "b" * 64}, "the prior's weights"),
        ({"n_views": 120}, r"the evaluation cameras \(?n_views"),
    ],
)
def test_other_versions_are_refused(changes, words):
    with pytest.raises(TraceBenchError, match=words):
        versions_of([fake_run(), fake_run(**changes)], METRICS)
    mine = versions_of([fake_run(**changes)], METRICS)
    with pytest.raises(TraceBenchError, match=words):
        check_versions(Board(versions_of([fake_run()], METRICS)), mine)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sha256": None}, "does not say the sha256 of its prior's weights"),
        ({"torch": None}, "does not say its version of torch"),
        ({"dirty": True}, "uncommitted changes"),
        ({"commit": None, "dirty": None}, "an unknown commit"),
    ],
)
def test_runs_that_nobody_could_make_again_are_refused(changes, words):
    with pytest.raises(TraceBenchError, match=words):
        versions_of([fake_run(), fake_run(**changes)], METRICS)


def test_a_method_with_an_adapter_has_other_weights():
    """The prior's hash of VSD contains the base of its LoRA; each kind is compared with its own."""
    found = versions_of([fake_run(), fake_run(adapter=True), fake_run()], METRICS)
    assert found["prior"] == {"with adapter": SHA256["with"], "without adapter": SHA256["without"]}
    board = Board(versions_of([fake_run()], METRICS))
    check_versions(board, versions_of([fake_run(adapter=True)], METRICS))
    both = merged(board.versions, versions_of([fake_run(adapter=True)], METRICS))
    assert both == found
    with pytest.raises(TraceBenchError, match="the prior's weights"):
        check_versions(Board(both), versions_of([fake_run(adapter=True, sha256="b" * 64)], METRICS))


def test_other_commits_and_fixes_of_packages_are_allowed():
    versions_of([fake_run(), fake_run(commit="d" * 40, torch="2.15.1")], METRICS)


def test_other_prompts_are_refused(monkeypatch):
    before = Board(versions_of([fake_run()], METRICS))
    monkeypatch.setattr("scripts.leaderboard.admission.prompts_sha256", lambda: "other")
    with pytest.raises(TraceBenchError, match="the prompts of toy_bench"):
        check_versions(before, versions_of([fake_run()], METRICS))


class Shop:
    """A workshop with given runs and results."""

    output_root = Path("outputs")
    metrics = METRICS

    def __init__(self, frame, run):
        self.frame, self.run = frame, run

    def results(self, _sweep):
        return SimpleNamespace(controls=self.frame)

    def runs(self, _sweep):
        return [self.run]


def test_controls_are_checked_as_rows_are():
    """No prior made them, but code, cameras and judges are those of the rows."""
    controls = committed().assign(folder="outputs/x")
    before = Board(versions_of([fake_run()], METRICS) | {"judges": judges_of(controls, METRICS)})
    making.add_controls(before, Shop(controls, fake_run(sha256=None)))
    assert len(before.sections["controls"]) == len(controls)
    for rows, run, words in (
        (controls.assign(ground_truth_judge="other"), fake_run(), "settings of the metrics"),
        (controls, fake_run(n_views=12), "the evaluation cameras"),
        (controls, fake_run(dirty=True), "uncommitted changes"),
    ):
        with pytest.raises(TraceBenchError, match=words):
            making.add_controls(before, Shop(rows, run))


def test_a_run_without_a_score_is_refused():
    rows = frame().assign(folder="outputs/x")
    assert set(judges_of(rows, METRICS)) == set(METRICS)
    rows.loc[3, "clip_score_judge"] = None
    with pytest.raises(TraceBenchError, match="have no clip_score, such as outputs/x"):
        judges_of(rows, METRICS)


def test_two_judges_are_refused():
    rows = frame().assign(folder="outputs/x")
    rows.loc[3, "clip_score_judge"] = "other"
    with pytest.raises(TraceBenchError, match="2 sets of weights"):
        judges_of(rows, METRICS)


def whole():
    """A file with every row that the experiments ask for."""
    judges = {name: f"{name} of the test" for name in METRICS}
    about = {f"{name}_judge": judge for name, judge in judges.items()}
    about |= {"commit": "c" * 12, "torch": "2.15.0", "diffusers": "0.42.1", "numpy": "2.4.6"}
    count = iter(range(100_000))

    def rows(by, names, texts, seeds, **more):
        found = [
            {by: name, "prompt_id": i, "prompt": text, "seed": seed, "fingerprint": f"{next(count):064x}"}
            | about
            | dict(zip(more, values, strict=True))
            for name in names
            for i, text in texts.items()
            for seed in seeds
            for values in itertools.product(*more.values())
        ]
        return pd.DataFrame(found)

    methods = listed_methods()
    every = prompts_of("leaderboard")
    twelve = {str(i): every[str(i)] for start in range(0, 48, 12) for i in range(start, start + 3)}
    eight = {i: text for i, text in twelve.items() if int(i) % 12 < 2}
    with_front = {str(i): every[str(i)] for i in range(24, 36)}
    four = {i: every[i] for i in ("4", "12", "24", "29")}
    controls = OmegaConf.load(Path(conf_dir()) / "experiment" / "controls.yaml").hydra.sweeper.params
    scaled = [name for name in methods if name not in ("csd", "bsd")]
    seven = ("sds", "csd", "vsd", "sdi", "ism", "trace", "dreamer_xl")
    versions = {
        "trace_bench": "1", "torch": "2.15", "diffusers": "0.42", "rig": {"n_views": 24}, "metrics": {"a": 1},
        "prompts": prompts_sha256(), "prior": {"without adapter": "a" * 64}, "judges": judges,
    }  # fmt: skip
    return Board(versions, sections={
        MAIN: rows("method", methods, every, (0, 1)),
        "equal_work": rows("method", methods, twelve, (0,)),
        "nerf": rows("method", ("sds", "vsd", "trace"), with_front, (0,)),
        "guidance": rows("method", scaled, four, (0,), guidance_scale=(2.5, 5.0, 10.0, 20.0, 40.0, 80.0)),
        "inits": rows("method", methods, eight, (0,), init=("sphere", "toy_coarse")),
        "janus": rows("method", seven, prompts_of("janus"), (0,), view_phrases=("True", "False")),
        "janus_perp_neg": rows("method", ("sdi", "ism", "dreamer_xl"), prompts_of("janus"), (0,)),
        "controls": rows("control", str(controls["method.control"]).strip().split(","), every, (0,)),
    })  # fmt: skip


def test_a_whole_file_has_no_problems():
    assert problems(whole(), METRICS) == []
    assert pending(whole()) == []


def test_what_is_not_made_yet_is_named():
    """A method without rows, and a section without methods, are no fault of the rows there are."""
    board = whole()
    for name in SECTIONS:
        _without(name, method="vsd")(board)
    board.sections.pop("nerf")
    assert problems(board, METRICS) == []
    assert pending(board) == [
        "each method with its own budget: vsd", "equal work: vsd", "NeRF: all methods",
        "guidance scales: vsd", "other inits: vsd", "with and without view phrases: vsd",
    ]  # fmt: skip


def _failing(section, **values):
    """Without these rows, which are failures instead."""

    def change(board):
        frame = board.sections[section]
        hit = pd.concat([frame[key] == value for key, value in values.items()], axis=1).all(axis=1)
        for row in frame[hit].to_dict("records"):
            value = f"{row['guidance_scale']:g}" if section == "guidance" else ""
            why = "Every Gaussian would be pruned at step 56."
            about = (row["method"], row["prompt_id"], row["seed"], value)
            board.failures.append(Failed(section, *about, why, "a" * 64, "c" * 12))
        board.sections[section] = frame[~hit]

    return change


def test_a_failed_run_is_a_result_of_what_a_method_is_sensitive_to():
    board = whole()
    _failing("guidance", method="dreamer_xl", guidance_scale=80.0)(board)
    assert len(board.failures) == 4
    assert problems(board, METRICS) == []
    assert pending(board) == []
    assert loads(dumps(board), METRICS).failures == board.failures
    assert without_asset(board, "inits") == ""
    assert " ".join(without_asset(board, "guidance").split()) == (
        "Dreamer XL makes no asset at guidance scale 80 (4 runs): "
        "“Every Gaussian would be pruned at step 56.”"
    )


def _without(section, **values):
    def change(board):
        frame = board.sections[section]
        hit = pd.concat([frame[key] == value for key, value in values.items()], axis=1).all(axis=1)
        board.sections[section] = frame[~hit]

    return change


def _with(section, column, value):
    def change(board):
        board.sections[section].loc[7, column] = value

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_without(MAIN, method="sds"), "equal_work: sds has rows here, but none with its own budget"),
        (_without(MAIN, method="sds", prompt_id="5", seed=1), "own_budget: sds has 95 of 96 rows"),
        (_without("equal_work", method="vsd", prompt_id="12"), "equal_work: vsd has 11 of 12 rows"),
        (_without("nerf", method="trace", prompt_id="24"), "nerf: trace has 11 of 12 rows"),
        (_without("guidance", method="sds", guidance_scale=40.0), "guidance: sds has 20 of 24 rows"),
        (
            _without("inits", method="cfd", init="sphere"),
            "inits: cfd has 8 of 16 rows; `make leaderboard METHODS=cfd SECTIONS=inits` makes them",
        ),
        (
            _without("janus", method="ism", view_phrases="False", prompt_id="3"),
            "janus: ism has 47 of 48 rows",
        ),
        (_with("guidance", "guidance_scale", 3.0), "guidance: sds has 23 of 24 rows and others"),
        (_with("janus", "prompt", "a cat"), "janus: prompt 3 is 'a cat', but 'a bear' now"),
        (_without("controls", control="fog"), "controls: fog has 0 of 48 rows"),
        (_without("controls", control="fog", prompt_id="3"), "controls: fog has 47 of 48 rows"),
        (_with(MAIN, "method", "mine"), "mine is not in conf/experiment/leaderboard.yaml"),
        (_with(MAIN, "fingerprint", "x"), "no fingerprint"),
        (_with(MAIN, "commit", None), "does not say its commit"),
        (_with("controls", "clip_score_judge", "other"), "no clip_score by the judge of the others"),
        (_failing(MAIN, method="sds", prompt_id="5"), "own_budget: sds failed, and such runs belong to no"),
        (lambda board: board.versions.pop("rig"), "does not say its `rig`"),
        (lambda board: board.versions["prior"].update({"with adapter": ""}), "no sha256"),
        (lambda board: board.versions.update(prompts="other"), "has other prompts"),
        (lambda board: board.sections.pop("controls"), "no section `controls`"),
    ],
)
def test_the_check_names_what_a_file_lacks(change, words):
    """So that taking out bad rows and making the pages again is noticed."""
    board = whole()
    change(board)
    assert any(words in problem for problem in problems(board, METRICS))
