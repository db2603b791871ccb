"""`python -m evaluation.score` over good, broken and unfinished run folders."""

from __future__ import annotations

import itertools
import json

import pytest
from run_folders import draw, write_run

from evaluation.metrics import truth


@pytest.fixture
def outputs(tmp_path, clip_folder):
    """Three good runs; returns (root, overrides that name the test's CLIP)."""
    root = tmp_path / "outputs"
    for method in ("sds", "vsd", "trace"):
        draw(write_run(root, method=method), "a red cube", views=4)
    return root, f"metrics.clip_score.models.tiny.model=local-dir:{clip_folder}"


def scores(root, name="*"):
    return sorted(root.glob(f"runs/*/*/*/*/*/scores/{name}.json"))


def test_scores_once_and_only_once(outputs, command):
    root, clip = outputs
    code, out, _ = command("score", clip)
    assert code == 0
    assert "ground_truth: 3 scored, 0 up to date, of 3 finished runs" in out
    assert "clip_score: 3 scored, 0 up to date" in out
    before = {path: path.stat().st_mtime_ns for path in scores(root)}
    assert len(before) == 6
    code, out, _ = command("score", clip)
    assert "ground_truth: 0 scored, 3 up to date" in out
    assert {path: path.stat().st_mtime_ns for path in scores(root)} == before
    assert "clip_score: 3 scored" in command("score", clip, "force=true", "metric=[clip_score]")[1]


def test_broken_folders_are_named_and_the_others_scored(outputs, command):
    root, clip = outputs
    bad = [write_run(root, prompt_id=str(i), prompt="a duck") for i in range(1, 6)]
    for folder in bad[1:]:
        draw(folder, "a duck", views=4)
    (bad[0] / "manifest.json").write_text('{"schema_version": 1, "run": ')
    (bad[1] / "renders" / "rgb_2.png").unlink()
    (bad[2] / "renders" / "rgb_1.png").write_bytes(b"not a picture")
    (bad[3] / "renders" / "geometry.npz").write_bytes(b"not an archive")
    (bad[4] / "renders" / "cameras.json").write_text("[]")
    code, out, err = command("score", clip)
    assert code == 1
    assert "ground_truth: 3 scored" in out
    for folder, name in zip(
        bad, ["manifest.json", "rgb_2.png", "rgb_1.png", "geometry.npz", "cameras.json"], strict=True
    ):
        lines = [line for line in err.splitlines() if str(folder) in line]
        assert len({line for line in lines if name in line}) >= 1
        assert all("repeat the run" in line for line in lines)
    assert "Traceback" not in err


@pytest.mark.slow
def test_the_true_object_of_a_prompt_is_made_once(tmp_path, command, monkeypatch):
    """Also for more prompts than are kept: the runs of a prompt are scored together."""
    prompts = [
        f"a {colour} cube" for colour in ("red", "blue", "green", "yellow", "orange", "purple", "white")
    ]
    assert len(prompts) > truth._KEPT
    for method in ("sds", "vsd"):
        for i, prompt in enumerate(prompts):
            draw(
                write_run(tmp_path / "outputs", method=method, prompt_id=str(i), prompt=prompt),
                prompt,
                views=2,
            )
    made = []

    class Counted(truth.Truth):
        def __init__(self, prompt, resolution):
            made.append((prompt, resolution))
            super().__init__(prompt, resolution)

    monkeypatch.setattr(truth, "Truth", Counted)
    truth._RECENT.clear()
    assert command("score", "metric=[ground_truth]")[0] == 0
    assert len(made) == len(set(made))
    assert {prompt for prompt, _ in made} == set(prompts)


def test_unfinished_runs_are_left_out(outputs, command):
    root, clip = outputs
    draw(write_run(root, status="failed", seed=1), "a red cube", views=4)
    code, out, _ = command("score", clip)
    assert code == 0
    assert "1 unfinished runs were skipped; `python -m trace_bench.status` says why." in out
    assert len(scores(root)) == 6


def test_weights_that_are_not_at_hand_are_no_failure(outputs, command, tmp_path):
    root, _ = outputs
    code, out, _ = command("score", f"metrics.clip_score.models.tiny.model=local-dir:{tmp_path / 'nowhere'}")
    assert code == 0
    assert "3 runs without a score: The CLIP model 'tiny' has no" in out
    assert len(scores(root, "ground_truth")) == 3
    assert scores(root, "clip_score") == []


def test_a_metric_that_crashes_is_reported_with_its_run(outputs, command, monkeypatch):
    from evaluation.metrics.ground_truth import GroundTruth

    _, clip = outputs
    real = GroundTruth.score
    monkeypatch.setattr(
        GroundTruth, "score", lambda self, run: 1 / 0 if run.identity.method == "vsd" else real(self, run)
    )
    code, out, err = command("score", clip)
    assert code == 1
    assert "ground_truth: 2 scored" in out
    assert "clip_score: 3 scored" in out
    assert "runs/vsd" in err
    assert "ground_truth failed (ZeroDivisionError" in err


def test_no_outputs_is_said_in_one_sentence(command):
    code, _, err = command("score")
    assert code == 2
    assert err.startswith("The folder ")
    assert err.count("\n") == 1


def test_a_setting_out_of_range_is_said_in_one_sentence(outputs, command):
    code, _, err = command("score", "metrics.ground_truth.azimuth_step_deg=7")
    assert code == 2
    assert err == "metrics.ground_truth.azimuth_step_deg=7 must divide 360.\n"


def test_the_wrong_key_for_a_choice_of_metrics_is_mended_in_one_sentence(outputs, command):
    code, _, err = command("score", "metrics=ground_truth")
    assert code == 2
    assert err == "metrics=ground_truth does not select metrics; use metric=[ground_truth].\n"


def test_a_score_file_has_rows_and_details(outputs, command):
    root, clip = outputs
    command("score", clip)
    content = json.loads(scores(root, "clip_score")[0].read_text())
    assert [row["view"] for row in content["rows"]] == [0, 1, 2, 3]
    assert content["details"]["captions"] == 32
    assert content["inputs"]["settings"]["model"].startswith("local-dir:")
    assert len(content["inputs"]["weights"]) == 64


@pytest.mark.slow
def test_shards_leave_what_one_process_would_have(outputs, command):
    root, clip = outputs
    for i in range(4):
        draw(write_run(root, prompt_id=str(i + 1), prompt="a duck"), "a duck", views=4)
    counts = []
    for part in (1, 2, 3):
        out = command("score", clip, f"shard={part}/3", "metric=[clip_score]")[1]
        counts += [int(out.partition("clip_score: ")[2].split()[0])] if "clip_score: " in out else []
    assert sum(counts) == 7
    assert len(counts) > 1
    by_shards = {path: path.read_bytes() for path in scores(root)}
    assert "clip_score: 0 scored, 7 up to date" in command("score", clip, "metric=[clip_score]")[1]
    command("score", clip, "metric=[clip_score]", "force=true")
    assert {path: path.read_bytes() for path in scores(root)} == by_shards


def test_a_run_is_in_one_shard_whatever_else_there_is():
    from evaluation.metrics.score import in_shard

    folders = [f"runs/sds/gaussians/toy/{i}" for i in range(200)]
    parts = [[folder for folder in folders if in_shard(folder, part, 4)] for part in (1, 2, 3, 4)]
    assert sorted(itertools.chain(*parts)) == sorted(folders)
    assert min(map(len, parts)) > 30


@pytest.mark.parametrize("shard", ["0/4", "5/4", "2", "a/b", "1/0"])
def test_a_shard_that_is_none_is_refused(outputs, command, shard):
    code, _, err = command("score", f"shard={shard}")
    assert code == 2
    assert err == f"shard={shard} is invalid: use i/n with 1 <= i <= n, such as shard=2/4.\n"


def test_why_a_metric_left_runs_out_is_told(outputs, command):
    draw(write_run(outputs[0], prompt="a corgi", prior="sd21"), "a red cube", views=4)
    _, out, _ = command("score", "metric=[ground_truth,image_reward]")
    assert (
        "image_reward: 0 scored, 0 up to date, of 4 finished runs; 3 left out, because "
        "metrics.image_reward.skip_priors has their prior (tiny, tiny_flow)" in out
    )
    assert "1 left out, because only toy prompts with several views have a known truth" in out
