"""Prompt sets: selection, shards, files by hash, and what the shipped sets hold."""

from __future__ import annotations

import hashlib
import json

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from trace_bench.settings.prompts import Prompt, PromptSet, load_prompt_set, prompt_shards
from trace_bench.system.config_path import conf_dir
from trace_bench.system.errors import TraceBenchError
from trace_bench.toyworld import HELD_OUT, scene_from_prompt
from trace_bench.toyworld.captions import parse
from trace_bench.toyworld.objects import OBJECTS

TEN = PromptSet("ten", tuple(Prompt(str(i), f"thing {i}") for i in range(10)), "config", None)


def spec_of(name):
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        config = compose("config", [f"prompt_set={name}"])
    return OmegaConf.to_container(config.prompt_set, resolve=True)


@pytest.mark.parametrize(
    ("wanted", "ids"),
    [
        (3, [3]),
        ("3", [3]),
        ("0-9", list(range(10))),
        (" 2 - 4 ", [2, 3, 4]),
        ("0,3,5-7", [0, 3, 5, 6, 7]),
        ([0, 3], [0, 3]),
        ([7, "1-2", "thing 5"], [7, 1, 2, 5]),
        ("4-4", [4]),
        ([1, "1", "0-2"], [1, 0, 2]),
        ("thing 6", [6]),
        ("  thing 6 ", [6]),
    ],
)
def test_selection(wanted, ids):
    assert [prompt.prompt_id for prompt in TEN.select(wanted)] == [str(i) for i in ids]


def test_a_text_of_the_users_own_has_an_id_that_is_its_own():
    first, second = TEN.select("a crab, low poly")[0], TEN.select("a crab")[0]
    assert first.text == "a crab, low poly"
    assert first.prompt_id != second.prompt_id
    assert first == TEN.select("a crab, low poly")[0]
    assert not first.prompt_id.isdecimal()  # never mistaken for an index of the set


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        (10, "no prompt 10 in prompt_set=ten, which has 10"),
        (-1, "no prompt -1"),
        ("8-10", "no prompt 10"),
        ("5-2", "is reversed"),
        ([], "selects nothing"),
        ("  ", "is not a prompt"),
        (True, "is not a prompt"),
        (None, "is not a prompt"),
        (1.5, "is not a prompt"),
    ],
)
def test_a_selection_that_means_nothing_is_refused(wanted, says):
    with pytest.raises(TraceBenchError, match=says):
        TEN.select(wanted)


@pytest.mark.parametrize(
    ("count", "per_job", "shards"),
    [
        (3, 1, "0,1,2"),
        (110, 110, "0-109"),
        (22, 10, "0-9,10-19,20-21"),
        (21, 10, "0-9,10-19,20"),
        (5, 10, "0-4"),
    ],
)
def test_shards_cover_the_set_once(count, per_job, shards):
    assert prompt_shards({"count": count}, per_job) == shards
    everything = PromptSet("n", tuple(Prompt(str(i), f"t{i}") for i in range(count)), "config", None)
    ids = [p.prompt_id for shard in shards.split(",") for p in everything.select(shard)]
    assert ids == [str(i) for i in range(count)]


@pytest.mark.parametrize("per_job", [0, -1, 1.5, True, "3"])
def test_shards_of_no_size_are_refused(per_job):
    with pytest.raises(TraceBenchError, match="prompts_per_job must be"):
        prompt_shards({"count": 3}, per_job)


@pytest.mark.parametrize(
    ("text", "slug"),
    [
        ("a red cube", "a-red-cube"),
        ("A Crab, low-poly!", "a-crab-low-poly"),
        ("a lion's mane", "a-lion-s-mane"),
        ("café / ../../etc", "cafe-etc"),
        ("日本", "prompt"),
    ],
)
def test_slug(text, slug):
    assert Prompt("0", text).slug == slug


def test_slug_of_a_long_prompt_fits_a_path():
    slug = Prompt("0", "a very " * 100 + "long prompt").slug
    assert len(slug) <= 48
    assert not slug.endswith("-")


# --- files -----------------------------------------------------------------------------------------------


def test_text_file(tmp_path):
    (tmp_path / "mine.txt").write_text("\ufeffa red cube\n\n  a duck  \n", encoding="utf-8")
    found = load_prompt_set("file", {"file": str(tmp_path / "mine.txt")})
    assert [p.text for p in found.prompts] == ["a red cube", "a duck"]
    assert found.source == "mine.txt"
    assert found.sha256 == hashlib.sha256((tmp_path / "mine.txt").read_bytes()).hexdigest()


def test_json_list_in_a_folder_with_limit(tmp_path):
    (tmp_path / "p.json").write_text(json.dumps(["one", "two", "three"]))
    found = load_prompt_set("file", {"file": "p.json", "folder": str(tmp_path), "limit": 2})
    assert [(p.prompt_id, p.text) for p in found.prompts] == [("0", "one"), ("1", "two")]


def test_coco_captions(tmp_path):
    notes = [{"image_id": 7, "id": 1, "caption": "A cat. "}, {"image_id": 7, "id": 2, "caption": "A dog."}]
    (tmp_path / "captions.json").write_text(json.dumps({"info": {}, "annotations": notes}))
    found = load_prompt_set("coco", {"file": str(tmp_path / "captions.json"), "limit": 100})
    assert [p.text for p in found.prompts] == ["A cat.", "A dog."]


@pytest.mark.parametrize(
    ("content", "more", "says"),
    [
        ('{"a": 1}', {}, "no prompts"),
        ('[1, "b"]', {}, "must be a list of texts"),
        ("[not json", {}, "not UTF-8 text or JSON"),
        ('["a", " "]', {}, "an empty prompt"),
        ('["a"]', {"sha256": "0" * 64}, "is not the file of prompt_set=x"),
        ('["a"]', {"count": 2}, "should have 2 prompts, but .* has 1"),
    ],
)
def test_a_file_that_is_not_what_it_should_be(tmp_path, content, more, says):
    (tmp_path / "p.json").write_text(content)
    with pytest.raises(TraceBenchError, match=says):
        load_prompt_set("x", {"file": str(tmp_path / "p.json"), **more})


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(TraceBenchError, match=r"cannot read .*nowhere\.txt: No such file"):
        load_prompt_set("file", {"file": str(tmp_path / "nowhere.txt")})
    with pytest.raises(TraceBenchError, match=r"add prompt_set\.file="):
        load_prompt_set("file", {"file": None})


def test_a_file_by_url_is_fetched_once_and_checked(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACE_BENCH_CACHE", str(tmp_path / "cache"))
    origin = tmp_path / "origin.json"
    origin.write_text('["far away"]')
    sha256 = hashlib.sha256(origin.read_bytes()).hexdigest()
    spec = {"url": origin.as_uri(), "file": "origin.json", "sha256": sha256, "folder": None}
    assert load_prompt_set("x", spec).prompts[0].text == "far away"
    origin.unlink()
    assert load_prompt_set("x", spec).prompts[0].text == "far away"


def test_a_file_that_changed_at_its_url_is_refused_and_not_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACE_BENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "origin.json").write_text('["changed"]')
    spec = {"url": (tmp_path / "origin.json").as_uri(), "file": "origin.json", "sha256": "1" * 64}
    with pytest.raises(TraceBenchError, match="sha256 differs"):
        load_prompt_set("x", spec)
    assert not list((tmp_path / "cache").rglob("*.json"))


def test_gpteval3d_without_network_or_folder_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACE_BENCH_CACHE", str(tmp_path))
    monkeypatch.delenv("TRACE_BENCH_GPTEVAL3D", raising=False)
    with pytest.raises(TraceBenchError) as refusal:
        load_prompt_set("gpteval3d", spec_of("gpteval3d"))
    assert "prompt_set.folder=" in str(refusal.value)
    assert "prompts.json" in str(refusal.value)


def test_gpteval3d_from_a_folder_must_be_the_real_file(tmp_path, monkeypatch):
    (tmp_path / "prompts.json").write_text(json.dumps(["not it"] * 110))
    monkeypatch.setenv("TRACE_BENCH_GPTEVAL3D", str(tmp_path))
    with pytest.raises(TraceBenchError, match="is not the file of prompt_set=gpteval3d"):
        load_prompt_set("gpteval3d", spec_of("gpteval3d"))


# --- the shipped sets ------------------------------------------------------------------------------------


def test_toy_prompts_are_scenes_and_two_were_held_out():
    from trace_bench.toyworld import HELD_OUT, scene_from_prompt

    texts = [p.text for p in load_prompt_set("toy", spec_of("toy")).prompts]
    scenes = [scene_from_prompt(text) for text in texts]
    assert len(texts) == 8
    assert sum(text in HELD_OUT for text in texts) == 2
    assert sum(scene.has_front for scene in scenes) >= 2
    assert sum(" on a" in text for text in texts) >= 2


def test_ids_of_shipped_prompts_never_change():
    """Runs on disk use these ids; prompts may be appended but not moved."""
    toy = load_prompt_set("toy", spec_of("toy")).prompts
    assert (toy[0].text, toy[4].text, toy[7].text) == ("a red cube", "a duck", "a blue cone on a red sphere")
    paper = load_prompt_set("paper", spec_of("paper")).prompts
    assert (paper[2].text, paper[15].text) == ("a delicious croissant", "a lion's mane jellyfish")
    assert len({p.text for p in paper}) == len(paper) == 23


STRATA = [("solid", False), ("object", False), ("object", True), ("composition", False)]


def kind(prompt):
    return parse(prompt)[0].kind, scene_from_prompt(prompt).has_front


def test_toy_bench_has_strata_of_twelve_and_a_third_of_each_is_held_out():
    prompts = spec_of("toy_bench")["prompts"]
    assert len(set(prompts)) == len(prompts) == 48
    for i, stratum in enumerate(STRATA):
        texts = prompts[12 * i : 12 * i + 12]
        assert {kind(text) for text in texts} == {stratum}
        assert [text in HELD_OUT for text in texts] == [False] * 8 + [True] * 4


def test_toy_janus_has_every_object_with_a_front():
    prompts = spec_of("toy_janus")["prompts"]
    assert len(set(prompts)) == len(prompts) == 24
    assert {kind(text) for text in prompts} == {("object", True)}
    names = {parse(text)[0].name for text in prompts}
    assert names == {name for name, item in OBJECTS.items() if item.has_front}


@pytest.mark.parametrize("name", ["toy_bench", "toy_janus"])
def test_ids_of_fixed_sets_never_change(name):
    digest = hashlib.sha256("\n".join(spec_of(name)["prompts"]).encode()).hexdigest()[:12]
    assert digest == {"toy_bench": "13d5789dc9c7", "toy_janus": "1a7359b2d323"}[name]
