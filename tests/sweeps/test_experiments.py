"""The sweeps of conf/experiment: planned runs for both budgets, on SD 2.1 and on the tiny prior."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from sd_checkpoint import make_checkpoint

from trace_bench.priors import flops
from trace_bench.run_folder.manifest import read_manifest
from trace_bench.sweeps import budget
from trace_bench.sweeps.planning import make_plan
from trace_bench.sweeps.sweep import main
from trace_bench.system.config_path import conf_dir
from trace_bench.system.errors import TraceBenchError
from trace_bench.toyworld.captions import HELD_OUT, parse

pytestmark = pytest.mark.slow

CONF = Path(conf_dir())
EVERY = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
# Not of the paper; tests/external/test_control_assets.py and tests/docs/test_leaderboard.py plan some.
OTHERS = ("controls", "convergence", "guidance", "leaderboard", "janus")
NAMES = [name for name in EVERY if not name.startswith(OTHERS)]
SIX, THREE = ("sds", "vsd", "csd", "sdi", "ism", "trace"), ("sds", "vsd", "trace")
NEW = ("consistent3d", "dreamer_xl", "trace")
# name: methods, representation, and the runs on the paper's prior and on the tiny one
EXPECTED = {
    "table4": (SIX, "gaussians", 6 * 110, 6 * 8),
    "table5": (NEW, "gaussians", 3 * 110, 3 * 8),
    "table6": (NEW, "gaussians", 3 * 110, 3 * 8),
    "table7": (THREE, "nerf", 3 * 110, 3 * 8),
    "table8": (THREE, "nerf", 3 * 110, 3 * 8),
    "user_study": (SIX, "gaussians", 6 * 50, 6 * 8),
    "cfg_ablation": (("trace",), "gaussians", 4 * 15, 4 * 15),
    "nerf_qualitative": (THREE, "nerf", 3, 3),
    "coco2d": (("sds", "csd", "vsd", "trace"), "image", 4 * 3, 4 * 8),
    "gradients": (("trace",), "gaussians", 4, 4),
    "diversity": (("trace",), "gaussians", 2 * 5, 2 * 5),
    "native3d": (("trace", "external"), "gaussians", 4 * 2, 3 * 2),
    "gaussiandreamer": (("gaussiandreamer", "trace"), "gaussians", 2 * 5, 2 * 5),
    "versus_vsd": (("vsd", "trace"), "gaussians", 2 * 5, 2 * 5),
    "versus_sdi": (("sdi", "trace"), "gaussians", 2 * 5, 2 * 5),
    "versus_csd": (("csd", "trace"), "gaussians", 2 * 4, 2 * 4),
    "versus_ism": (("ism", "trace"), "gaussians", 2 * 4, 2 * 4),
}
SPLATS = "ply\nformat ascii 1.0\ncomment {}\nelement vertex 0\nproperty float f_dc_0\nend_header\n"
COUNTED = flops.unit_tflop
# TFLOP an item on SD 2.1 at 512 pixels, as test_flops counts them
UNIT = {"unet_fwd": 0.804, "unet_bwd": 0.921, "vae_enc_fwd": 1.117, "vae_enc_bwd": 1.151, "vae_dec": 2.515}


@pytest.fixture(autouse=True, scope="module")
def _no_counting():
    """Counting takes seconds; test_flops checks the numbers."""
    import trace_bench.priors.latent_diffusion  # noqa: F401  it keeps the true function for its runs

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flops, "unit_tflop", lambda *asked: dict(UNIT))
        forget()
        yield
    forget()


def forget():
    """Clear results cached with other numbers."""
    budget.tflop_of_run.cache_clear()
    budget.unit_costs.cache_clear()


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Inputs of the paper prior's prompt sets: 110 prompts, three captions, DiffSplat's assets."""
    tmp_path = tmp_path_factory.mktemp("inputs")
    texts = json.dumps([f"a thing with the number {i}" for i in range(110)])
    (tmp_path / "prompts.json").write_text(texts)
    (tmp_path / "captions.txt").write_text("a dog\na cat\na kite\n")
    for model in ("sd15", "pixart", "sd35m"):
        folder = tmp_path / "native3d" / f"diffsplat_{model}"
        folder.mkdir(parents=True)
        for prompt in ("a-chipped-porcelain-teacup-with-a-saucer-featuri", "a-hotdog"):
            (folder / f"{prompt}.ply").write_text(SPLATS.format(f"{model} {prompt}"))
    sha256 = hashlib.sha256(texts.encode()).hexdigest()
    return tmp_path, {
        "gpteval3d": (f"prompt_set.folder={tmp_path}", f"prompt_set.sha256={sha256}"),
        "coco": ("prompt_set.file=captions.txt",),
    }


@pytest.fixture
def files(inputs, monkeypatch):
    """The overrides for them by prompt set; run in their folder, so that relative paths resolve."""
    monkeypatch.chdir(inputs[0])
    return inputs[1]


def planned(name, *overrides, files=None):
    """The runs of an experiment; `files` for prompt sets that read files."""
    source = {"table6": "table5", "table8": "table7"}.get(name, name)
    text = (CONF / "experiment" / f"{source}.yaml").read_text()
    more = [item for key, items in (files or {}).items() if f"prompt_set: {key}" in text for item in items]
    return plan_of(f"experiment={name}", *more, *overrides)


@functools.cache
def plan_of(*overrides):
    return make_plan(list(overrides), multirun=True)


def test_every_table_and_figure_has_its_sweep():
    assert sorted(EXPECTED) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_on_the_papers_prior(name, files):
    methods, representation, n, _ = EXPECTED[name]
    runs = planned(name, files=files)
    assert len(runs) == n
    assert {run.identity.method.split("-")[0] for run in runs} == set(methods)
    assert {run.identity.representation for run in runs} == {representation}
    assert {run.identity.protocol for run in runs} == {"paper"}
    assert {run.identity.prior for run in runs} <= {"sd21", "sdxl"}
    starts = {run.identity.init for run in runs if run.job.distils}
    assert starts == ({"shap_e"} if representation == "gaussians" else {"none"})


@pytest.mark.parametrize("name", NAMES)
def test_on_the_tiny_prior(name):
    methods, representation, _, n = EXPECTED[name]
    runs = planned(name, "prior=tiny")
    assert len(runs) == n
    assert {run.identity.method for run in runs} == set(methods) - {"external"}
    assert {run.identity.representation for run in runs} == {representation}
    assert {(run.identity.prior, run.identity.protocol) for run in runs} == {("tiny", "toy")}
    for run in runs:
        parse(run.prompt.text)  # the toy world has the words


@pytest.mark.parametrize("name", ["table4", "table7", "coco2d", "native3d", "diversity"])
def test_by_equal_work(name):
    check_equal_work(planned(name, "budget=equal_work", "prior=tiny"), EXPECTED[name][3])


@pytest.mark.parametrize("name", ["table4", "table5", "coco2d"])
def test_by_equal_work_on_the_papers_prior(name, files):
    check_equal_work(planned(name, "budget=equal_work", files=files), EXPECTED[name][2])


def check_equal_work(runs, n):
    assert len(runs) == n
    assert {run.job.budget["name"] for run in runs} == {"equal_work"}
    assert len({run.job.budget["tflop"] for run in runs}) == 1  # one target for all


def test_each_method_at_its_own_budget(files):
    runs = planned("table4", files=files)
    budgets = {run.identity.method: (run.job.steps, run.job.views_per_step) for run in runs}
    same = dict.fromkeys(("sds", "vsd", "csd", "sdi"), (1200, 4))
    assert budgets == same | {"ism": (5000, 4), "trace": (1700, 1)}
    nerf = {run.identity.method: run.job.steps for run in planned("table7", files=files)}
    assert nerf == {"sds": 10_000, "vsd": 25_000, "trace": 25_000}


def test_equal_work_is_equal_to_within_a_step(files):
    """Compared with the step cost in the docs: UNet items per view, plus the encoder."""
    items = {"sds": 2, "csd": 3, "vsd": 4, "sdi": 17.25, "ism": 4.55, "trace": 3.1}
    encoder = UNIT["vae_enc_fwd"] + UNIT["vae_enc_bwd"]
    target = 1700 * (3.1 * UNIT["unet_fwd"] + UNIT["unet_bwd"] + encoder)
    runs = {run.identity.method: run for run in planned("table4", "budget=equal_work", files=files)}
    for name, run in runs.items():
        views = run.job.views_per_step
        backward = UNIT["unet_bwd"] if name in ("vsd", "trace") else 0.0
        step = views * (items[name] * UNIT["unet_fwd"] + backward + encoder)
        assert run.job.budget["tflop"] == pytest.approx(target, rel=0.005)
        assert run.job.steps * step == pytest.approx(target, rel=0.02)
        assert views == run.job.budget["own"]["views_per_step"]
    assert runs["trace"].job.steps == 1700


def test_equal_work_is_equal_for_other_views_too():
    runs = plan_of("method=sds", "prompt=0", "budget=equal_work", "views_per_step=1,2,4")
    assert [run.job.views_per_step for run in runs] == [1, 2, 4]
    items = [run.job.steps * run.job.views_per_step for run in runs]
    assert items == pytest.approx([items[0]] * 3, abs=4)
    assert len({run.job.budget["tflop"] for run in runs}) == 1


def test_equal_work_follows_what_the_canvas_needs_and_whom_it_is_measured_by():
    """A latent canvas is never encoded; against=sds leaves SDS its own steps."""
    two = ["method=sds,trace", "prompt=0", "prior=tiny"]
    flat = {run.identity.method: run.job.steps for run in planned("coco2d", *two, "budget=equal_work")}
    assert flat["sds"] == pytest.approx(flat["trace"] * (3.1 * 0.804 + 0.921) / (2 * 0.804), rel=0.01)
    by_sds = [*two, "budget=equal_work", "method@budget.against=sds"]
    assert {run.identity.method: run.job.steps for run in planned("coco2d", *by_sds)}["sds"] == flat["trace"]


def test_the_seed_does_not_change_how_long_a_run_is():
    runs = planned("diversity", "budget=equal_work", "prior=tiny", "method=ism")
    assert len(runs) == 10
    assert len({run.job.steps for run in runs}) == 1


def test_dreamer_xl_has_its_own_prior_and_the_others_target(files):
    runs = planned("table5", "budget=equal_work", files=files)
    priors = {run.identity.method: (run.identity.prior, run.job.resolution) for run in runs}
    assert priors == {"consistent3d": ("sd21", 1024), "dreamer_xl": ("sdxl", 1024), "trace": ("sd21", 1024)}
    assert {run.identity.prior for run in planned("table5", "prior=tiny")} == {"tiny"}


def test_the_command_line_wins():
    found = planned(
        "cfg_ablation", "prior=tiny", "method=sds", "guidance_scale=3", "prompt=0,5", "steps=7", "seed=2"
    )
    assert [(r.identity.method, r.identity.guidance_scale, r.job.steps, r.job.seed) for r in found] == [
        ("sds", 3, 7, 2)
    ] * 2
    assert [run.prompt.prompt_id for run in found] == ["0", "5"]
    (single,) = make_plan(["experiment=cfg_ablation", "prior=tiny", "prompt=9"], multirun=False)
    assert single.prompt.text == "a red heart"


@pytest.mark.parametrize(
    ("override", "contestant", "key"),
    [
        ("steps=40", "toy_native", "steps"),
        ("++representation.opacity=0.1", "toy_native", "representation.opacity"),
        ("init=random", "toy_native", "init"),
        ("method=sds", "toy_native", "method"),
    ],
)
def test_what_a_contestant_sets_itself_stays(override, contestant, key):
    """The native guess alone would become a TraCe run of 40 steps."""
    with pytest.raises(TraceBenchError) as refusal:
        planned("native3d", "prior=tiny", override)
    assert str(refusal.value) == (
        f"contestant={contestant} sets {key} itself; leave out {override}, or this contestant."
    )


def test_what_a_contestant_leaves_open_can_be_set():
    two = "contestant=trace_from_native,trace"
    assert {run.job.steps for run in planned("native3d", "prior=tiny", two, "steps=40")} == {40}
    same = planned("native3d", "prior=tiny", "contestant=toy_native", "steps=1", "method=trace", "init.n=50")
    assert {run.job.steps for run in same} == {1}
    assert {run.identity.prior for run in planned("table5", "prior=tiny", "steps=9")} == {"tiny"}


def test_runs_of_one_table_serve_another(files):
    """Tables 4 to 6 and the user study share their TraCe runs, and the toy tables those of the toy set."""
    folders = [
        {run.folder for run in planned(name, files=files)} for name in ("table4", "table5", "user_study")
    ]
    assert len(folders[0] & folders[1]) == 110
    assert folders[2] < folders[0]
    toy = {run.folder for run in plan_of("method=trace", "prompt_set=toy")}
    assert toy < {run.folder for run in planned("table4", "prior=tiny")}


def test_every_prompt_of_the_paper_has_a_stand_in():
    theirs = OmegaConf.load(CONF / "prompt_set" / "paper.yaml").prompt_set
    ours = OmegaConf.load(CONF / "protocol" / "prompt_set" / "toy" / "paper.yaml").prompt_set
    assert len(theirs.prompts) == len(ours.prompts) == theirs.count == ours.count
    assert not set(ours.prompts) & HELD_OUT
    assert Counter(parse(text)[0].text for text in ours.prompts) == Counter(ours.prompts)


def test_guidance_is_dense_where_the_paper_finds_the_plateau():
    scales = sorted({run.identity.guidance_scale for run in planned("cfg_ablation", "prior=tiny")})
    assert (scales[0], scales[-1]) == (5, 100)
    within = [scale for scale in scales if 10 <= scale <= 30]
    assert max(b - a for a, b in pairwise(within)) <= 2.5
    assert (within[0], within[-1]) == (10, 30)


def test_guidance_varies_for_every_method_that_has_a_scale():
    board = plan_of("experiment=leaderboard", "prompt=0", "seed=0")
    methods = {run.identity.method for run in board if run.identity.guidance_scale is not None}
    runs = plan_of("experiment=guidance")
    scales = {(run.identity.method, run.prompt): 0 for run in runs}
    for run in runs:
        scales[run.identity.method, run.prompt] += 1
    assert {method for method, _ in scales} == methods
    assert (set(scales.values()), len(scales)) == ({6}, 4 * len(methods))


def test_perp_neg_is_compared_for_every_method_that_has_it():
    """And the numbers of runs that the YAMLs name are right."""
    plain, more = plan_of("experiment=janus"), plan_of("experiment=janus_perp_neg")
    methods = {run.identity.method for run in plain}
    have = {path.stem for path in (CONF / "method").glob("*.yaml") if "perp_neg:" in path.read_text("utf-8")}
    assert {run.identity.method for run in more} == have
    assert have <= methods
    for name, runs in (("janus", plain), ("janus_perp_neg", more)):
        assert f"# {len(runs)} runs;" in (CONF / "experiment" / f"{name}.yaml").read_text("utf-8")


def test_help_lists_them(capsys):
    with pytest.raises(SystemExit) as left:
        main(["--help"])
    assert left.value.code == 0
    assert f" experiment {', '.join(EVERY)}" in re.sub(r"\s+", " ", capsys.readouterr().out)


def test_a_prior_whose_price_is_unknown_is_named():
    with pytest.raises(TraceBenchError, match="cannot be computed in advance; use budget=own"):
        budget.unit_costs(json.dumps({"_target_": "mine.Prior", "resolution": 64}))


# --- counted ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["sds", pytest.param("ism", marks=pytest.mark.slow)])
def test_what_is_planned_is_what_is_counted(method, tmp_path, monkeypatch):
    """A run with as much work as six steps of TraCe: its networks count the TFLOP of the plan."""
    monkeypatch.setattr(flops, "unit_tflop", COUNTED)
    forget()
    base, v = make_checkpoint(tmp_path / "base"), make_checkpoint(tmp_path / "v", "v_prediction", seed=1)
    overrides = [
        f"method={method}", "prior=sd21", f"prior.repo={base}", f"prior.adapter_repo={v}",
        "prior.revision=null", "prior.adapter_revision=null", "prior.resolution=16", "prior.dtype=float32",
        "prior.compile=false", "protocol=toy", "budget=equal_work", "budget.own.steps=6", "init.n=60",
        "resolution=24", "rig.n_views=8", "rig.resolution=16", "prompt=a toy", "device=cpu",
        f"output_root={tmp_path / 'out'}",
    ]  # fmt: skip
    (run,) = make_plan(overrides, multirun=False)
    assert main(overrides) == 0
    manifest = read_manifest(run.folder)
    assert manifest.budget["name"] == "equal_work"
    assert manifest.budget["against"] == "TraCe"
    assert manifest.budget["own"]["steps"] == 6
    assert manifest.run.steps == run.job.steps
    setting = budget.setting_of(OmegaConf.create({**vars(run.job)}), run.job.views_per_step)
    assert manifest.cost["tflop"] == pytest.approx(budget.tflop_of_run(setting, run.job.steps), rel=1e-9)
    assert manifest.cost["tflop"] == pytest.approx(
        manifest.budget["tflop"], rel=0.2
    )  # a step is a sixth of it


def test_an_experiment_runs(tmp_path, capsys):
    """Figure 4 in three steps: the runs are done and have their snapshots."""
    command = ["-m", "experiment=gradients", "prior=tiny", "prompt=2,10", "steps=3", "snapshots.steps=[0,2]"]
    rest = ["init.n=100", "rig.n_views=8", "rig.resolution=16", "device=cpu", f"output_root={tmp_path}"]
    assert main([*command, *rest]) == 0
    folders = sorted(
        path.parent for path in tmp_path.glob("runs/trace/gaussians/paper_toy/*/*/manifest.json")
    )
    assert len(folders) == 2
    for folder in folders:
        manifest = read_manifest(folder)
        assert manifest.status == "done"
        assert [name for name in manifest.files if name.startswith("snapshots/")] == [
            "snapshots/00000.npz",
            "snapshots/00002.npz",
        ]
