"""Tables, figures and comparisons say why a score is missing, and what they advise works."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from run_folders import draw, write_run, write_score

from evaluation.compare import main as compare
from evaluation.metrics.base import score_path
from evaluation.metrics.clip_score import ClipScore
from evaluation.metrics.failures import failure_path, read_failure
from evaluation.metrics.ground_truth import GroundTruth
from evaluation.metrics.score import score_all
from evaluation.prompts_needed import main as prompts_needed
from evaluation.results.collect import collect
from evaluation.results.missing import notes_on_scores, why_no_score
from evaluation.statistics.multiple import can_decide, prompts_to_decide_any

TRUTH = GroundTruth(views=4)


def state(root, *metrics):
    metrics = {metric.name: metric for metric in (metrics or (TRUTH,))}
    results = collect(root, metrics)
    return results, metrics


def why(root, metric=TRUTH) -> str:
    """The reason of the only run."""
    results, _ = state(root, metric)
    (run,) = results.runs.values()
    return why_no_score(metric, run, results)


def score(root, metric=TRUTH):
    results, metrics = state(root, metric)
    return score_all(list(results.runs.values()), metrics)


def test_a_run_that_was_not_scored_yet(tmp_path):
    draw(write_run(tmp_path), "a red cube", views=4)
    command = f"`python -m evaluation.score metric=[ground_truth] output_root={tmp_path}`"
    assert why(tmp_path) == f"not scored yet: {command} does it"
    assert score(tmp_path).computed["ground_truth"] == 1
    results, metrics = state(tmp_path)
    assert notes_on_scores(results.frame, metrics, results, "tiny") == []


def test_a_damaged_render_is_named_until_it_is_mended(tmp_path):
    folder = write_run(tmp_path)
    draw(folder, "a red cube", views=4)
    picture = folder / "renders" / "rgb_1.png"
    whole = picture.read_bytes()
    picture.write_bytes(b"not a picture")
    score(tmp_path)
    assert why(tmp_path).startswith(f"scoring failed: {picture} is not a readable picture")
    assert "repeat the run with force=true" in why(tmp_path)
    picture.write_bytes(whole)
    score(tmp_path)
    results, metrics = state(tmp_path)
    assert notes_on_scores(results.frame, metrics, results, "tiny") == []
    assert not list(folder.glob("scores/*.error"))


def test_missing_weights_and_how_to_get_them(tmp_path):
    draw(write_run(tmp_path), "a red cube", views=4)
    clip = ClipScore({"own": {"model": f"local-dir:{tmp_path / 'nowhere'}"}}, {"tiny": "own"})
    score(tmp_path, clip)
    assert why(tmp_path, clip).startswith("scoring failed: The CLIP model 'own' has no")
    assert "metrics.clip_score.models.own.model=local-dir:FOLDER" in why(tmp_path, clip)


def test_a_prompt_without_truth_and_a_metric_that_skips_the_prior(tmp_path):
    draw(write_run(tmp_path, prompt="a zombie joker"), "a red cube", views=4)
    assert why(tmp_path) == "none is possible: only toy prompts with several views have a known truth"
    clip = ClipScore({"own": {"model": "local-dir:x"}}, {"sd21": "own"})
    assert why(tmp_path, clip).startswith("none is possible: metrics.clip_score.by_prior has no model")


def test_a_metric_that_crashes(tmp_path, monkeypatch):
    draw(write_run(tmp_path), "a red cube", views=4)
    monkeypatch.setattr(GroundTruth, "score", lambda self, run: 1 / 0)
    score(tmp_path)
    assert "ground_truth failed (ZeroDivisionError: division by zero)" in why(tmp_path)


def test_a_failure_of_another_state_of_the_run_does_not_count(tmp_path):
    folder = write_run(tmp_path)
    draw(folder, "a red cube", views=4)
    (folder / "scores").mkdir()
    (run,) = state(tmp_path)[0].runs.values()
    for text in ("", "{", "[1]", '{"run": {"fingerprint": "0"}, "reason": "x"}'):
        failure_path(run, "ground_truth").write_text(text)
        assert read_failure(run, "ground_truth") is None
        assert why(tmp_path).startswith("not scored yet")


def test_numbers_that_are_undefined_are_counted(tmp_path):
    for method, chamfer in (("sds", 0.1), ("vsd", None)):
        folder = write_run(tmp_path, method=method)
        write_score(folder, TRUTH, match=0.5, chamfer=chamfer)
    results, metrics = state(tmp_path)
    (note,) = [n for n in notes_on_scores(results.frame, metrics, results) if "Chamfer" in n]
    assert note.startswith("Chamfer: undefined for 1 of 2 scored runs")


def test_many_reasons_are_counted(tmp_path):
    for i in range(5):
        folder = write_run(tmp_path, prompt_id=str(i))
        draw(folder, "a red cube", views=4)
        (folder / "renders" / "rgb_1.png").write_bytes(b"")
    score(tmp_path)
    results, metrics = state(tmp_path)
    notes = notes_on_scores(results.frame, metrics, results)
    assert len(notes) == 4
    assert notes[-1].startswith("ground_truth: 2 more have no score")


def test_scores_of_two_judges_that_cannot_be_made_again_say_why(tmp_path):
    write_score(write_run(tmp_path), TRUTH, match=0.5)
    folder = write_run(tmp_path, method="vsd")
    draw(folder, "a red cube", views=4)
    write_score(folder, GroundTruth(views=3), match=0.5)
    (folder / "renders" / "rgb_1.png").write_bytes(b"")
    score(tmp_path)
    results, metrics = state(tmp_path)
    notes = notes_on_scores(results.frame, metrics, results)
    assert any("could not be scored again: " in note and "rgb_1.png" in note for note in notes)


@pytest.mark.slow
def test_what_the_tables_advise_works(tmp_path, command):
    """From runs to tables by following each command that is printed."""
    root = tmp_path / "outputs"
    for method in ("sds", "vsd"):
        draw(write_run(root, method=method), "a red cube", views=4)
    out = command("tables", "metric=[ground_truth]")[1]
    (advice,) = set(re.findall(r"`python -m (evaluation.score [^`]*)`", out))
    words = advice.split()
    assert command("score", *words[1:])[0] == 0
    out = command("tables", "metric=[ground_truth]")[1]
    assert "have no score" not in out
    assert "| SDS " in out


def test_auto_names_the_tables_that_it_does_not_print(tmp_path, command):
    root = tmp_path / "outputs"
    write_score(write_run(root), GroundTruth(), soft_iou=0.5, match=0.5)
    out = command("tables", "metric=[ground_truth]")[1]
    assert "have a result of ours: pairs-toy-tiny. `table=all` prints them" in out
    assert not (root / "tables" / "pairs-toy-tiny.md").exists()
    assert "Not printed" not in command("tables", "metric=[ground_truth]", "table=all")[1]
    assert (root / "tables" / "pairs-toy-tiny.md").exists()


def test_auto_leaves_out_papers_tables_without_our_numbers(tmp_path, command):
    from judgement_files import elo_file

    root = tmp_path / "outputs"
    methods = ("sds", "vsd", "trace")
    for method in methods:
        write_score(write_run(root, method=method), GroundTruth(), soft_iou=0.5, match=0.5)
    elo_file(root, [(method, "text_asset_alignment", 1000, 5) for method in methods], kind="clip")
    out = command("tables", "metric=[ground_truth]")[1]
    assert re.findall(r"^Table (\d)\.", out, re.MULTILINE) == ["4"]
    assert "ours: table1, table2, table3, table5, table6, table7, table8. `table=all`" in out


def test_compare_says_why_there_is_nothing_to_compare(tmp_path, capsys):
    for i, method in enumerate(("sds", "vsd")):
        write_run(tmp_path, method=method, prompt_id=str(i))
    assert compare(["sds", "vsd", "--output-root", str(tmp_path)]) == 2
    assert "the two sides have no prompt in common" in capsys.readouterr().err


def test_prompts_needed_says_why_and_its_examples_are_numbers_there_are(tmp_path, capsys):
    for method in ("sds", "vsd"):
        for i in range(3):
            draw(write_run(tmp_path, method=method, prompt_id=str(i)), "a red cube", views=4)
    assert prompts_needed(["match=0.01", "--output-root", str(tmp_path)]) == 2
    assert "ground_truth: 6 of 6 runs have no score; not scored yet" in capsys.readouterr().err
    rng = np.random.default_rng(0)
    for run in state(tmp_path)[0].runs.values():
        write_score(run.folder, GroundTruth(), match=rng.random(), colour_error=10 * rng.random())
    from evaluation import prompts_needed as module

    for line in (module.__doc__ or "").splitlines():
        if line.strip().startswith("python -m evaluation.prompts_needed"):
            assert prompts_needed([*line.split()[3:], "--output-root", str(tmp_path)]) == 0


def test_prompts_needed_mixes_no_judges(tmp_path, capsys):
    for method in ("sds", "vsd"):
        for i in range(8):
            metric = GroundTruth(resolution=32) if method == "vsd" and i < 4 else GroundTruth()
            folder = write_run(tmp_path, method=method, prompt_id=str(i), prompt=f"prompt {i}")
            write_score(folder, metric, match=0.5 + 0.3 * (metric.resolution == 32))
    assert prompts_needed(["match=0.01", "--output-root", str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert "ground_truth: these runs were scored by different models or settings" in said.out


@pytest.mark.parametrize("pairs", [1, 3, 45, 1000])
def test_so_many_prompts_as_advised_can_decide(pairs):
    assert can_decide(prompts_to_decide_any(pairs), pairs)
    assert not can_decide(prompts_to_decide_any(pairs) - 1, pairs)


def test_a_score_file_stays_apart_from_the_failure(tmp_path):
    folder = write_run(tmp_path)
    draw(folder, "a red cube", views=4)
    score(tmp_path)
    (run,) = state(tmp_path)[0].runs.values()
    before = json.loads(score_path(run, "ground_truth").read_text())
    (folder / "renders" / "rgb_1.png").write_bytes(b"")
    score(tmp_path)
    assert json.loads(score_path(run, "ground_truth").read_text()) == before
    assert read_failure(run, "ground_truth") is not None
