"""mode=elo: Elo from a file of comparisons; and invalid files."""

from __future__ import annotations

import json
import math

import pytest
from test_gpteval3d_elo import CASE

pytestmark = pytest.mark.slow

COMMAND = "gpteval3d.__main__"
EXPECTED = {"A": 1067.543968, "B": 914.464431, "G": 1116.608020}


def case_records(more=lambda k: {}) -> list[dict]:
    records = []
    for entry in CASE.replace("D", "dreamfusion").split("|"):
        left, right, result, times = entry.split()
        records += [{"m1": left, "m2": right, "result": int(result)}] * int(times)
    return [record | more(k) for k, record in enumerate(records)]


@pytest.fixture
def elo(command, tmp_path):
    """`elo(content, anchors)` -> (exit code, JSON on the standard output, standard error)."""

    def call(content, anchors=None, *overrides):
        files = {"comparisons": content} | ({} if anchors is None else {"anchors": anchors})
        for name, value in files.items():
            (tmp_path / f"{name}.json").write_text(value if isinstance(value, str) else json.dumps(value))
        given = [f"{name}={tmp_path / name}.json" for name in files]
        code, out, err = command(COMMAND, "mode=elo", *given, *overrides)
        return code, json.loads(out) if code == 0 else None, err

    return call


@pytest.mark.parametrize(
    "shape",
    [
        lambda records: {"0": records},
        lambda records: {"[0] Text-Asset Alignment": records},
        lambda records: [records, [], [], [], [], []],
        lambda records: records,
        lambda records: {"0": {str(i): record for i, record in enumerate(records)}},
    ],
    ids=["by-index", "by-name", "list-of-lists", "flat", "by-question"],
)
def test_the_published_shapes(elo, shape):
    code, found, _ = elo(shape(case_records()))
    assert code == 0
    table = next(iter(found["scores"].values()))
    assert table["dreamfusion"] == 1000.0
    assert {name: table[name] for name in EXPECTED} == pytest.approx(EXPECTED, abs=1e-6)
    assert found["anchor"] == {"contestant": "dreamfusion", "elo": 1000.0}
    assert {row["criterion"] for row in found["rows"] if row["comparisons"]} == {"text_asset_alignment"}


def test_the_json_is_also_in_a_file(elo, tmp_path):
    _, found, err = elo({"0": case_records()})
    path = tmp_path / "outputs" / "gpteval3d" / "comparisons.elo.json"
    assert json.loads(path.read_text()) == found
    assert f"Written: {path}" in err
    elo({"0": case_records()}, None, f"output={tmp_path / 'deep' / 'own.json'}")
    assert (tmp_path / "deep" / "own.json").exists()


@pytest.mark.parametrize("shape", ["config", "list", "dict", "plain"])
def test_anchors_stay_as_they_are(elo, shape):
    anchors = {"dreamfusion": 1000.0, "A": 1067.5, "G": 1116.123456789012, "idle": 777.7}
    table = {"config": {"scores": [anchors]}, "list": [anchors], "dict": {"0": anchors}, "plain": anchors}[
        shape
    ]
    code, found, _ = elo({"0": case_records()}, table)
    assert code == 0
    scores = found["scores"]["0"]
    assert {name: scores[name] for name in anchors} == anchors
    records = [r for r in case_records() if "B" in (r["m1"], r["m2"])]
    wins = sum(1.0 for r in records if r["result"] == (-1 if r["m1"] == "B" else 1))
    draws = sum(r["result"] == 0 for r in records)
    expected = 0.0
    for r in records:
        other = r["m2"] if r["m1"] == "B" else r["m1"]
        met = 2.0 if r["result"] == 0 else 1.0
        expected += met / (1 + 10 ** ((anchors[other] - scores["B"]) / 400))
    assert expected == pytest.approx(wins + draws, abs=1e-8)


def test_a_result_can_be_the_anchor_of_the_next(elo):
    _, first, _ = elo({"0": case_records()})
    more = [{"m1": "new", "m2": "A", "result": r} for r in (-1, -1, 1)]
    code, second, _ = elo({"0": more}, first)
    assert code == 0
    assert second["scores"]["0"]["new"] == pytest.approx(
        first["scores"]["0"]["A"] + 400 * math.log10(2), abs=1e-6
    )
    assert second["scores"]["0"]["G"] == first["scores"]["0"]["G"]


def test_settings_of_the_draw_and_the_anchor(elo):
    _, found, _ = elo({"0": case_records()}, None, "draw=0.5", "anchor=A", "anchor_elo=0")
    table = found["scores"]["0"]
    assert table["A"] == 0.0
    assert table["B"] - table["dreamfusion"] == pytest.approx(896.830658 - 1000, abs=1e-6)


def test_intervals_are_over_prompts_where_the_file_names_them(elo):
    def width(more):
        _, found, _ = elo({"0": case_records(more)})
        row = next(row for row in found["rows"] if row["contestant"] == "A")
        return row["ci_high"] - row["ci_low"]

    every, by_prompt = width(lambda k: {}), width(lambda k: {"prompt": str(k // 10)})
    assert by_prompt != pytest.approx(every, rel=1e-3)


def test_criteria_that_were_not_judged_have_no_scores_but_frozen_ones(elo):
    _, found, _ = elo([case_records(), []])
    assert list(found["scores"]) == ["0"]
    _, found, _ = elo([case_records(), [], []], [{"dreamfusion": 1000.0}, {"dreamfusion": 900.0}])
    assert found["scores"]["1"] == {"dreamfusion": 900.0}
    assert "2" not in found["scores"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{not json", "cannot be read as JSON"),
        ({}, "holds no comparisons"),
        ({"0": 3}, "is not a list of comparisons"),
        ({"0": [{"m1": "a", "result": 1}]}, "entry 0 is not a comparison"),
        ({"0": [{"m1": "a", "m2": "sds", "result": 2}]}, "has result 2"),
        ({"0": [{"m1": "a", "m2": "sds", "result": True}]}, "has result True"),
        ({"0": [{"m1": "a", "m2": "a", "result": 1}]}, "compares 'a' with itself"),
        ({"0": [{"m1": "a", "m2": "sds", "result": 1, "weight": -1}]}, "has weight -1"),
        ({"0": [{"m1": "a", "m2": "b", "result": 1}]}, "set anchor=... to one of a, b"),
        (
            {"0": [{"m1": "a", "m2": "sds", "result": 1, "judge": j} for j in "xy"]},
            "mixes the answers of 2 judges",
        ),
    ],
)
def test_comparisons_that_are_none(elo, content, says):
    code, _, err = elo(content)
    assert code == 2
    assert says in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("anchors", "says"),
    [
        ({"0": {"dreamfusion": "much"}}, "is 'much', not a number"),
        ([3], "is not a table"),
        ({}, "holds no scores"),
        ({"1": {"dreamfusion": 1000.0}}, "has no scores for the criterion 0"),
        (
            {"0": dict.fromkeys(["dreamfusion", "A", "B", "G"], 1.0)},
            "already has a score for every compared method",
        ),
    ],
)
def test_anchors_that_are_none(elo, anchors, says):
    code, _, err = elo({"0": case_records()}, anchors)
    assert code == 2
    assert says in err


def test_a_missing_file_and_a_missing_argument(command, tmp_path):
    assert "There is no file" in command(COMMAND, "mode=elo", f"comparisons={tmp_path / 'no.json'}")[2]
    assert "add comparisons=FILE" in command(COMMAND, "mode=elo")[2]
    assert "mode=else is unknown" in command(COMMAND, "mode=else")[2]


# --- names that are not what they seem -------------------------------------------------------------------

FROZEN = {"dreamfusion": 1000.0, "magic3d": 1100.0, "prolific_dreamer": 1200.0}


def against(*opponents, name="mine"):
    return [
        {"m1": name, "m2": opponent, "result": (-1, 1)[i % 2]} for opponent in opponents for i in range(4)
    ]


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("dreamfusoin", "dreamfusion"), ("dreamfusio", "dreamfusion"), ("DreamFusion", "dreamfusion"),
        ("magic-3d", "magic3d"), ("prolificdreamer", "prolific_dreamer"),
    ],
)  # fmt: skip
def test_a_misspelt_opponent_is_refused_with_the_nearest_name(elo, wrong, meant):
    for opponents in ([wrong, *FROZEN], [wrong, "magic3d"]):
        code, _, err = elo({"0": against(*opponents)}, {"0": FROZEN})
        assert code == 2
        assert f"no score of {wrong!r}; did you mean {meant!r}" in err
        assert err.count("\n") == 1


def test_a_misspelt_opponent_among_games_of_the_others_is_refused(elo):
    records = against("magic3d") + against("dreamfusoin", name="magic3d")
    assert "did you mean 'dreamfusion'" in elo({"0": records}, {"0": FROZEN})[2]


@pytest.mark.parametrize("name", ["mine", "magic3d_v2", "dreamfusion2", "trace"])
def test_a_new_contestant_may_be_called_like_an_old_one(elo, name):
    code, found, err = elo({"0": against("magic3d", "dreamfusion", name=name)}, {"0": FROZEN})
    assert code == 0, err
    assert found["scores"]["0"][name] is not None


@pytest.mark.parametrize(
    ("games", "scores"),
    [
        (["0", "[0] Text-Asset Alignment"], ["0"]),
        (["text_asset_alignment", "0"], ["0"]),
        (["0"], ["0", "[0] Text-Asset Alignment"]),
    ],
)
def test_a_criterion_under_two_keys_is_refused(elo, games, scores):
    files = dict.fromkeys(games, against("magic3d")), dict.fromkeys(scores, FROZEN)
    code, _, err = elo(*files)
    assert code == 2
    assert "has the criterion text_asset_alignment twice, as " in err


def test_a_key_that_is_there_twice_is_refused(elo):
    records = json.dumps(against("magic3d"))
    assert "the key '0' is there twice" in elo(f'{{"0": {records}, "0": {records}}}', {"0": FROZEN})[2]


@pytest.mark.parametrize(
    "text", ["[" * 20000, '{"0": ' * 20000, "1" * 5000, '{"0": [{"m1": "a", "m2": "b", "result": 1e999}]}']
)
def test_hostile_files_are_refused_in_one_sentence(elo, text):
    for files in ((text, None), ({"0": against("magic3d")}, text)):
        code, _, err = elo(*files)
        assert code == 2
        assert err.count("\n") == 1
        assert ".json" in err
