"""Making a study: selected runs, no method revealed outside the key, and refused settings."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pandas as pd
import pytest
from run_folders import write_run
from study_folders import METHODS, PROMPTS, answer_file, attentive, film, write_runs

from evaluation.user_study.assignment import plan
from evaluation.user_study.scramble import read_film, scramble, write_film, write_scrambled
from evaluation.user_study.study import load_study
from evaluation.user_study.tokens import name_of, unseal

pytestmark = pytest.mark.slow

INLINE = re.compile(r'<script type="application/json" id="data">(.*?)</script>', re.DOTALL)


def page_data(folder: Path):
    return json.loads(INLINE.search((folder / "page" / "index.html").read_text(encoding="utf-8"))[1])


def tree(folder: Path):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# --- what is made ----------------------------------------------------------------------------------------


def test_every_rater_gets_a_balanced_session_with_checks(made):
    _, study = made
    assert len(study.raters) == len(set(study.raters)) == 6
    for trials in study.trials.values():
        kinds = Counter(trial.kind for trial in trials)
        assert kinds == {"comparison": 4, "instructed": 2, "scrambled": 2}
        assert trials[0].kind == "comparison"
        checks = [trial for trial in trials if trial.kind != "comparison"]
        for kind in ("instructed", "scrambled"):  # always choosing one side fails
            assert {trial.expected for trial in checks if trial.kind == kind} == {"left", "right"}
        for trial in trials:
            if trial.kind == "comparison":
                assert {trial.left, trial.right} in ({"trace", "sds"}, {"trace", "vsd"})


def test_clips_are_the_turntables_of_the_prompts_that_the_page_shows(made, tmp_path):
    folder, study = made
    outputs = tmp_path / "outputs"
    data = page_data(folder)
    assert data["prompts"] == list(PROMPTS)
    for rater, trials in study.trials.items():
        token = study.tokens[rater]
        session = unseal(study.study_id, token, data["sessions"][name_of(study.study_id, token)])
        assert session["rater"] == rater
        for screen, trial in zip(session["screens"], trials, strict=True):
            assert screen[0] == trial.prompt
            for place, name in zip(screen[1:3], (trial.left, trial.right), strict=True):
                clip = folder / "page" / "clips" / data["clips"][place]
                if name == "scrambled":
                    continue
                (run,) = (outputs / "runs" / name).glob(f"gaussians/toy/{trial.prompt}-*/*")
                assert clip.read_bytes() == (run / "turntable.mp4").read_bytes()
    assert {p.name for p in (folder / "page" / "clips").iterdir()} == set(data["clips"])


def test_the_page_does_not_tell_the_methods(made):
    """Not by text, file names, their order or dates, or a shared name for both sides of a prompt."""
    folder, study = made
    page = folder / "page"
    text = (page / "index.html").read_text(encoding="utf-8").lower()
    hidden = [
        *METHODS,
        "gaussians",
        "scrambled",
        study.key,
        *(clip.fingerprint for clip in study.clips.values()),
    ]
    text = text.replace("trace_bench", "")  # the program's name, part of the answer format
    assert [word for word in hidden if re.search(rf"\b{word.lower()}\b", text)] == []
    names = [path.name for path in (page / "clips").iterdir()]
    assert all(re.fullmatch(r"[0-9a-f]{16}\.mp4", name) for name in names)
    assert len({(page / "clips" / name).stat().st_mtime for name in names}) == 1
    assert page_data(folder)["clips"] == sorted(names)


def test_the_page_tells_no_rater_anything_about_another(made):
    """Neither codes nor tokens nor screens; and a token opens one session."""
    folder, study = made
    text = (folder / "page" / "index.html").read_text(encoding="utf-8")
    data = page_data(folder)
    assert set(study.tokens) == set(study.raters)
    assert len(set(study.tokens.values())) == 6
    for rater, token in study.tokens.items():
        assert re.fullmatch(r"([2-9A-HJ-NP-Z]{5}-){3}[2-9A-HJ-NP-Z]{5}", token)
        assert rater not in text
        assert token not in text
        assert token.replace("-", "") not in text
    assert '"screens"' not in text
    assert set(data) == {"format", "study", "return_to", "aspects", "choices", "prompts", "clips", "sessions"}
    mine, other = (study.tokens[rater] for rater in study.raters[:2])
    box = data["sessions"][name_of(study.study_id, other)]
    with pytest.raises(ValueError):  # noqa: PT011  whatever of JSON or UTF-8 is wrong with noise
        unseal(study.study_id, mine, box)
    assert list(data["sessions"]) == sorted(data["sessions"])  # not in the order of raters.csv


@pytest.mark.parametrize(
    "text", ["", "{", "[" * 9999, '{"schema_version": 3}', '{"schema_version": 3, "clips": 5}']
)
def test_a_damaged_study_is_to_be_restored(made, call, text):
    folder, _ = made
    (folder / "study.json").write_text(text)
    for overrides in (["mode=results"], ["mode=import", f"answers={folder}"], []):
        code, _, err = call(*overrides)
        assert code == 2
        assert "study.json" in err
        assert "restore study.json and assignment.csv" in err
        assert "force" not in err


def test_the_page_loads_nothing_from_elsewhere(made):
    folder, _ = made
    text = (folder / "page" / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"https?://|//cdn|@import|<link[^>]+stylesheet|<script[^>]+src", text)
    assert "default-src &#x27;none&#x27;" in text
    assert "$" not in re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)  # no placeholder was left


def test_a_prompt_cannot_end_the_element_that_it_stands_in(made):
    folder, _ = made
    text = (folder / "page" / "index.html").read_text(encoding="utf-8")
    assert PROMPTS[2] not in text
    assert page_data(folder)["prompts"][2] == PROMPTS[2]


def test_the_same_study_from_the_same_runs(made, call):
    folder, _ = made
    before = tree(folder)
    assert call()[0] == 0  # once more: nothing changes
    assert tree(folder) == before
    assert call("force=true")[0] == 0  # made once more: links that were sent stay valid
    assert tree(folder) == before
    shutil.rmtree(folder)
    assert call()[0] == 0  # and anew: only the tokens are others, since they are random
    again = tree(folder)
    changed = {"study.json", "raters.csv", "page/index.html"}
    assert {name for name in before if before[name] != again[name]} == changed
    first, second = (json.loads(files["study.json"]) for files in (before, again))
    assert first | {"tokens": None} == second | {"tokens": None}
    assert not set(first["tokens"].values()) & set(second["tokens"].values())


def test_another_assignment_under_the_same_key_is_another_study(made, call, monkeypatch, tmp_path):
    """A later version may plan otherwise: a page that was made before goes on, one that is made anew has
    another id, so that the browser does not continue old answers and files with them are refused.
    """
    folder, old = made
    rater = old.raters[0]
    sent = answer_file(tmp_path / "sent" / "a.json", old, rater, attentive())

    def exchanged(*arguments):
        return [[replace(c, ours_left=not c.ours_left) for c in mine] for mine in plan(*arguments)]

    monkeypatch.setattr("evaluation.user_study.make.plan", exchanged)
    before = tree(folder)
    assert call()[0] == 0
    assert tree(folder) == before
    assert call("force=true")[0] == 0
    new = load_study(folder)
    assert (new.key, new.tokens) == (old.key, old.tokens)
    assert new.trials[rater] != old.trials[rater]
    assert new.study_id != old.study_id
    code, _, err = call("mode=import", f"answers={sent}")
    assert code != 0
    assert f"belongs to study {old.study_id}, not {new.study_id}" in err


def test_another_seed_is_another_study(made, call, tmp_path):
    _, study = made
    assert call("seed=1", "study=second")[0] == 0
    second = load_study(tmp_path / "outputs" / "user_study" / "second")
    assert second.study_id != study.study_id
    assert not set(second.raters) & set(study.raters)
    assert not {c.file for c in second.clips.values()} & {c.file for c in study.clips.values()}


def test_raters_csv_gives_each_a_link(made):
    folder, study = made
    links = pd.read_csv(folder / "raters.csv")
    assert list(links["rater"]) == study.raters
    assert list(links["link"]) == [f"page/index.html#{study.tokens[rater]}" for rater in study.raters]
    assert set(links["screens"]) == {8}


def test_wording_may_change_afterwards_and_clips_heal(made, call):
    folder, study = made
    clip = next((folder / "page" / "clips").iterdir())
    name = next(name for name, clip in study.clips.items() if not name.endswith("scrambled"))
    clip = folder / "page" / "clips" / study.clips[name].file
    clip.write_bytes(b"damaged")
    assert call("page.title='Ours < theirs?'", "page.return_to=Mail it to us")[0] == 0
    text = (folder / "page" / "index.html").read_text(encoding="utf-8")
    assert "<title>Ours &lt; theirs?</title>" in text
    assert page_data(folder)["return_to"] == "Mail it to us"
    assert len(clip.read_bytes()) > 100
    assert load_study(folder).study_id == study.study_id


def test_prompts_are_drawn_and_incomplete_ones_left_out(outputs, call):
    (run,) = (outputs / "runs" / "vsd").glob("gaussians/toy/1-*/*")
    (run / "turntable.mp4").unlink()
    code, out, _ = call("prompts=2")
    assert code == 0
    assert "1 prompts were left out" in out
    study = load_study(outputs / "user_study" / "main")
    assert len(study.prompts) == 2
    assert study.left_out == ["1"]
    assert "1" not in {prompt["id"] for prompt in study.prompts}


def test_the_lowest_seed_is_shown_unless_another_is_chosen(outputs, call):
    write_runs(outputs, seed=3)
    assert call()[0] == 0
    shown = load_study(outputs / "user_study" / "main").clips["0/sds"].run
    assert "seed0" in shown
    assert call("select.seed=3", "study=three")[0] == 0
    assert "seed3" in load_study(outputs / "user_study" / "three").clips["0/sds"].run


def test_without_checks(outputs, call):
    assert call("attention.instructed=0", "attention.scrambled=0")[0] == 0
    study = load_study(outputs / "user_study" / "main")
    assert {trial.kind for trials in study.trials.values() for trial in trials} == {"comparison"}


# --- what is refused -------------------------------------------------------------------------------------


def test_other_settings_do_not_replace_a_study(made, call):
    folder, study = made
    code, _, err = call("raters=7")
    assert code == 2
    assert "made from other settings" in err
    assert load_study(folder).study_id == study.study_id
    assert call("raters=7", "force=true")[0] == 0
    assert len(load_study(folder).raters) == 7


def test_a_study_with_answers_is_never_replaced(made, call):
    folder, study = made
    (folder / "answers").mkdir()
    (folder / "answers" / f"{study.raters[0]}.json").write_text("{}")
    code, _, err = call("raters=7", "force=true")
    assert code == 2
    assert "it has imported answers" in err


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["baselines=[sds,csd]"], "no finished run of csd with representation=gaussians"),
        (["baselines=[sds,trace]"], r"a list of different methods without ours \(trace\)"),
        (["baselines=sds"], "baselines must be a list"),
        (["baselines=[]"], "baselines must be a list"),
        (["prompts=0"], "prompts must be an integer of at least 1 or null, but is 0"),
        (["raters=many"], "raters must be an integer of at least 1, but is 'many'"),
        (["attention.max_failed=-1"], "attention.max_failed must be an integer of at least 0"),
        (["+select.gidance_scale=7"], "a run has no 'gidance_scale'; did you mean guidance_scale"),
        (["+select_of.csd.seed=1"], "select_of names csd, which is not shown"),
        (["select.representation=nerf"], "no finished run of trace with representation=nerf"),
        (["mode=export"], "mode must be one of make, import, results"),
        (["study=../x"], "study must be the name of a folder"),
        (["mode=results", "study=none"], "There is no study in"),
    ],
)  # fmt: skip
def test_mistakes_take_one_sentence(outputs, call, overrides, message):
    code, _, err = call(*overrides)
    assert code == 2
    assert re.search(message, err)
    assert err.count("\n") == 1
    assert not (outputs / "user_study").exists()


def test_runs_under_several_settings_have_to_be_chosen_from(outputs, call):
    write_runs(outputs, methods=["trace"], guidance_scale=7.5)
    code, _, err = call()
    assert code == 2
    assert "trace has runs with guidance_scale 7.5 and 15.0" in err
    assert "+select_of.trace.guidance_scale=7.5" in err
    assert call("+select_of.trace.guidance_scale=7.5")[0] == 0
    assert "cfg7.5" in load_study(outputs / "user_study" / "main").clips["0/trace"].run


def test_methods_are_compared_on_one_prompt_set(outputs, call):
    write_runs(outputs, methods=["csd"], prompt_set="other")
    code, _, err = call("baselines=[csd]")
    assert code == 2
    assert "differ in prompt_set (trace: toy, csd: other)" in err


def test_runs_that_differ_in_their_config_alone(outputs, call):
    film(write_run(outputs, method="sds", prompt=PROMPTS[0], variant="lr") / "turntable.mp4", (9, 9, 9), 0)
    code, _, err = call()
    assert code == 2
    assert "two runs of one prompt and seed" in err


def test_an_asset_made_again_with_snapshots_is_one_asset(outputs, call):
    again = write_run(outputs, method="sds", prompt=PROMPTS[0], snapshots=(0, 20))
    film(again / "turntable.mp4", (9, 9, 9), 0)
    assert call()[0] == 0
    assert again.name not in load_study(outputs / "user_study" / "main").clips["0/sds"].run


def test_no_turntables(outputs, call):
    for path in (outputs / "runs" / "vsd").rglob("turntable.mp4"):
        path.unlink()
    code, _, err = call()
    assert code == 2
    assert "No prompt has a turntable.mp4 of every method (trace, sds, vsd)" in err


def test_a_broken_film_is_named(outputs, call):
    for path in outputs.rglob("turntable.mp4"):
        path.write_bytes(b"no film")
    code, _, err = call()
    assert code == 2
    assert "turntable.mp4 cannot be read as a video" in err


def test_the_two_halves_of_the_key_belong_together(made, call):
    folder, _ = made
    (folder / "assignment.csv").write_text((folder / "assignment.csv").read_text().replace("trace", "sds", 1))
    code, _, err = call("mode=results")
    assert code == 2
    assert "does not belong to the study.json next to it" in err


def test_a_study_of_an_older_schema_is_refused(made, call):
    folder, _ = made
    path = folder / "study.json"
    path.write_text(path.read_text().replace('"schema_version": 3', '"schema_version": 2'))
    code, _, err = call("mode=results")
    assert code == 2
    assert "study.json has schema_version 2, but 3 is required" in err


# --- the scrambled clip ----------------------------------------------------------------------------------


def test_scrambling_moves_squares_and_keeps_their_pixels():
    frames = np.random.default_rng(0).integers(0, 256, (3, 35, 32, 3), dtype=np.uint8)
    mixed = scramble(frames, "key")
    assert not np.array_equal(mixed, frames)
    assert np.array_equal(mixed[:, 32:], frames[:, 32:])  # the margin stays
    for a, b in zip(frames, mixed, strict=True):
        assert np.array_equal(np.sort(a.ravel()), np.sort(b.ravel()))
    still = np.repeat(frames[:1], 3, axis=0)
    assert len(np.unique(scramble(still, "key"), axis=0)) == 1  # all frames alike: nothing flickers


def test_scrambled_film_has_the_length_of_its_source(tmp_path):
    source = film(tmp_path / "a.mp4", (200, 0, 0), 0.0, seconds=2.0)
    assert write_scrambled(source, tmp_path / "b.mp4", "key")
    lengths = [imageio_ffmpeg.count_frames_and_secs(str(tmp_path / name)) for name in ("a.mp4", "b.mp4")]
    assert lengths[0] == lengths[1] == (24, pytest.approx(2.0, abs=0.01))
    frames, fps = read_film(source)
    assert (len(frames), fps) == (24, 12.0)


def test_an_empty_asset_is_not_scrambled(tmp_path):
    write_film(np.full((4, 64, 64, 3), 255, np.uint8), 4.0, tmp_path / "white.mp4")
    assert not write_scrambled(tmp_path / "white.mp4", tmp_path / "b.mp4", "key")
    assert not (tmp_path / "b.mp4").exists()
