"""judge=truth: the rule of each criterion, and tournaments that it decides."""

from __future__ import annotations

import pytest
from gpteval3d_runs import PROMPTS, make_runs, result

from evaluation.gpteval3d.contestants import JudgedAsset
from evaluation.gpteval3d.criteria import CRITERIA
from evaluation.gpteval3d.truth_judge import TruthJudge
from evaluation.metrics.base import Score
from evaluation.metrics.ground_truth import GroundTruth

GOOD = {
    "match": 0.8,
    "soft_iou": 0.9,
    "high_frequency": 1.0,
    "normal_error": 9.0,
    "janus": 0.1,
    "no_front": 0,
}


def numbers(worst=0.85, **values):
    score = {"values": GOOD | values, "rows": [{"soft_iou": worst}, {"soft_iou": 0.95}]}
    return TruthJudge(GroundTruth(), 0.0).numbers(score)


def test_the_numbers_of_the_five_criteria():
    assert numbers() == pytest.approx({
        "text_asset_alignment": 0.8,
        "plausibility": 0.85 * 0.9,
        "text_geometry_alignment": 0.8 / 0.9,
        "texture_details": 0.8 / 0.9,
        "geometry_details": 0.9,
    })  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "criterion"),
    [
        ({"match": 0.7}, "text_asset_alignment"),
        ({"worst": 0.5}, "plausibility"),
        ({"janus": 0.9}, "plausibility"),
        ({"janus": None, "no_front": 1}, "plausibility"),
        ({"match": 0.7}, "text_geometry_alignment"),
        ({"high_frequency": 3.0}, "texture_details"),
        ({"high_frequency": 0.3}, "texture_details"),
        ({"normal_error": 30.0}, "geometry_details"),
        ({"normal_error": None}, "geometry_details"),
    ],
)
def test_what_is_worse_has_a_smaller_number(changed, criterion):
    assert numbers(**changed)[criterion] < numbers()[criterion]


def test_an_object_without_a_front_has_no_janus_number_and_is_not_punished():
    assert numbers(janus=None, no_front=None)["plausibility"] == pytest.approx(0.85)


def test_an_empty_asset_has_zero_everywhere():
    nothing = dict.fromkeys(GOOD) | {"match": 0.0, "soft_iou": 0.0, "high_frequency": 0.0}
    assert set(numbers(worst=0.0, **nothing).values()) == {0.0}


@pytest.fixture
def truth(monkeypatch):
    """Fake scores: `truth[(method, prompt)] = {"match": ...}`."""
    table: dict[tuple[str, str], dict[str, float]] = {}
    monkeypatch.setattr(GroundTruth, "files", lambda self, run: [run.rgb(0)])
    monkeypatch.setattr(GroundTruth, "applies", lambda self, run: True)

    def score(self, run):
        values = GOOD | table.get((run.identity.method, run.prompt), {})
        return Score(values, rows=[{"view": 0, "soft_iou": values["soft_iou"]}])

    monkeypatch.setattr(GroundTruth, "score", score)
    return table


def test_a_tournament_has_all_six_criteria_and_overall_is_the_majority(tmp_path, command, truth):
    outputs = make_runs(tmp_path / "outputs", methods=("sds", "vsd"))
    for (
        prompt
    ) in PROMPTS:  # vsd wins alignment, geometry alignment and details of the texture; sds the normals
        truth |= {("vsd", prompt): {"match": 0.88, "normal_error": 20.0}}
    code, out, err = command("gpteval3d.__main__", "judge=truth")
    assert code == 0, err
    rows = {(row["contestant"], row["criterion"]): row for row in result(outputs)["rows"]}
    assert [c for c in CRITERIA if rows["vsd", c]["wins"] == 3] == [
        "text_asset_alignment", "text_geometry_alignment", "texture_details", "overall",
    ]  # fmt: skip
    assert rows["vsd", "geometry_details"]["losses"] == 3
    assert rows["vsd", "plausibility"]["draws"] == 3
    assert "decided by the known true object" in out


def test_prompts_without_a_true_object_are_refused_in_one_sentence(tmp_path, command):
    make_runs(tmp_path / "outputs", methods=("sds", "vsd"), prompts=["a corgi"])
    code, _, err = command("gpteval3d.__main__", "judge=truth")
    assert code == 2
    assert "judge=truth knows no true object" in err


def test_the_clip_judge_refuses_criteria_that_it_cannot_judge(tmp_path, command):
    make_runs(tmp_path / "outputs", methods=("sds", "vsd"))
    ensemble = "{instruction: null, views: 1, rgb: true, normal: false, criteria: [0, 4], comparisons: all}"
    code, _, err = command("gpteval3d.__main__", "judge=clip", f"ensembles=[{ensemble}]")
    assert code == 2
    assert "judge=clip cannot judge geometry_details" in err


def test_a_margin_makes_draws():
    judge = TruthJudge(GroundTruth(), 0.05)
    left, right = JudgedAsset("left"), JudgedAsset("right")
    judge._numbers = {"left": numbers(), "right": numbers(match=0.84)}
    assert judge.compare(left, right, CRITERIA[:1]) == (0,)
    judge._numbers["right"] = numbers(match=0.86)
    assert judge.compare(left, right, CRITERIA[:1]) == (1,)
    assert judge.compare(right, left, CRITERIA[:1]) == (-1,)
