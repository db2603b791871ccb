"""A mistake in a command is one sentence."""

from __future__ import annotations

import pytest
from composed import EXTERNAL, base_job, changed, job

from trace_bench.settings.composing import compose_config
from trace_bench.settings.config import RULES, build, check_init, check_settings
from trace_bench.sweeps.planning import make_plan
from trace_bench.system.errors import TraceBenchError

MISTAKES = [
    (["sead=3"], "There is no setting 'sead'; did you mean seed?"),
    (["qqq=3"], "There is no setting 'qqq'."),
    (["+foo=1"], "There is no setting 'foo'."),
    (["method.guidance_scal=3"], "did you mean method.guidance_scale?"),
    (["method=sds", "method.foo=3"], "There is no setting 'method.foo'; method=sds takes guidance_scale, "),
    (["method.grad_frm=3"], "did you mean method.grad_form?"),
    (["method.flip_probabilty=1"], "did you mean +method.flip_probability?"),
    (
        ["method.flip_probability=1"],
        "method.flip_probability is not in the YAML of method=trace; write +method.flip_probability=... to",
    ),
    (["representation.lr.meanz=1"], "did you mean representation.lr.means?"),
    (["rig.foo=3"], "There is no setting 'rig.foo'."),
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
    (
        ["budget=equal_work", "steps=9"],
        "budget=equal_work computes the steps; leave out steps=9, or use budget=own.",
    ),
    (["budget=equal_work", "views_per_step=0"], "views_per_step must be an integer of at least 1, but is 0."),
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
        ("Nothing", "cannot be imported: write it as module.Class."),
        (
            "nowhere.Nothing",
            "cannot be imported: there is no module 'nowhere' in this folder or on PYTHONPATH.",
        ),
        ("trace_bench.methods.nowhere.Nothing", "there is no module 'trace_bench.methods.nowhere' in this"),
        ("trace_bench.methods.sds.Nothing", "the module 'trace_bench.methods.sds' has no 'Nothing'."),
        ("needs_more.Mine", "it needs the module 'not_there', which is not installed."),
        ("broken_file.Mine", "cannot be imported: SyntaxError: "),
        ("no_cost.Mine", "no_cost.Mine does not define cost and step, which Method requires."),
    ],
)
def test_a_target_that_is_not_there(target, says, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "needs_more.py").write_text("import not_there\n")
    (tmp_path / "broken_file.py").write_text("class Mine(\n")
    (tmp_path / "no_cost.py").write_text(
        "from trace_bench.methods.base import Method\nclass Mine(Method):\n    pass\n"
    )
    with pytest.raises(TraceBenchError) as refusal:
        build("method", {"_target_": target})
    assert says in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("yaml", "says"),
    [
        ("guidance_scale: 5", "method/mine.yaml has no reference.steps; give the method's own number of"),
        ("{guidance_scale: 5, reference: {steps: 9}}", "method/mine.yaml has no reference.views_per_step;"),
        ("reference: {steps: 9, views_per_step: 1}", "method/mine.yaml has no guidance_scale; give the"),
    ],
)
@pytest.mark.parametrize("prior", ["tiny", "sd21"])
def test_what_a_method_s_yaml_must_say(yaml, says, prior, tmp_path):
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "mine.yaml").write_text(yaml)
    with pytest.raises(TraceBenchError) as refusal:
        make_plan(["method=mine", f"prior={prior}"], False, str(tmp_path))
    assert str(tmp_path / says) in str(refusal.value)


@pytest.mark.parametrize("overrides", [["prior=sd21"], ["init=none"], ["contestant=toy_native"]])
def test_a_representation_without_points_implies_init_none(overrides):
    """Whatever init the protocol or a contestant would choose."""
    (run,) = make_plan(["representation=image", *overrides], multirun=False)
    assert run.job.choices["init"] == run.identity.init == "none"
    assert run.job.init == {"_target_": "trace_bench.inits.none.NoInit"}


def test_an_init_that_the_command_names_is_refused_not_replaced():
    (run,) = make_plan(["representation=image", "init=sphere"], multirun=False)
    with pytest.raises(
        TraceBenchError, match=r"^representation=image takes no initial points; use init=none\.$"
    ):
        check_init(run.job)


def test_bad_config_dir():
    with pytest.raises(TraceBenchError, match="--config-dir /nowhere is not a folder"):
        compose_config([], "/nowhere")
