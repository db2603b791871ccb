"""From answer files to preferences.json: accepted and rejected files, and correct numbers."""

from __future__ import annotations

import hashlib
import json
import re

import pandas as pd
import pytest
from study_folders import answer_file, attentive

from evaluation.user_study.aspects import ASPECT_IDS
from evaluation.user_study.study import COMPARISON, INSTRUCTED, SCRAMBLED
from evaluation.user_study.tokens import new_token
from evaluation.user_study.votes import COLUMNS
from trace_bench import __version__

pytestmark = pytest.mark.slow


@pytest.fixture
def sent(tmp_path):
    """Where raters' files arrive."""
    return tmp_path / "sent"


@pytest.fixture
def take(call, sent):
    return lambda *overrides: call("mode=import", f"answers={sent}", *overrides)


def preferences(folder):
    return json.loads((folder / "preferences.json").read_text())


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


# --- what counts -----------------------------------------------------------------------------------------


def test_raters_who_always_prefer_ours(made, sent, take):
    folder, study = made
    for rater in study.raters:
        answer_file(sent / f"{rater}.json", study, rater, attentive())
    code, out, err = take()
    assert (code, err) == (0, "")
    assert "6 raters added, 0 updated, 0 unchanged." in out
    assert "Table 1. User study: 3D Consistency" in out
    result = preferences(folder)
    assert [(row["aspect"], row["baseline"]) for row in result["rows"]] == [
        (aspect, baseline) for aspect in ASPECT_IDS for baseline in ("sds", "vsd")
    ]
    for row in result["rows"]:
        assert row["counts"] == {"ours": 12, "tie": 0, "unknown": 0, "baseline": 0}
        assert row["percent"]["ours"] == {"value": 100.0, "low": None, "high": None}
    assert result["raters"] == {"assigned": 6, "answered": 6, "used": 6, "dropped": []}
    assert result["prompts"] == {"planned": 4, "used": 4}
    assert 0 < result["left"]["percent"]["value"] < 100  # sides were counterbalanced


def test_choices_are_read_by_side(made, sent, take):
    """One rater clicks left on everything except checks: half of the votes are ours."""
    folder, study = made

    def left(trial, aspect):
        return "left" if trial.kind == COMPARISON else trial.expected

    for rater in study.raters[:4]:
        answer_file(sent / f"{rater}.json", study, rater, left)
    assert take()[0] == 0
    votes = pd.read_csv(folder / "user_study.csv", dtype=str)
    assert set(votes["choice"]) == {"left"}
    for row in preferences(folder)["rows"]:
        mine = votes[(votes["aspect"] == row["aspect"]) & (votes["baseline"] == row["baseline"])]
        ours = int((mine["left_method"] == "trace").sum())
        assert row["counts"] == {"ours": ours, "tie": 0, "unknown": 0, "baseline": len(mine) - ours}
        assert row["votes"] == len(mine) == 8
    assert preferences(folder)["left"]["percent"]["value"] == 100.0


def test_ties_and_unknowns_are_one_column_and_two_counts(made, sent, take):
    folder, study = made
    answer = {"consistency": "tie", "fidelity": "unknown"}

    def choose(trial, aspect):
        return attentive()(trial, aspect) if trial.kind != COMPARISON else answer.get(aspect, "left")

    for rater in study.raters[:2]:
        answer_file(sent / f"{rater}.json", study, rater, choose)
    assert take()[0] == 0
    rows = {(row["aspect"], row["baseline"]): row for row in preferences(folder)["rows"]}
    assert rows["consistency", "sds"]["counts"]["tie"] == rows["fidelity", "sds"]["counts"]["unknown"] == 4
    for aspect in ("consistency", "fidelity"):
        assert rows[aspect, "sds"]["percent"]["tie"]["value"] == 100.0
        assert rows[aspect, "sds"]["decided"]["votes"] == 0
        assert rows[aspect, "sds"]["ties_as_half"]["value"] == 50.0


def test_the_csv_has_a_row_for_each_judgement_and_none_for_checks(made, sent, take):
    folder, study = made
    rater = study.raters[2]
    answer_file(sent / "a.json", study, rater, attentive())
    assert take()[0] == 0
    votes = pd.read_csv(folder / "user_study.csv", dtype=str)
    assert list(votes.columns) == COLUMNS
    assert len(votes) == 4 * 3
    trials = study.trials[rater]
    for row in votes.itertuples():
        trial = trials[int(row.presented_index)]
        assert trial.kind == COMPARISON
        assert row.left_method == trial.left
        assert {row.ours, row.baseline} == {trial.left, trial.right}
        assert row.prompt == study.prompts[trial.prompt]["text"]
    assert set(votes["attention"]) == {"passed"}


def test_numbers_can_be_traced(made, sent, take):
    folder, study = made
    rater = study.raters[0]
    sent_text = answer_file(sent / "a.json", study, rater, attentive()).read_bytes()
    assert take()[0] == 0
    source = preferences(folder)["made_from"]
    assert source["study_sha256"] == hashlib.sha256((folder / "study.json").read_bytes()).hexdigest()
    assert source["votes_sha256"] == hashlib.sha256((folder / "user_study.csv").read_bytes()).hexdigest()
    assert source["answers"] == [
        {"file": f"answers/{rater}.json", "sha256": hashlib.sha256(sent_text).hexdigest()}
    ]
    assert source["trace_bench"] == __version__


# --- attention -------------------------------------------------------------------------------------------


def inattentive(kinds, how):
    def choose(trial, aspect):
        return how(trial) if trial.kind in kinds else attentive()(trial, aspect)

    return choose


def opposite(trial):
    return "right" if trial.expected == "left" else "left"


@pytest.mark.parametrize(
    ("kinds", "how", "failed"),
    [
        ({INSTRUCTED}, opposite, 2),
        ({INSTRUCTED}, lambda trial: "tie", 2),  # an instruction must be followed exactly
        ({SCRAMBLED}, opposite, 2),
        ({SCRAMBLED}, lambda trial: "tie", 0),  # a tie is allowed: both may look bad
        (
            {INSTRUCTED, SCRAMBLED},
            lambda trial: "left",
            2,
        ),  # one of two expects left: within the rule of each kind
        ({INSTRUCTED, SCRAMBLED}, opposite, 4),
    ],
)
def test_who_fails_checks_is_dropped_and_named(made, sent, take, kinds, how, failed):
    folder, study = made
    good, bad = study.raters[:2]
    answer_file(sent / "good.json", study, good, attentive())
    answer_file(sent / "bad.json", study, bad, inattentive(kinds, how))
    code, out, _ = take()
    assert code == 0
    raters = preferences(folder)["raters"]
    if failed:
        assert raters["dropped"] == [{"rater": bad, "reason": f"failed {failed} of 4 attention checks"}]
        assert f"Dropped: {bad}, failed {failed} of 4 attention checks." in out
        assert "failed more than 1 attention checks" in out
    assert raters["used"] == (1 if failed else 2)
    votes = pd.read_csv(folder / "user_study.csv", dtype=str)
    assert set(votes["rater_id"]) == {good, bad}  # the CSV keeps them, marked
    assert set(votes.loc[votes["rater_id"] == bad, "attention"]) == {"failed" if failed else "passed"}
    assert sum(row["votes"] for row in preferences(folder)["rows"]) == 12 * raters["used"]


def test_one_slip_is_forgiven(made, sent, take):
    folder, study = made
    rater = study.raters[0]
    first = next(i for i, trial in enumerate(study.trials[rater]) if trial.kind == INSTRUCTED)

    def choose(trial, aspect):
        slip = trial is study.trials[rater][first] and aspect == "fidelity"
        return "unknown" if slip else attentive()(trial, aspect)

    answer_file(sent / "a.json", study, rater, choose)
    assert take()[0] == 0
    assert preferences(folder)["raters"]["used"] == 1


def test_who_stops_before_any_check_does_not_count(made, sent, take):
    folder, study = made
    rater = study.raters[0]
    first = next(i for i, trial in enumerate(study.trials[rater]) if trial.kind != COMPARISON)
    answer_file(sent / "a.json", study, rater, attentive(), upto=first)
    assert take()[0] == 0
    assert preferences(folder)["raters"]["dropped"] == [
        {"rater": rater, "reason": "stopped before the first attention check"}
    ]
    assert preferences(folder)["rows"][0]["percent"]["ours"]["value"] is None


# --- what is refused -------------------------------------------------------------------------------------


def test_a_session_that_goes_on_replaces_its_earlier_file(made, sent, take):
    folder, study = made
    rater = study.raters[0]
    path = answer_file(sent / "part.json", study, rater, attentive(), upto=5)
    assert take()[0] == 0
    path.unlink()
    answer_file(sent / "whole.json", study, rater, attentive())
    assert "0 raters added, 1 updated, 0 unchanged" in take()[1]
    assert "0 raters added, 0 updated, 1 unchanged" in take()[1]
    answer_file(sent / "whole.json", study, rater, attentive(), upto=5)  # the old one once more
    assert "0 raters added, 0 updated, 1 unchanged" in take()[1]
    assert len(json.loads((folder / "answers" / f"{rater}.json").read_text())["answers"]) == 8


def test_a_second_session_of_a_rater_is_refused(made, sent, take):
    folder, study = made
    rater = study.raters[0]
    answer_file(sent / "1.json", study, rater, attentive())
    answer_file(sent / "2.json", study, rater, attentive("sds"), session="cd34")
    code, out, err = take()
    assert code == 1
    assert re.search(rf"Problem: .*2\.json is a second session of rater {rater}", err)
    assert err.count("\n") == 1
    assert "1 raters added" in out
    assert {row["percent"]["ours"]["value"] for row in preferences(folder)["rows"]} == {100.0}


def foreign(content):
    content["study"] = "0123456789ab"


def flip(content):
    content["answers"][0]["choices"]["fidelity"] = "tie"


def fewer(content):
    del content["answers"][3]


def other_rater(content):
    content["rater"] = "AAAAAA"


def other_choice(content):
    content["answers"][0]["choices"]["fidelity"] = "middle"


def no_answers(content):
    del content["answers"]


def negative_time(content):
    content["answers"][0]["ms"] = -5


def endless_time(content):
    content["answers"][0]["ms"] = 10**400


def no_signature(content):
    content["signature"] = None


def old_checksum(content):
    content["checksum"] = content.pop("signature")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (foreign, "belongs to study 0123456789ab, not "),
        (flip, "is not signed with the token of rater"),
        (fewer, "is not signed with the token of rater"),
        (other_rater, "is by AAAAAA, who is not a rater"),
        (no_signature, "is not a valid answer file"),
        (old_checksum, "is not a valid answer file"),
        (endless_time, "is not a valid answer file"),
        (other_choice, "is not a valid answer file"),
        (no_answers, "is not a valid answer file"),
        (negative_time, "is not a valid answer file"),
    ],
)
def test_foreign_and_tampered_files_are_refused_in_one_sentence(made, sent, take, change, message):
    folder, study = made
    answer_file(sent / "good.json", study, study.raters[0], attentive())
    edit(answer_file(sent / "wrong.json", study, study.raters[1], attentive()), change)
    code, _, err = take()
    assert code == 1
    assert err.count("\n") == 1
    assert re.search(f"Problem: .*wrong.json {message}", err)
    assert preferences(folder)["raters"]["answered"] == 1  # the good one was taken


def test_a_signature_is_not_enough(made, sent, take):
    """Screens, clips and codes are checked against the key, even with a valid signature."""
    folder, study = made
    other = study.raters[3]
    answer_file(sent / "code.json", study, study.raters[0], attentive(), head={"rater": "AAAAAA"})
    answer_file(sent / "swap.json", study, study.raters[1], attentive(), head={"rater": other})
    twice = json.loads(answer_file(sent / "twice.json", study, study.raters[2], attentive()).read_text())
    answer_file(
        sent / "twice.json",
        study,
        study.raters[2],
        attentive(),
        head={"answers": twice["answers"] + twice["answers"][:1]},
    )
    code, _, err = take()
    assert code == 1
    assert "code.json is by AAAAAA, who is not a rater of this study" in err
    assert re.search(rf"swap\.json answers a screen \d+ that rater {other} was not given", err)
    assert "twice.json answers screen 0 twice" in err
    assert not (folder / "preferences.json").exists()


def forged(path, study, rater, token, **more):
    """What somebody sends who knows the page and a rater's code, but not the token."""
    return answer_file(path, study, rater, attentive("sds"), session="evil", token=token, **more)


@pytest.mark.parametrize("order", ["before", "after", "same"])
def test_a_forged_file_is_refused_and_does_not_block_the_real_one(made, sent, take, order):
    folder, study = made
    rater, other = study.raters[:2]
    token = study.tokens[other]  # a rater who plays another one
    forged(sent / "a.json", study, rater, token)
    if order != "same":
        code, out, err = take()
        assert code == 1
        assert "0 raters added" in out
        assert f"a.json is not signed with the token of rater {rater}" in err
    if order == "after":
        (sent / "a.json").unlink()
    answer_file(sent / "b.json", study, rater, attentive())
    _, out, _ = take()
    assert "1 raters added" in out
    assert json.loads((folder / "answers" / f"{rater}.json").read_text())["session"] == "ab12"
    if order == "after":
        forged(sent / "c.json", study, rater, new_token(), head={"saved": "2099-01-01T00:00:00.000Z"})
        assert "0 raters added, 0 updated, 1 unchanged" in take()[1]
    assert {row["percent"]["ours"]["value"] for row in preferences(folder)["rows"]} == {100.0}


def test_a_forged_file_among_the_imported_ones_is_named_and_counts_for_nothing(made, sent, take, call):
    folder, study = made
    answer_file(sent / "b.json", study, study.raters[1], attentive())
    forged(folder / "answers" / f"{study.raters[0]}.json", study, study.raters[0], new_token())
    code, _, err = take()
    assert code == 1
    assert err.count(f"{study.raters[0]}.json is not signed") == 1
    assert preferences(folder)["raters"]["answered"] == 1
    answer_file(sent / "a.json", study, study.raters[0], attentive())
    assert take()[0] == 0  # the real one takes its place
    assert preferences(folder)["raters"]["answered"] == 2


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", '{"format": "other"}', "\x00\x01", '"a"', "[" * 5000])
def test_what_is_no_answer_file_at_all(made, sent, take, text):
    sent.mkdir()
    (sent / "x.json").write_text(text)
    code, _, err = take()
    assert code == 1
    assert err.count("\n") == 1
    assert "x.json is not a valid answer file" in err


def test_nothing_to_import(made, call, sent):
    assert "mode=import needs answers=" in call("mode=import")[2]
    assert "There is no file or folder" in call("mode=import", f"answers={sent}")[2]
    sent.mkdir()
    assert "has no .json files" in call("mode=import", f"answers={sent}")[2]
    assert "No answers have been imported" in call("mode=results")[2]


def test_results_again_are_the_same(made, sent, take, call):
    folder, study = made
    for rater in study.raters[:3]:
        answer_file(sent / f"{rater}.json", study, rater, attentive())
    take()
    first = preferences(folder)
    assert call("mode=results")[0] == 0
    second = preferences(folder)
    first["made_from"].pop("made"), second["made_from"].pop("made")
    assert first == second


# --- judgements of another tool --------------------------------------------------------------------------


def foreign_votes(**changes):
    row = {
        "rater_id": "r1", "prompt_id": "0", "ours": "trace", "baseline": "sds", "aspect": "fidelity",
        "left_method": "trace", "choice": "left",
    }  # fmt: skip
    return row | changes


def write_csv(path, rows):
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def test_votes_of_another_tool(outputs, call, tmp_path):
    choices = ["left", "right", "tie", "unknown"]
    rows = [foreign_votes(rater_id=f"r{i}", choice=choice) for i, choice in enumerate(choices)]
    rows += [row | {"left_method": "sds", "prompt_id": "1"} for row in rows]
    rows += [foreign_votes(rater_id="r9", attention="failed")]
    path = write_csv(tmp_path / "votes.csv", pd.DataFrame(rows).fillna({"attention": ""}))
    code, _, err = call("mode=results", f"votes={path}", "study=web")
    assert (code, err) == (0, "")
    result = preferences(outputs / "user_study" / "web")
    row = next(r for r in result["rows"] if r["aspect"] == "fidelity")
    assert row["counts"] == {"ours": 2, "tie": 2, "unknown": 2, "baseline": 2}
    assert result["study_id"] is None
    assert result["baselines"] == ["sds"]
    assert result["raters"]["dropped"] == [{"rater": "r9", "reason": "failed the attention checks"}]
    assert result["made_from"]["votes_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (foreign_votes(choice="both"), "choice must be one of left, tie, right, unknown"),
        (foreign_votes(aspect="beauty"), "aspect must be one of"),
        (foreign_votes(baseline="trace"), "ours and baseline must be different methods"),
        (foreign_votes(ours="csd", left_method="csd"), "ours must be the same in all rows"),
        (foreign_votes(left_method="vsd"), "left_method must be ours or baseline"),
        (foreign_votes(), "a rater may judge each prompt, baseline and aspect only once"),
        (foreign_votes(rater_id=""), "must not be empty"),
    ],
)
def test_rows_that_are_no_judgements(outputs, call, tmp_path, row, message):
    path = write_csv(tmp_path / "votes.csv", [foreign_votes(), row])
    code, _, err = call("mode=results", f"votes={path}", "study=web")
    assert code == 2
    assert f"{path}, row 3" in err
    assert message in err
    assert err.count("\n") == 1


def test_files_that_are_no_votes(outputs, call, tmp_path):
    assert "There is no file" in call("mode=results", f"votes={tmp_path}/none.csv")[2]
    (tmp_path / "empty.csv").write_text("")
    assert "cannot be read as CSV" in call("mode=results", f"votes={tmp_path}/empty.csv")[2]
    path = write_csv(tmp_path / "short.csv", [{"rater_id": "r"}])
    assert "has no column prompt_id, ours, baseline" in call("mode=results", f"votes={path}")[2]
    path = write_csv(tmp_path / "head.csv", pd.DataFrame(columns=COLUMNS))
    assert "holds no judgements" in call("mode=results", f"votes={path}")[2]
