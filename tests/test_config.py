"""The configs: every combination composes, choices bring others along, mistakes are one sentence."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from trace_bench.config import RULES, Job, build, check_settings
from trace_bench.config_path import conf_dir
from trace_bench.errors import TraceBenchError
from trace_bench.identity import RunSpec, prior_identity, runs_of
from trace_bench.planning import _compose, check_composes, make_plan, readable_overrides
from trace_bench.prompts import load_prompt_set

CONF = Path(conf_dir())
FILE_SETS = {"coco", "file"}  # name a file of the user's
NEEDED = {"pointcloud": ["init.path=x.ply"], "mesh": ["init.path=x.glb"], "run": ["init.folder=x"]}
EXTERNAL = ["method.asset=x.ply", "method.source=someone", "method.minutes=1"]


def options(group):
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def job(*overrides):
    cfg = _compose(overrides)
    return Job.from_config(cfg, cfg.hydra.runtime.choices)


def toy_scale(method):
    """The guidance scale that the toy protocol gives a method."""
    return OmegaConf.load(CONF / "protocol_method" / f"toy_{method}.yaml").method.guidance_scale


@functools.cache
def base_job():
    return job("method=trace", "guidance_scale=10")


def changed(made, key, value):
    """The job with one setting changed, validated anew."""
    head, _, tail = key.partition(".")
    return dataclasses.replace(made, **{head: {**getattr(made, head), tail: value} if tail else value})


def _first(made):
    prompts = load_prompt_set("toy", made.prompt_set)
    return prompts.select(made.prompt)[0], prompts


@pytest.fixture
def model(tmp_path):
    """A folder that counts as a local model."""
    for name in ("unet", "vae", "text_encoder"):
        (tmp_path / "model" / name).mkdir(parents=True)
        (tmp_path / "model" / name / "model.safetensors").write_bytes(name.encode())
    return tmp_path / "model"


# --- what composes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [name for name in options("method") if name != "external"])
def test_every_method_with_every_protocol(method):
    for prior, representation in (("tiny", "gaussians"), ("sd21", "image")):
        made = job(f"method={method}", f"prior={prior}", f"representation={representation}")
        assert made.choices["method"] == method
        assert made.choices["prior"] == prior
        assert made.steps >= 1
        assert prior != "tiny" or made.method["negative_prompt"] == ""  # it has no words for what is ugly
        check_settings("method", made.method)


@pytest.mark.parametrize("prior", ["tiny", "sd21"])
def test_what_is_made_elsewhere_has_no_budget_and_no_start(prior):
    made = job("method=external", f"prior={prior}", *EXTERNAL)
    assert (made.steps, made.views_per_step, made.scale, made.choices["init"]) == (0, 0, None, "none")
    assert not made.distils
    check_settings("method", made.method)


@pytest.mark.parametrize("prompt_set", options("prompt_set"))
def test_every_prompt_set(prompt_set):
    more = ["prompt_set.file=mine.txt"] if prompt_set in FILE_SETS else []
    assert job(f"prompt_set={prompt_set}", *more).choices["prompt_set"] == prompt_set


@pytest.mark.parametrize("protocol", options("protocol"))
def test_settings_of_every_yaml_are_taken_by_its_class(protocol):
    for group in ("representation", "init", "prior"):
        for option in options(group):
            more = NEEDED.get(option, [])
            made = job(f"protocol={protocol}", f"{group}={option}", *more)
            check_settings(group, getattr(made, group))


@pytest.mark.parametrize(
    ("overrides", "prior", "protocol"),
    [
        ([], "tiny", "toy"),
        (["prompt_set=toy"], "tiny", "toy"),
        (["prompt_set=gpteval3d"], "sd21", "paper"),
        (["prompt_set=paper"], "sd21", "paper"),
        (["prompt_set=coco", "prompt_set.file=x.json"], "sd21", "paper"),
        (["prompt_set=file", "prompt_set.file=x.txt"], "tiny", "toy"),
        (["prompt_set=gpteval3d", "prior=tiny"], "tiny", "toy"),
        (["prior=tiny", "prompt_set=gpteval3d"], "tiny", "toy"),
        (["prompt_set=toy", "prior=sd15"], "sd15", "paper"),
        (["prompt_set=gpteval3d", "protocol=toy"], "sd21", "toy"),
    ],
)
def test_a_prompt_set_brings_its_prior_and_a_prior_its_protocol(overrides, prior, protocol):
    made = job(*overrides)
    assert (made.choices["prior"], made.choices["protocol"]) == (prior, protocol)


def test_toy_protocol():
    made = job("method=sds")
    assert (made.steps, made.views_per_step, made.resolution, made.background) == (240, 1, 64, "random")
    assert made.cameras["distance"] == [2.5, 2.8]
    assert made.rig == {
        "n_views": 120,
        "elevation_deg": 15,
        "distance": 2.65,
        "fovy_deg": 42.5,
        "resolution": 128,
    }


@pytest.mark.parametrize("method", ["sds", "trace", "vsd"])
def test_paper_protocol_takes_each_methods_own_budget(method):
    made = job(f"method={method}", "prior=sd21")
    reference = made.method["reference"]
    assert (made.steps, made.views_per_step) == (reference["steps"], reference["views_per_step"])
    assert (made.resolution, made.background) == (512, "black")
    assert made.cameras == {"distance": [1.5, 4.0], "fovy_deg": [40.0, 70.0], "elevation_deg": [-10.0, 60.0]}
    assert (made.rig["n_views"], made.rig["elevation_deg"], made.rig["fovy_deg"]) == (120, 15.0, 70.0)


def test_what_the_toy_protocol_changes_in_a_method_stays_in_the_toy_protocol():
    assert job("method=sds").scale == toy_scale("sds") != 101
    assert job("method=trace_official").scale == job("method=trace").scale == toy_scale("trace")
    assert job("method=sds", "prior=sd21").scale == 101
    assert job("method=sds", "guidance_scale=3").scale == 3
    assert job("method=sds", "guidance_scale=null").scale == toy_scale("sds")
    toy, paper = job(), job("prior=sd21")
    assert toy.representation["lr"]["means"] > paper.representation["lr"]["means"]


# --- mistakes --------------------------------------------------------------------------------------------

MISTAKES = [
    (["sead=3"], "There is no setting 'sead'; did you mean seed?"),
    (["qqq=3"], "There is no setting 'qqq'."),
    (["+foo=1"], "There is no setting 'foo'."),
    (["method.guidance_scal=3"], "did you mean method.guidance_scale?"),
    (["method=tracee"], "There is no method 'tracee'; did you mean trace? There are: "),
    (["prior=sd12"], "There is no prior 'sd12'"),
    (["prompt_set=toys"], "did you mean toy?"),
    (["seed"], "'seed' cannot be read as key=value"),
    (["steps=many"], "steps must be an integer of at least 1, but is 'many'."),
    (["prompts_per_job=0"], "prompts_per_job must be"),
    (["prompt=99"], "There is no prompt 99 in prompt_set=toy, which has 8"),
    (["prompt_set=file"], "prompt_set.file has no value; add prompt_set.file="),
    (
        ["method.guidance_scale=null", "guidance_scale=3"],
        "has no guidance scale; leave out guidance_scale=3.",
    ),
    (["~rig.n_views"], "The setting rig.n_views is missing from the config."),
    (["method=external", "asset=x.ply"], "There is no setting 'asset'; did you mean method.asset?"),
    (["method=external"], "method.asset has no value; add method.asset=... to the command."),
    (["method=external", *EXTERNAL, "steps=5"], "method=external distils nothing; leave out steps=5."),
    (["method=external", *EXTERNAL], "There is no file x.ply; give method.asset the path of"),
    (["init=pointcloud", "init.path=x.ply"], "There is no file x.ply; give init.path the path of"),
    (["init=run", "init.folder=x"], "x is no run folder; give init.folder a folder with a manifest.json."),
    (["steps=${nowhere}"], "steps cannot be worked out"),
]


@pytest.mark.parametrize(("overrides", "says"), MISTAKES, ids=[" ".join(case[0]) for case in MISTAKES])
def test_a_mistake_is_one_sentence(overrides, says, model):
    multirun = MISTAKES.index((overrides, says)) % 2 == 1  # half of them in a sweep
    with pytest.raises(TraceBenchError) as refusal:
        make_plan([f"prior.repo={model}", *overrides], multirun)
    assert says in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_sweep_without_m_is_refused(model):
    with pytest.raises(TraceBenchError, match=r"method=sds,vsd asks for several runs; add -m"):
        make_plan([f"prior.repo={model}", "method=sds,vsd"], multirun=False)


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("steps", 0, "steps must be an integer of at least 1, but is 0."),
        ("steps", 1.5, "but is 1.5."),
        ("steps", None, "but is None."),
        ("steps", True, "but is True."),
        ("seed", -1, "seed must be an integer from 0 to"),
        ("resolution", 4, "resolution must be an integer from 8 to 8192"),
        ("views_per_step", 0, "views_per_step must be"),
        ("guidance_scale", -1, "guidance_scale must be a number of at least 0"),
        ("guidance_scale", float("inf"), "guidance_scale must be a number of at least 0"),
        ("guidance_scale", float("nan"), "guidance_scale must be a number of at least 0"),
        ("background", "blue", "background must be random, black or white, but is 'blue'."),
        ("device", "tpu", "device must be auto, cpu, cuda or cuda:N"),
        ("on_error", "ignore", "on_error must be continue or stop"),
        ("force", "maybe", "force must be true or false"),
        ("prompts_per_job", 0, "prompts_per_job must be"),
        ("output_root", None, "output_root must be the name of a folder"),
        ("checkpoint.every_steps", 0, "checkpoint.every_steps must be null or an integer of at least 1"),
        ("checkpoint.every_seconds", -1, "checkpoint.every_seconds must be null or a number"),
        ("cameras.distance", [4, 1], "cameras.distance must be [low, high]"),
        ("cameras.distance", [4], "cameras.distance must be [low, high]"),
        ("cameras.elevation_deg", [-100, 0], "cameras.elevation_deg must be"),
        ("rig.n_views", 0, "rig.n_views must be"),
        ("rig.fovy_deg", "wide", "rig.fovy_deg must be"),
    ],
)
def test_a_value_out_of_range_is_refused(key, value, says):
    with pytest.raises(TraceBenchError) as refusal:
        changed(base_job(), key, value)
    assert says in str(refusal.value)


def test_a_sweep_with_one_bad_value_is_refused_as_a_whole(model):
    for bad in ("method=sds,sdd", "steps=10,0", "prompt=0,50"):
        with pytest.raises(TraceBenchError):
            make_plan([f"prior.repo={model}", bad], multirun=True)


def test_every_rule_is_about_a_setting_that_exists():
    made = job()
    for key in RULES:
        head, _, tail = key.partition(".")
        assert tail in getattr(made, head) if tail else hasattr(made, head)


def test_a_setting_that_no_constructor_takes_is_named():
    made = job("method=sds", "+method.min_step_percnt=0.1")
    with pytest.raises(TraceBenchError, match=r"method\.min_step_percnt .* did you mean min_step_percent\?"):
        check_settings("method", made.method)


@pytest.mark.parametrize(
    ("target", "says"),
    [
        (None, "has no _target_"),
        ("trace_bench.methods.nowhere.Nothing", "cannot be imported"),
        ("trace_bench.methods.sds.Nothing", "cannot be imported"),
    ],
)
def test_a_target_that_is_not_there(target, says):
    with pytest.raises(TraceBenchError, match=says):
        build("method", {"_target_": target})


def test_bad_config_dir():
    with pytest.raises(TraceBenchError, match="--config-dir /nowhere is not a folder"):
        check_composes([], "/nowhere")


# --- sweeps ----------------------------------------------------------------------------------------------


def plan(model, *overrides, multirun=True):
    return make_plan([f"prior.repo={model}", *overrides], multirun)


def names(runs):
    return [(r.identity.method, int(r.identity.prompt_id), r.identity.guidance_scale) for r in runs]


def test_a_sweep_goes_through_the_whole_set_by_every_method(model):
    found = names(plan(model, "method=sds,vsd,trace"))
    assert found[:3] == [(name, 0, toy_scale(name)) for name in ("sds", "vsd", "trace")]
    assert len(set(found)) == 24


def test_without_m_there_is_one_run(model):
    assert names(plan(model, "method=sds", multirun=False)) == [("sds", 0, toy_scale("sds"))]


@pytest.mark.parametrize(
    ("prompt", "ids"),
    [
        ("prompt=3", [3]),
        ("prompt=0,3", [0, 3]),
        ("prompt=[0,3]", [0, 3]),
        ("prompt=0-2", [0, 1, 2]),
        ("prompt=0-1,4-5", [0, 1, 4, 5]),
        ("prompt=range(2,5)", [2, 3, 4]),
        ("prompt=a red cube,a duck", [0, 4]),
        ("prompt=choice(1,2)", [1, 2]),
    ],
)
def test_prompt_on_the_command_line_replaces_the_sets_sweep(model, prompt, ids):
    assert [i for _, i, _ in names(plan(model, "method=sds", prompt))] == ids


@pytest.mark.parametrize(("per_job", "jobs"), [(3, 3), (100, 1)])
def test_prompts_per_job(model, per_job, jobs):
    from trace_bench.planning import _expand

    overrides = [f"prior.repo={model}", "method=sds", f"prompts_per_job={per_job}"]
    assert len(_expand(overrides, True, [])) == jobs
    assert [i for _, i, _ in names(plan(model, "method=sds", f"prompts_per_job={per_job}"))] == list(range(8))


def test_gpteval3d_is_planned_as_110_prompts(monkeypatch, tmp_path):
    """The jobs are known from the YAML; only their texts need the file."""
    from trace_bench.planning import _expand

    found = _expand(["method=sds,trace", "prompt_set=gpteval3d", "prompts_per_job=10"], True, [])
    prompts = [item for items in found for item in items if item.startswith("prompt=")]
    assert prompts[:2] == ["prompt=0-9", "prompt=0-9"]
    assert prompts[-1] == "prompt=100-109"
    assert len(found) == 22


def test_two_prompt_sets_are_not_swept_with_the_prompts_of_one(model):
    with pytest.raises(TraceBenchError, match="one prompt set"):
        plan(model, "prompt_set=toy,paper")


def test_the_same_run_twice_is_one_run(model):
    assert len(plan(model, "guidance_scale=10,10.0", "prompt=0,a red cube")) == 1


@pytest.mark.parametrize(
    ("typed", "multirun", "texts"),
    [
        ("prompt=a red cube", False, ["a red cube"]),
        ("prompt=a crab, low poly", False, ["a crab, low poly"]),
        ("prompt='a crab, low poly'", False, ["a crab, low poly"]),
        ("prompt=a lion's mane", False, ["a lion's mane"]),
        ('prompt=a "big" (red) cube: {1}', False, ['a "big" (red) cube: {1}']),
        ("prompt=a lion's mane,a duck", True, ["a lion's mane", "a duck"]),
        ("prompt=a red cube,a duck", True, ["a red cube", "a duck"]),
        ("prompt='a crab, low poly',a duck", True, ["a crab, low poly", "a duck"]),
    ],
)
def test_prompts_as_people_type_them(model, typed, multirun, texts):
    overrides = readable_overrides([f"prior.repo={model}", "method=sds", typed], multirun)
    assert [run.prompt.text for run in make_plan(overrides, multirun)] == texts


# --- identity --------------------------------------------------------------------------------------------

SAME = {
    "output_root": "elsewhere",
    "force": True,
    "on_error": "stop",
    "device": "cpu",
    "prompts_per_job": 4,
    "log_every": 3,
    "checkpoint.every_steps": 5,
    "rig.n_views": 4,
    "guidance_scale": 10.0,
    "prior.compile": True,
    "method.citation": "x",
    "method.paper": None,
    "method.reference": None,
}
OTHER = {
    "guidance_scale": 10.5,
    "seed": 1,
    "steps": 301,
    "views_per_step": 2,
    "resolution": 32,
    "background": "white",
    "cameras.distance": [2.5, 2.9],
    "cameras.elevation_deg": [0, 60],
    "method._target_": "trace_bench.methods.sds.SDS",
    "method.lora_rank": 8,
    "method.negative_prompt": "ugly",
    "representation.opacity": 0.2,
    "init.n": 100,
    "prior.dtype": "bfloat16",
    "prior.resolution": 32,
}


def fingerprint(made):
    return RunSpec(made, *_first(made)).fingerprint


@pytest.mark.parametrize("key", SAME)
def test_what_does_not_change_the_asset_does_not_change_the_fingerprint(key, model):
    base = changed(base_job(), "prior.repo", str(model))
    assert fingerprint(changed(base, key, SAME[key])) == fingerprint(base)


def test_what_changes_the_asset_changes_the_fingerprint(model):
    base = changed(base_job(), "prior.repo", str(model))
    found = [fingerprint(changed(base, key, value)) for key, value in OTHER.items()]
    prompts = _first(base)[1]
    found += [RunSpec(base, prompt, prompts).fingerprint for prompt in prompts.select([1, "a red ball"])]
    assert len({fingerprint(base), *found}) == len(found) + 1


def test_a_composed_choice_has_the_fingerprint_of_what_it_chose(model):
    base = changed(base_job(), "prior.repo", str(model))
    same = plan(model, "method=trace", "guidance_scale=10", multirun=False)
    assert same[0].fingerprint == fingerprint(base)
    assert fingerprint(job("method=trace_official", f"prior.repo={model}")) != fingerprint(base)


def test_every_setting_of_a_run_was_thought_of():
    """A new run-level key has to be put on one of the two sides."""
    in_fingerprint = {
        "method", "representation", "prior", "init", "prompt", "guidance_scale", "seed", "steps",
        "views_per_step", "resolution", "background", "cameras", "snapshots",
    }  # fmt: skip
    left_out = {
        "choices", "prompt_set", "rig", "output_root", "device", "force", "on_error", "prompts_per_job",
        "log_every", "checkpoint", "budget", "detach",
    }  # fmt: skip
    assert {field.name for field in dataclasses.fields(Job)} == in_fingerprint | left_out


def test_a_model_folder_is_known_by_its_weights_not_by_its_place(model, tmp_path):
    first = fingerprint(changed(base_job(), "prior.repo", str(model)))
    moved = model.rename(tmp_path / "elsewhere")
    assert fingerprint(changed(base_job(), "prior.repo", str(moved))) == first
    (moved / "unet" / "model.safetensors").write_bytes(b"retrained")
    assert fingerprint(changed(base_job(), "prior.repo", str(moved))) != first


def test_a_hub_repository_needs_a_commit():
    with pytest.raises(TraceBenchError, match=r"needs a commit in prior\.revision"):
        prior_identity({"_target_": "x", "repo": "someone/model", "revision": None})
    assert prior_identity({"_target_": "x", "repo": "someone/model", "revision": "abc"})["revision"] == "abc"


def test_folder_name(model):
    (run,) = make_plan(
        [f"prior.repo={model}", "method=sds", "guidance_scale=12.0", "seed=3", "output_root=out"], False
    )
    assert str(run.folder).startswith("out/runs/sds/gaussians/toy/0-a-red-cube/cfg12-seed3-")
    assert run.folder.name.endswith(run.fingerprint[:8])
    (run,) = make_plan([f"prior.repo={model}", "guidance_scale=7.5", "prompt=" + "long " * 99], False)
    assert run.folder.name.startswith("cfg7.5-seed0-")
    assert max(len(part.encode()) for part in run.folder.parts) <= 200


def test_a_method_without_guidance_has_a_folder_too(model):
    (run,) = make_plan([f"prior.repo={model}", "method.guidance_scale=null"], False)
    assert run.folder.name.startswith("cfgnone-seed0-")
    assert run.identity.guidance_scale is None


def test_fingerprints_do_not_depend_on_the_process(model):
    """Sorted keys and plain numbers, so that another machine finds the same folder."""
    (run,) = make_plan([f"prior.repo={model}"], False)
    again = RunSpec(
        dataclasses.replace(run.job, method=dict(reversed(run.job.method.items()))), *_first(run.job)
    )
    assert again.fingerprint == run.fingerprint
    assert runs_of(run.job)[0].fingerprint == run.fingerprint
    assert json.loads(json.dumps(dataclasses.asdict(run.identity)))["prompt"] == "a red cube"
