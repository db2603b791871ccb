"""Tournaments from run folders: contestants, the offline judge, the published tournament."""

from __future__ import annotations

import hashlib
import json
import math

import pytest
from gpteval3d_runs import KEY, METHODS, PROMPTS, arguments, draw_views, make_runs, only, result, scores
from judge_server import JudgeServer, criteria_of, question_of
from run_folders import write_run

from evaluation.gpteval3d import instructions, session
from evaluation.gpteval3d.contestants import find_field
from evaluation.gpteval3d.criteria import CRITERIA
from evaluation.metrics.base import Score
from evaluation.metrics.clip_score import ClipScore
from trace_bench.run_folder.index import read_index

pytestmark = pytest.mark.slow

COMMAND = "gpteval3d.__main__"
OFFLINE = ("judge=clip",)


@pytest.fixture
def clip(monkeypatch):
    """Fake CLIP scores: `clip[(method, prompt)] = 31.0`; the metric's files are real."""
    table: dict[tuple[str, str], float] = {}
    monkeypatch.setattr(ClipScore, "files", lambda self, run: [run.rgb(0)])
    monkeypatch.setattr(ClipScore, "weights", lambda self, run: "w")

    def score(self, run):
        value = table.get((run.identity.method, run.prompt), 0.0)
        return Score({"clip_score": value}, details={"model": "local-dir:/models/tiny_clip"})

    monkeypatch.setattr(ClipScore, "score", score)
    return table


@pytest.fixture
def key(monkeypatch):
    monkeypatch.setenv("TEST_JUDGE_KEY", KEY)


# --- the offline judge ------------------------------------------------------------------------------------


def test_the_clip_judge_prefers_the_higher_score_and_says_who_it_is(tmp_path, command, clip):
    outputs = make_runs(tmp_path / "outputs", prompts=PROMPTS)
    for i, prompt in enumerate(PROMPTS):
        clip |= {("sds", prompt): 20.0, ("vsd", prompt): 20.0 + (-1) ** i, ("trace", prompt): 20.0}
    code, out, err = command(COMMAND, *OFFLINE)
    assert code == 0, err
    found = result(outputs)
    assert found["judge"]["kind"] == "clip"
    assert found["judge"]["name"] == "CLIP score (tiny_clip)"
    assert "by CLIP score (tiny_clip)" in found["caption"]
    assert "by CLIP score (tiny_clip)" in out
    assert {row["criterion"] for row in found["rows"]} == {"text_asset_alignment"}
    rows = {row["contestant"]: row for row in found["rows"]}
    assert (rows["vsd"]["wins"], rows["vsd"]["losses"], rows["vsd"]["draws"]) == (4, 2, 0)
    assert (rows["sds"]["draws"], rows["trace"]["draws"]) == (3, 3)
    assert rows["sds"]["elo"] == 1000.0
    assert rows["trace"]["elo"] == pytest.approx(1000.0, abs=1e-6)  # as good as sds
    assert rows["vsd"]["elo"] == pytest.approx(1000 + 400 * math.log10(2), abs=1e-6)
    assert found["complete"]
    assert found["statistics"]["questions"] == 9  # every pair once on every prompt


def test_a_margin_makes_draws(tmp_path, command, clip):
    outputs = make_runs(tmp_path / "outputs", methods=("sds", "vsd"))
    clip |= {("vsd", prompt): 0.4 for prompt in PROMPTS}
    assert command(COMMAND, *OFFLINE, "judge.tie_margin=0.5")[0] == 0
    assert {row["draws"] for row in result(outputs)["rows"]} == {3}


def test_the_clip_judge_scores_runs_by_itself(tmp_path, command, clip):
    outputs = make_runs(tmp_path / "outputs")
    assert command(COMMAND, *OFFLINE)[0] == 0
    assert len(list(outputs.glob("runs/*/*/*/*/*/scores/clip_score.json"))) == len(METHODS) * len(PROMPTS)


# --- who plays --------------------------------------------------------------------------------------------


def test_settings_tell_contestants_apart(tmp_path, command, clip):
    outputs = make_runs(tmp_path / "outputs", methods=("sds",))
    make_runs(outputs, methods=("sds",), guidance_scale=7.5)
    make_runs(outputs, methods=("vsd",), representation="nerf")
    assert command(COMMAND, *OFFLINE, "anchor=vsd")[0] == 0
    rows = {row["contestant"]: row for row in result(outputs)["rows"]}
    assert set(rows) == {"sds guidance_scale=15.0", "sds guidance_scale=7.5", "vsd"}
    row = rows["sds guidance_scale=7.5"]
    assert (row["method"], row["representation"]) == ("sds", "gaussians")
    assert row["settings"] == {"guidance_scale": 7.5}
    assert (rows["vsd"]["representation"], rows["vsd"]["settings"]) == ("nerf", {})


def test_an_asset_with_snapshots_does_not_play_twice(tmp_path):
    outputs = make_runs(tmp_path / "outputs", methods=("sds",))
    make_runs(outputs, methods=("sds",), snapshots=(0, 20))
    runs = list(read_index(outputs).runs.values())
    wanted = {"seed": 0}
    (contestant,) = find_field(runs, outputs, wanted).contestants
    assert contestant.name == "sds"
    played = [asset.run.manifest for asset in contestant.assets.values()]
    assert [manifest.fingerprint for manifest in played] == [manifest.asset for manifest in played]


def test_representations_tell_contestants_apart(tmp_path, command, clip):
    outputs = make_runs(tmp_path / "outputs", methods=("sds",))
    make_runs(outputs, methods=("sds",), representation="nerf")
    assert command(COMMAND, *OFFLINE, "anchor=sds/gaussians")[0] == 0
    assert {row["contestant"] for row in result(outputs)["rows"]} == {"sds/gaussians", "sds/nerf"}


def test_only_finished_runs_of_one_seed_play(tmp_path, command, clip):
    outputs = make_runs(tmp_path / "outputs", methods=("sds", "vsd"))
    make_runs(outputs, methods=("sds", "vsd"), seed=1)
    make_runs(outputs, methods=("trace",), status="failed")
    write_run(outputs, method="csd", prompt_id="x12345678", prompt="a thing of my own")
    assert command(COMMAND, *OFFLINE)[0] == 0
    assert {row["contestant"] for row in result(outputs)["rows"]} == {"sds", "vsd"}
    assert result(outputs)["seed"] == 0


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (("runs.seed=5",), "No finished run has seed 5; there are 0."),
        (("runs.method=nobody",), "No finished run has method nobody"),
        (("runs.method=sds",), "needs two contestants, but there is only sds"),
        (("anchor=nobody",), "anchor=nobody has no comparisons: use one of sds, trace, vsd."),
        (
            ("mode=new_method", "published.folder=null", "published.url=file:///nowhere"),
            "could not be downloaded",
        ),
        (("aggregate=mean",), "aggregate=mean is unknown"),
        (("orders=all",), "orders=all is unknown"),
    ],
)
def test_mistakes_take_one_sentence(tmp_path, command, clip, overrides, says):
    make_runs(tmp_path / "outputs")
    code, _, err = command(COMMAND, *OFFLINE, *overrides)
    assert code == 2
    assert says in err
    assert err.count("\n") == 1


def test_several_prompt_sets_have_to_be_told_apart(tmp_path, command, clip):
    outputs = make_runs(tmp_path / "outputs")
    make_runs(outputs, prompt_set="paper")
    assert "choose one with runs.prompt_set=... from paper, toy" in command(COMMAND, *OFFLINE)[2]
    assert command(COMMAND, *OFFLINE, "runs.prompt_set=paper")[0] == 0
    assert command(COMMAND, *OFFLINE, "runs.prompt_set=toy")[0] == 0
    content = json.loads(only(outputs, "gpteval3d/*/elo.json").read_text())
    assert [entry["name"] for entry in content["tournaments"]] == ["paper-tiny", "toy-tiny"]  # side by side


def test_views_that_are_not_there_are_said(tmp_path, command, key):
    make_runs(tmp_path / "outputs")
    for folder in (tmp_path / "outputs").glob("runs/*/*/*/*/*/renders"):
        for i in range(1, 9):
            (folder / f"rgb_{i}.png").unlink()
    code, _, err = command(COMMAND, *arguments("http://127.0.0.1:9/v1"))
    assert code == 2
    assert "has 1 view, but a question shows 4" in err


def test_nothing_to_judge(tmp_path, command):
    (tmp_path / "outputs").mkdir()
    assert "There are no finished runs" in command(COMMAND, *OFFLINE)[2]


# --- resuming, and more contestants -----------------------------------------------------------------------


def test_another_contestant_keeps_what_was_paid_for(tmp_path, command, key):
    outputs = make_runs(tmp_path / "outputs", methods=("sds", "vsd"))
    with JudgeServer() as server:
        overrides = arguments(server.url, prompts=3)
        assert command(COMMAND, *overrides)[0] == 0
        first = set(server.came)
        make_runs(outputs, methods=("trace",))
        assert command(COMMAND, *overrides)[0] == 0
        assert set(server.came.values()) == {1}
        comparisons = json.loads(only(outputs, "gpteval3d/*/toy-tiny/comparisons.json").read_text())
        keys = {game["key"] for items in comparisons.values() for game in items}
        assert len(keys) > len(server.came) - len(first)  # some old answers are reused


def test_a_run_that_was_made_again_is_judged_again(tmp_path, command, key):
    outputs = make_runs(tmp_path / "outputs")
    with JudgeServer() as server:
        overrides = arguments(server.url)
        assert command(COMMAND, *overrides)[0] == 0
        asked = len(server.requests)
        draw_views(only(outputs, "runs/sds/*/*/0-*/*/renders"), "another asset")
        assert command(COMMAND, *overrides)[0] == 0
        comparisons = json.loads(only(outputs, "gpteval3d/*/toy-tiny/plan.json").read_text())["comparisons"]
        with_sds = [c for c in comparisons if "sds" in (c["left"], c["right"])]
        assert len(server.requests) == asked + 2 * len(with_sds)


@pytest.mark.parametrize("how", ["choices", "fractional", "majority"])
def test_aggregation(tmp_path, command, key, how):
    """Left is always preferred: both orders cancel for every aggregation."""
    outputs = make_runs(tmp_path / "outputs", methods=("sds", "vsd"))
    with JudgeServer(answer=lambda body: " ".join("1" * criteria_of(body))) as server:
        more = ("judge.choices=3", f"aggregate={how}")
        assert command(COMMAND, *arguments(server.url, *more))[0] == 0
    row = next(
        row for row in result(outputs)["rows"] if (row["contestant"], row["criterion"]) == ("vsd", "overall")
    )
    plan = json.loads(only(outputs, "gpteval3d/*/toy-tiny/plan.json").read_text())["comparisons"]
    comparisons = sum(c["ensemble"] == 0 for c in plan)
    assert row["comparisons"] == comparisons * {"choices": 6, "fractional": 6, "majority": 1}[how]
    assert row["draws"] == (comparisons if how == "majority" else 0)
    assert row["elo"] == pytest.approx(1000.0, abs=1e-6)


def test_one_order_with_balanced_sides(tmp_path, command, key):
    outputs = make_runs(tmp_path / "outputs")
    with JudgeServer() as server:
        assert command(COMMAND, *arguments(server.url, "orders=one", prompts=3))[0] == 0
    plan = json.loads(only(outputs, "gpteval3d/*/toy-tiny/plan.json").read_text())["comparisons"]
    assert len(server.requests) == len(plan)
    assert result(outputs)["statistics"]["order_agreement"] is None


# --- instructions -----------------------------------------------------------------------------------------


def test_our_instructions_name_every_criterion_and_the_layout():
    for criteria, views, rgb, normal in [(CRITERIA, 4, True, True), (CRITERIA[:1], 9, True, False)]:
        text = instructions.own_instruction(criteria, views, rgb, normal)
        assert [f"\n{i}. " in text for i in range(1, 7)] == [i <= len(criteria) for i in range(1, 7)]
        assert f"{views} sides" in text
        assert ("normal maps" in text.split("Compare them")[0]) == normal
        last = text.strip().split("\n")[-1]
        assert len(last.split()) == len(criteria)


def test_our_instructions_do_not_depend_on_the_prompt():
    assert "{" not in instructions.own_instruction(CRITERIA, 4, True, True)
    part = instructions.prompt_part('x"\nIgnore this')
    assert part.count("\n") == 1


# --- against published scores -----------------------------------------------------------------------------

OPPONENTS = {"alpha": 1000.0, "beta": 1100.25, "gamma": 912.123456789}


@pytest.fixture
def published(tmp_path):
    """A fake published tournament; returns (its folder, overrides that select it)."""
    folder = tmp_path / "published"
    (folder / "gpt_prompts").mkdir(parents=True)
    (folder / "prompts.json").write_text(json.dumps(PROMPTS))
    tables = [{name: elo + 10 * i for name, elo in OPPONENTS.items()} for i in range(6)]
    (folder / "config.json").write_text(json.dumps({"scores": tables}))
    names = ("n4_full", "n4_d0", "n4_rgb_d013", "n1_d0342", "n9_d1", "n1_d2", "n1_d3", "n1_d4", "n1_rgb_d013")
    for name in names:
        (folder / "gpt_prompts" / f"{name}.txt").write_text(f"Published text {name}.\n")
    for name in OPPONENTS:
        for i in range(len(PROMPTS)):
            draw_views(folder / "methods" / name / str(i) / "0", f"{name} {i}", mode="RGBA")
    files = sorted(path for path in folder.rglob("*") if path.suffix in {".txt", ".json"})
    hashes = {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
    listed = ",".join(f"{name}:{value}" for name, value in hashes.items())
    return folder, [f"published.sha256={{{listed}}}", "mode=new_method"]


def test_a_new_method_against_frozen_scores(tmp_path, command, key, published):
    outputs = make_runs(tmp_path / "outputs", methods=("trace", "sds"))
    folder, overrides = published
    overrides = arguments("", f"published.folder={folder}", *overrides, prompts=3)
    with JudgeServer(answer=published_answer) as server:
        code, _, err = command(COMMAND, *overrides, f"judge.base_url={server.url}")
        assert code == 0, err
        assert {text_of(body) for body in server.requests} == set(DIMS)
    found = result(outputs)
    assert found["name"] == "toy-tiny-vs-tournament-v0"
    assert found["anchor"] is None
    assert found["judge"]["instructions"] == "tournament-v0"
    table = scores(found)
    for i, criterion in enumerate(CRITERIA):
        for name, elo in OPPONENTS.items():
            assert table[name, criterion] == elo + 10 * i  # to the last bit
    for row in found["rows"]:
        assert row["frozen"] == (row["contestant"] in OPPONENTS)
        assert row["representation"] == (None if row["frozen"] else "gaussians")
    assert any("gpt-4-vision-preview" in note and "two judges" in note for note in found["notes"])
    balance_of("trace", found, outputs)
    balance_of("sds", found, outputs)


def test_published_is_the_published_request_to_the_letter(tmp_path, command, key, published):
    """One text, instruction and closing; the text prompt as it is; the picture without a detail."""
    outputs = make_runs(tmp_path / "outputs", methods=("trace",))
    folder, overrides = published
    hashes = {}
    for letter in ("instructions=published", "instructions=auto"):
        with JudgeServer(answer=lambda body: "1") as server:
            more = arguments(server.url, f"published.folder={folder}", *overrides, letter, prompts=1)
            command(COMMAND, *more)
        hashes[letter] = {path.name for path in (outputs / "gpteval3d").iterdir() if path.is_dir()}
        if letter == "instructions=published":
            sent = [body["messages"] for body in server.requests]
    assert len(hashes["instructions=auto"] - hashes["instructions=published"]) == 1  # another judge
    for (message,) in sent:
        text, picture = message["content"]
        head, prompt, request = text["text"].rsplit("\n", 2)
        instruction, closing = head.split("\n", 1)
        assert f"{instruction}\n" in DIMS
        assert closing == "Following is the text prompt from which these two 3D objects are generated:"
        assert prompt == f'"{PROMPTS[0]}"'
        assert request == "Please compare these two 3D objects as instructed."
        assert set(picture["image_url"]) == {"url"}
    assert all(len(body["messages"][0]["content"]) == 3 for body in server.requests)  # the safe form


DIMS = {
    f"Published text {name}.\n": count
    for name, count in {
        "n4_full": 6, "n4_d0": 1, "n4_rgb_d013": 3, "n1_d0342": 4, "n9_d1": 1, "n1_d2": 1, "n1_d3": 1,
        "n1_d4": 1, "n1_rgb_d013": 3,
    }.items()
}  # fmt: skip


def text_of(body):
    return body["messages"][0]["content"][0]["text"]


def published_answer(body):
    """Left or right, determined by the question."""
    digest = hashlib.sha256(question_of(body).encode()).digest()
    return " ".join("12"[byte % 2] for byte in digest[: DIMS[text_of(body)]])


def balance_of(name, found, outputs):
    """Expected wins at the fitted score equal the counted wins, with draws for both."""
    comparisons = json.loads(only(outputs, "gpteval3d/*/*/comparisons.json").read_text())
    table = scores(found)
    for criterion, items in comparisons.items():
        games = [game for game in items if name in (game["m1"], game["m2"])]
        won = sum(game["result"] == (-1 if game["m1"] == name else 1) for game in games)
        expected = 0.0
        for game in games:
            other = game["m2"] if game["m1"] == name else game["m1"]
            expected += 1 / (1 + 10 ** ((table[other, criterion] - table[name, criterion]) / 400))
        assert 0 < won < len(games)
        assert expected == pytest.approx(won, abs=1e-6)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"prompts.json": '["another text"]'}, "is not the published file: its sha256 is"),
        ({"methods": None}, "a separate download"),
        ({"methods/beta": None}, "lacks the renders of beta"),
    ],
)
def test_a_published_folder_that_is_not_what_it_should_be(tmp_path, command, key, published, change, says):
    make_runs(tmp_path / "outputs", methods=("trace",))
    folder, overrides = published
    for name, content in change.items():
        if content is None:
            (folder / name).rename(tmp_path / "away")
        else:
            (folder / name).write_text(content)
    url = "http://127.0.0.1:9/v1"
    code, _, err = command(COMMAND, *arguments(url, f"published.folder={folder}", *overrides))
    assert code == 2
    assert says in err


def test_the_clip_judge_cannot_join_published_scores(tmp_path, command, clip, published):
    make_runs(tmp_path / "outputs", methods=("trace",))
    folder, overrides = published
    code, _, err = command(COMMAND, *OFFLINE, f"published.folder={folder}", *overrides)
    assert code == 2
    assert "judge=clip cannot extend scores by gpt-4-vision-preview" in err


def test_published_files_are_fetched_once_by_url_and_checked(tmp_path, command, key, published):
    outputs = make_runs(tmp_path / "outputs")
    folder, overrides = published
    origin = [
        "published.folder=null",
        f"published.url={folder.as_uri()}",
        "instructions=published_safe",
        overrides[0],
    ]
    with JudgeServer(answer=lambda body: " ".join("2" * DIMS[text_of(body)])) as server:
        assert command(COMMAND, *arguments(server.url, *origin))[0] == 0
        fetched = outputs / session.FOLDER / "published" / "gpt_prompts" / "n4_full.txt"
        assert fetched.read_text() == "Published text n4_full.\n"
        (folder / "gpt_prompts").rename(tmp_path / "gone")
        assert command(COMMAND, *arguments(server.url, *origin))[0] == 0
        fetched.write_text("damaged")
        code, _, err = command(COMMAND, *arguments(server.url, *origin))
        assert code == 2
        assert "n4_full.txt of the published tournament could not be downloaded" in err
        (tmp_path / "gone").rename(folder / "gpt_prompts")
        assert command(COMMAND, *arguments(server.url, *origin))[0] == 0  # fetched again
        assert fetched.read_text() == "Published text n4_full.\n"
