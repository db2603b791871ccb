"""Two methods, settings or output roots, prompt by prompt; and how many prompts a difference needs."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from run_folders import write_run, write_score

from evaluation.compare import main as compare
from evaluation.metrics.ground_truth import GroundTruth
from evaluation.prompts_needed import main as prompts_needed


def add(root, method: str, ious, *, rate: float = 0.1, **identity) -> None:
    for i, iou in enumerate(ious):
        folder = write_run(root, method=method, prompt_id=str(i), prompt=f"prompt {i}", **identity)
        values = {"soft_iou": float(iou), "colour_error": 10.0, "depth_error": 0.1, "chamfer": 0.05}
        write_score(folder, GroundTruth(), **values)
        (folder / "config.yaml").write_text(f"method: {{lr: {rate}, same: 1}}\nprompt: x\n")


SCORE = "python -m evaluation.score metric=[clip_score]"
BASE = np.array([0.31, 0.42, 0.35, 0.51, 0.44, 0.39, 0.47, 0.36])


@pytest.fixture
def root(tmp_path):
    add(tmp_path / "out", "sds", BASE)
    add(tmp_path / "out", "trace", BASE + 0.1 + 0.001 * np.arange(8), rate=0.2)
    return tmp_path / "out"


def test_two_methods(root, capsys):
    assert compare(["trace", "sds", "--output-root", str(root), "--metric", "soft_iou"]) == 0
    out = capsys.readouterr().out
    assert "| method.lr | 0.2 | 0.1 |" in " ".join(out.split())
    assert "same" not in out
    assert "No difference in versions and machines." in out
    assert "| IoU ↑ | 0.510 | 0.406 | +0.10" in " ".join(out.split())
    assert ".0078" in out
    assert "A is better" in out
    assert "8 of 8 prompts moved, 8 higher in A" in out
    assert out.index("| prompt 7") < out.index("| prompt 0")
    text = (root / "compare" / "trace-sds.md").read_text()
    assert text.strip() in out
    frame = pd.read_csv(root / "compare" / "trace-sds.csv")
    assert (frame["a"] - frame["b"]).tolist() == pytest.approx((0.1 + 0.001 * np.arange(8)).tolist())


def test_two_output_roots_say_what_changed_in_the_environment(root, tmp_path, capsys):
    add(tmp_path / "new", "sds", [*BASE[:6], 0.9], rate=0.1)
    for path in (tmp_path / "new" / "runs").rglob("manifest.json"):
        content = json.loads(path.read_text())
        content["environment"] = {"trace_bench": "9.9", "packages": {"torch": "3.0"}}
        path.write_text(json.dumps(content))
    assert compare([f"{root}:sds", str(tmp_path / "new"), "--metric", "soft_iou"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "trace_bench |" in out
    assert "9.9 |" in out
    assert "No difference in settings." in out
    assert "Only common prompts are compared: 1 are only in A, 0 only in B." in out
    assert "1 of 7 prompts moved, 0 higher in A, 1 higher in B." in out


def test_two_settings_of_one_method(root, capsys):
    add(root, "sds", BASE + 0.2, guidance_scale=20.0)
    arguments = ["sds,guidance_scale=20", "sds,guidance_scale=15", "--output-root", str(root)]
    assert compare(arguments) == 0
    assert "A is better" in capsys.readouterr().out


@pytest.mark.parametrize(("a", "b", "sentence"), [
    ("sdss", "trace", "no finished run in {root} has method=sdss; did you mean sds?"),
    ("steps=3", "trace", "has steps=3; it has"),
    ("sds,colour=red", "trace", "colour=red is invalid; use a method or KEY=VALUE with one of method,"),
    ("sds,init=", "trace", "init= is invalid"),
])  # fmt: skip
def test_a_mistake_is_one_sentence(root, capsys, a, b, sentence):
    assert compare([a, b, "--output-root", str(root)]) == 2
    err = capsys.readouterr().err
    assert sentence.format(root=root) in err
    assert err.count("\n") == 1


def test_a_side_with_several_settings_says_which_to_name(root, capsys):
    add(root, "sds", BASE, guidance_scale=20.0)
    assert compare(["sds", "trace", "--output-root", str(root)]) == 2
    assert (
        "sds has runs with guidance_scale 15, 20 for gaussians toy tiny: say which" in capsys.readouterr().err
    )


def test_nothing_in_common_or_no_folder_or_metric(root, tmp_path, capsys):
    add(root, "vsd", BASE, representation="nerf")
    assert compare(["sds", "vsd", "--output-root", str(root)]) == 2
    assert (
        "have nothing in common to compare: sds has gaussians toy tiny; vsd has nerf"
        in capsys.readouterr().err
    )
    assert compare(["sds", "vsd", "--output-root", str(tmp_path / "none")]) == 2
    assert "has no runs/" in capsys.readouterr().err
    assert compare(["sds", "trace", "--output-root", str(root), "--metric", "io"]) == 2
    assert "--metric io is unknown: use some of match," in capsys.readouterr().err


def test_scores_that_are_missing(tmp_path, capsys):
    write_run(tmp_path, method="sds")
    write_run(tmp_path, method="trace")
    assert compare(["sds", "trace", "--output-root", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert "sds: ground_truth: 1 of 1 run has no score; " in err
    assert "cameras.json" in err
    assert (
        f"trace: clip_score: 1 of 1 run has no score; not scored yet: `{SCORE} output_root={tmp_path}`" in err
    )


def test_prompts_needed(root, capsys):
    assert prompts_needed(["soft_iou=0.001", "--output-root", str(root)]) == 0
    out = capsys.readouterr().out
    std = np.std(0.001 * np.arange(8), ddof=1)
    assert f"std {std:.3g}" in out
    assert "1 pairs" in out


@pytest.mark.parametrize(("arguments", "sentence"), [
    (["io=1"], "there is no number 'io'; use some of match,"),
    (["soft_iou=zero"], "soft_iou=zero: write a positive difference"),
    (["soft_iou=-1"], "soft_iou=-1: write a positive difference"),
    (["soft_iou=1", "--comparisons", "0"], "--comparisons must be 1 or more"),
    (["janus=1"], "no two methods have it"),
])  # fmt: skip
def test_prompts_needed_says_what_is_wrong(root, capsys, arguments, sentence):
    assert prompts_needed([*arguments, "--output-root", str(root)]) == 2
    err = capsys.readouterr().err
    assert sentence in err
    assert err.count("\n") == 1
