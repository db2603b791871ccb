"""A mistake in a command is one sentence."""

from __future__ import annotations

import pytest
from composed import EXTERNAL, base_job, changed, job

from trace_bench.settings.config import RULES, build, check_settings
from trace_bench.sweeps.planning import check_composes, make_plan
from trace_bench.system.errors import TraceBenchError

MISTAKES = [
    (["sead=3"], "There is no setting 'sead'; did you mean seed?"),
    (["qqq=3"], "There is no setting 'qqq'."),
    (["+foo=1"], "There is no setting 'foo'."),
    (["method.guidance_scal=3"], "did you mean method.guidance_scale?"),
    (["method=tracee"], "There is no method 'tracee'; did you mean trace? Options: "),
    (["prior=sd12"], "There is no prior 'sd12'"),
    (["prompt_set=toys"], "did you mean toy?"),
    (["hydra/launcher=slrm"], "There is no hydra/launcher 'slrm'; did you mean slurm? Options: "),
    (["protocol=tooy"], "There is no protocol 'tooy'; did you mean toy? Options: paper, toy."),
    (["protocol=toy/sds"], "There is no protocol 'toy/sds'; did you mean toy? Options: paper, toy."),
    (["protocol=method/toy/sds"], "There is no protocol 'method/toy/sds'. Options: paper, toy."),
    (["protocol/method=toy/trce"], "There is no protocol/method 'toy/trce'; did you mean toy/trace?"),
    (["experiment=null", "guidance_scale=null"], "experiment=null chooses nothing; leave it out."),
    (["seed"], "'seed' is not key=value"),
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
    (["method=external", *EXTERNAL], "x.ply does not exist; set method.asset to"),
    (["init=pointcloud", "init.path=x.ply"], "The file x.ply does not exist; set init.path to the path of"),
    (
        ["init=run", "init.folder=x"],
        "x is not a run folder; set init.folder to a folder with a manifest.json.",
    ),
    (["steps=${nowhere}"], "steps could not be resolved"),
]


@pytest.mark.parametrize(("overrides", "says"), MISTAKES, ids=[" ".join(case[0]) for case in MISTAKES])
def test_a_mistake_is_one_sentence(overrides, says, model):
    multirun = MISTAKES.index((overrides, says)) % 2 == 1  # half of them in a sweep
    with pytest.raises(TraceBenchError) as refusal:
        make_plan([f"prior.repo={model}", *overrides], multirun)
    assert says in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_sweep_without_m_is_refused(model):
    with pytest.raises(TraceBenchError, match=r"method=sds,vsd sets several values; add -m"):
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
