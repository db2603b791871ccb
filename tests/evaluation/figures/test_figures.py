"""Figures: what is drawn from which runs, and the messages if there is nothing to draw."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from judgement_files import elo_file, preferences
from PIL import Image
from run_folders import draw, given, write_run, write_score

from evaluation.figures import cfg_ablation, convergence, diversity, elo, guidance, preference, qualitative
from evaluation.figures.base import Data
from evaluation.figures.gradients import change
from evaluation.figures.pictures import pick_runs
from evaluation.figures.style import spread
from evaluation.metrics.base import Quantity, score_run
from evaluation.metrics.clip_score import ClipScore
from evaluation.metrics.ground_truth import GroundTruth
from evaluation.results.collect import collect
from evaluation.results.names import display_names
from evaluation.results.pareto import on_front
from trace_bench.run_folder.manifest import read_manifest, write_manifest
from trace_bench.run_folder.reading import Run

SCALES = (5.0, 10.0, 20.0, 50.0, 100.0)
CLIP = "metric=[clip_score,ground_truth]"


@pytest.fixture
def root(tmp_path):
    return tmp_path / "outputs"


@pytest.fixture
def clip(monkeypatch) -> ClipScore:
    """A metric whose weights are hashed but never loaded."""
    monkeypatch.setattr(ClipScore, "weights", lambda self, run: "w")
    return ClipScore({"tiny": {"model": "own"}}, {"tiny": "tiny"})


@pytest.fixture
def data(root):
    """The figure's input: the current frame."""
    return lambda: Data(collect(root, {}), {}, {"method": {"trace": "TraCe"}}, [], root)


def sweep(root, clip, method="trace", seeds=2, **identity) -> None:
    for prompt in range(5):
        for k, scale in enumerate(SCALES[: 4 if prompt == 4 else 5]):
            for seed in range(seeds):
                folder = write_run(
                    root, method=method, prompt_id=str(prompt), prompt=f"prompt {prompt}",
                    guidance_scale=scale, seed=seed, **identity,
                )  # fmt: skip
                write_score(folder, clip, clip_score=20.0 + prompt - abs(k - 2) + 0.5 * seed)


@pytest.mark.slow
def test_the_guidance_figure_is_drawn_from_the_sweep_alone(root, clip, command):
    sweep(root, clip)
    write_score(write_run(root, method="trace", steps=7, guidance_scale=33.0), clip, clip_score=99.0)
    write_score(write_run(root, method="sds", guidance_scale=33.0), clip, clip_score=99.0)
    code, out, _ = command("figures.__main__", "figure=cfg_ablation", CLIP)
    assert code == 0
    files = {path.name for path in (root / "figures").iterdir()}
    assert files == {"cfg_ablation.pdf", "cfg_ablation.png", "cfg_ablation.csv", "cfg_ablation.txt"}
    numbers = pd.read_csv(root / "figures" / "cfg_ablation.csv")
    assert len(numbers) == 48
    assert set(numbers["guidance_scale"]) == set(SCALES)
    assert numbers["clip_score"].max() < 99
    assert "means over 2 seeds, bands ± their standard deviation" in out
    with Image.open(root / "figures" / "cfg_ablation.png") as image:
        assert image.width > 1000
        assert np.asarray(image.convert("L")).std() > 5


@pytest.mark.slow
def test_the_same_runs_give_the_same_bytes(root, clip, command):
    sweep(root, clip, seeds=1)
    made = []
    for _ in range(2):
        assert command("figures.__main__", "figure=cfg_ablation", CLIP)[0] == 0
        made.append([(root / "figures" / f"cfg_ablation.{kind}").read_bytes() for kind in ("pdf", "png")])
    assert made[0] == made[1]


def test_the_ring_is_at_the_best_value_and_prompts_may_be_more_than_colours(root):
    """ΔE is better if it is lower."""
    truth = GroundTruth()
    for prompt in range(9):
        for scale, error in ((5.0, 30.0), (10.0, 10.0), (20.0, 20.0)):
            folder = write_run(root, method="trace", prompt_id=str(prompt), prompt=f"prompt {prompt}",
                               guidance_scale=scale)  # fmt: skip
            write_score(folder, truth, colour_error=error)
    metrics = {"ground_truth": truth}
    data = Data(collect(root, metrics), metrics, display_names(), [], root)
    drawing = cfg_ablation.draw(data, quantity="colour_error", prompts=9)
    rings = [line for line in drawing.figure.axes[0].lines if line.get_markersize() == 6]
    assert {float(ring.get_xdata()[0]) for ring in rings} == {10.0}
    assert len(rings) == 9


def test_prompts_without_a_common_scale_have_no_mean(root):
    truth = GroundTruth()
    for prompt, scales in enumerate(((5.0, 7.5, 10.0), (20.0, 50.0, 100.0))):
        for scale in scales:
            folder = write_run(root, method="trace", prompt_id=str(prompt), prompt=f"prompt {prompt}",
                               guidance_scale=scale)  # fmt: skip
            write_score(folder, truth, match=0.5)
    metrics = {"ground_truth": truth}
    drawing = guidance.draw(
        Data(collect(root, metrics), metrics, display_names(), [], root), quantity="match"
    )
    assert len(drawing.figure.axes[0].lines) == 2, "the prompts alone"


def test_a_line_over_steps_ends_at_its_own_run(root):
    """And not at the mean with a run of another learning rate."""
    truth = GroundTruth()
    for lr, end in ((1, 0.6), (9, 0.1)):
        folder = write_run(root, method="sds", variant=str(lr))
        (folder / "config.yaml").write_text(f"method: {{lr: {lr}}}\n")
        write_score(folder, truth, match=end)
        if lr == 9:
            continue
        manifest = read_manifest(folder)
        names = [f"renders_at/{n:05d}/step.json" for n in (100, 200)]
        write_manifest(folder, replace(manifest, files=[*manifest.files, *names]))
        for n, step in Run(folder, read_manifest(folder)).steps_rendered.items():
            step.folder.mkdir(parents=True)
            (step.folder / "step.json").write_text(json.dumps({"step": n, "cost": {}, "tflop": None}))
            score_run(given(truth, match=0.3 + n / 1000), step)
    metrics = {"ground_truth": truth}
    drawing = convergence.draw(
        Data(collect(root, metrics), metrics, display_names(), [], root), quantity="match"
    )
    assert drawing.numbers.sort_values("done_steps")["match"].tolist() == [0.4, 0.5, 0.6]


def test_a_contestant_that_never_lost_is_shown_by_its_bound(root):
    path = elo_file(root, [("sds", "plausibility", 1000, 5), ("vsd", "plausibility", 1400, 5)])
    content = json.loads(path.read_text())
    row = content["tournaments"][0]["rows"][1]
    row["ci_low"], row["ci_high"] = 1210.0, None
    path.write_text(json.dumps(content))
    drawing = elo.draw(Data(collect(root, {}), {}, display_names(), [], root))
    points = {line.get_marker(): float(line.get_xdata()[0]) for line in drawing.figure.axes[0].lines}
    assert points[">"] == 1210.0
    assert 1400.0 not in points.values()
    assert "An arrow is the bound" in drawing.caption


@pytest.mark.parametrize(
    ("paper", "says"), [(False, "SDI preferred"), (True, "SDI (paper: TraCe) preferred")]
)
def test_the_legend_names_the_method_of_the_study(root, paper, says):
    preferences(root)
    path = root / "user_study" / "s1" / "preferences.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"ours": "sdi"}))
    drawing = preference.draw(Data(collect(root, {}), {}, display_names(), [], root), paper=paper)
    assert says in [text.get_text() for text in drawing.figure.legends[0].get_texts()]


@pytest.mark.slow
def test_any_method_and_number(root, clip, command):
    sweep(root, clip, method="vsd", seeds=1)
    ask = ("figures.__main__", "figure=cfg_ablation", CLIP)
    code, out, _ = command(*ask)
    assert code == 1
    assert "No TraCe runs with 3 or more guidance scales" in out
    assert "experiment=cfg_ablation" in out
    assert command(*ask, "figures.cfg_ablation.method=vsd")[0] == 0
    assert command(*ask, "figures.cfg_ablation.method=vsd", "figures.cfg_ablation.scale=linear")[0] == 0
    assert "is not a quantity" in command(*ask, "figures.cfg_ablation.quantity=beauty")[1]
    code, _, err = command(*ask, "+figures.cfg_ablation.colour=red")
    assert code == 2
    assert "has an invalid setting" in err


def test_quality_against_cost(root, command):
    for method, iou, unet in (("sds", 0.5, 1), ("vsd", 0.9, 3), ("trace", 0.4, 2)):
        folder = write_run(root, method=method, unet=(unet, 0))
        write_score(
            folder, GroundTruth(), match=iou, soft_iou=iou, colour_error=1.0, depth_error=1.0, chamfer=1.0
        )
    code, _, _ = command("figures.__main__", "figure=pareto", CLIP, "figures.pareto.cost=unet_items")
    assert code == 0
    numbers = pd.read_csv(root / "figures" / "pareto.csv").set_index("method")
    assert numbers["front"].to_dict() == {"SDS": True, "VSD": True, "TraCe": False}


@pytest.mark.slow
def test_quality_against_cost_compares_one_representation(root, command):
    """That with the most runs, or the one that is asked for: a picture is no 3D asset."""
    shown = [
        ("sds", "gaussians"),
        ("vsd", "gaussians"),
        ("trace", "gaussians"),
        ("sds", "image"),
        ("ism", "image"),
    ]
    for method, representation in shown:
        folder = write_run(root, method=method, representation=representation)
        write_score(
            folder, GroundTruth(), match=0.5, soft_iou=0.5, colour_error=1.0, depth_error=1.0, chamfer=1.0
        )
    for override, methods in (([], 3), (["figures.pareto.representation=image"], 2)):
        assert command("figures.__main__", "figure=pareto", CLIP, *override)[0] == 0
        assert pd.read_csv(root / "figures" / "pareto.csv")["method"].nunique() == methods
    _, out, _ = command("figures.__main__", "figure=pareto", CLIP, "figures.pareto.representation=mesh")
    assert "representation=mesh has no runs: use gaussians or image." in out


def test_the_front_by_hand():
    higher, lower = (Quantity("q", "Q", "", better) for better in (True, False))
    assert on_front([1, 2, 3, 3], [1, 3, 3, 3], higher) == [True, False, True, True]
    assert on_front([1, 2], [1, 2], lower) == [True, False]
    assert on_front([1, float("nan"), 2], [1, 0, float("nan")], higher) == [True, False, False]


def test_renders_of_methods_side_by_side(root, command):
    for method in ("gaussiandreamer", "trace"):
        draw(write_run(root, method=method, prompt="a duck"), "a duck", views=4, resolution=32)
    code, out, _ = command("figures.__main__", "figure=[gaussiandreamer,diversity,native3d,coco2d]", CLIP)
    assert code == 0  # something was drawn; the output says what is missing
    assert (root / "figures" / "gaussiandreamer.png").exists()
    assert "No prompt has several seeds" in out
    assert "method=external" in out
    assert "experiment=coco2d" in out


def test_native_guesses_have_a_column_each(root, data):
    for prompt_id in ("10", "17"):
        for init, steps in (("toy_coarse", 1), ("toy_coarse", 240), ("random", 240)):
            write_run(root, method="trace", init=init, steps=steps, prompt_id=prompt_id)
    for scale in (5.0, 20.0):  # of another experiment, on fewer prompts
        write_run(root, method="trace", init="random", steps=240, prompt_id="17", guidance_scale=scale)
    columns = qualitative.columns(data().runs, "trace", ["steps", "init"], ["10", "17"])
    assert [column.detail for column in columns] == [
        "steps 1, from toy_coarse", "steps 240, from random", "steps 240, from toy_coarse",
    ]  # fmt: skip
    assert [sorted(column.runs["prompt_id"]) for column in columns] == [["10", "17"]] * 3
    assert {len(column.runs["guidance_scale"].unique()) for column in columns} == {1}


def test_settings_with_as_many_prompts_have_a_column_each(root, data):
    """Also within one value of `split`, named by what differs; none is dropped."""
    for name in ("opacity=0.1", "opacity=0.95"):
        folder = write_run(root, method="trace", init="toy_coarse", variant=name)
        key, value = name.split("=")
        (folder / "config.yaml").write_text(f"representation: {{{key}: {value}}}\n")
    for scale in (5.0, 20.0):
        write_run(root, method="trace", guidance_scale=scale)
    found = qualitative.columns(data().runs, "trace", ["init"], ["0"])
    assert [column.detail for column in found] == [
        "from random, guidance 5", "from random, guidance 20",
        "from toy_coarse, representation.opacity=0.1", "from toy_coarse, representation.opacity=0.95",
    ]  # fmt: skip
    assert [len(column.runs) for column in found] == [1] * 4


def test_the_settings_that_a_figure_leaves_out_are_counted(root, data):
    for prompt_id in ("0", "1"):
        folder = write_run(root, method="trace", prompt_id=prompt_id)
        draw(folder, "a duck", views=4, resolution=32)
    for scale in (5.0, 20.0):
        write_run(root, method="trace", guidance_scale=scale)
    drawing = qualitative.draw(data(), "coco2d", ["trace"])
    assert drawing.notes == ["TraCe: 2 other settings with fewer prompts, not shown."]


def test_seeds_of_one_setting_only(root, data):
    """Another representation or resolution is another setting, whose seeds are not mixed in."""
    for seed in range(3):
        draw(write_run(root, method="trace", seed=seed), "a duck", views=4, resolution=32)
    write_run(root, method="trace", seed=0, representation="nerf")
    write_run(root, method="trace", seed=4, resolution=128)
    assert diversity.draw(data()).notes == ["2 other settings of the method not shown."]


def test_methods_with_one_display_name_are_told_apart(root, data):
    draw(write_run(root, method="trace"), "a duck", views=4, resolution=32)
    folder = write_run(root, method="external-trace", representation="mesh")
    draw(folder, "a duck", views=4, resolution=32)
    manifest = read_manifest(folder)
    manifest.declared = {"name": "TraCe", "source": "another one", "minutes": 1.0}
    write_manifest(folder, manifest)
    names = display_names(data().runs)["method"]
    assert (names["trace"], names["external-trace"]) == ("TraCe (trace)", "TraCe (external-trace)")
    assert names["sds"] == "SDS"


def test_the_prompt_set_of_the_native_guesses_is_chosen(root, data):
    """Another set with more runs, but without the settings that the figure compares, is not."""
    write_run(root, method="trace", prompt_set="paper_toy", init="toy_coarse", steps=1)
    write_run(root, method="trace", prompt_set="paper_toy", init="toy_coarse")
    write_run(root, method="trace", prompt_set="paper_toy")
    for i, method in enumerate(("trace", "sds", "vsd", "ism", "csd")):
        write_run(root, method=method, prompt_set="toy", prompt_id=str(i))
    runs = pick_runs(data(), "native3d", None, "gaussians", split=["steps", "init"])
    assert set(runs["prompt_set"]) == {"paper_toy"}
    assert set(pick_runs(data(), "coco2d", None, "gaussians")["prompt_set"]) == {"toy"}


def test_the_native_figure_of_the_toy_world(root, command):
    for init, steps in (("toy_coarse", 1), ("random", 240)):
        folder = write_run(root, method="trace", init=init, steps=steps, prompt="a duck")
        draw(folder, "a duck", views=4, resolution=32)
    assert command("figures.__main__", "figure=native3d", CLIP)[0] == 0
    assert (root / "figures" / "native3d.png").exists()


def test_seeds_side_by_side(root, command):
    for seed in range(3):
        draw(write_run(root, method="trace", prompt="a duck", seed=seed), "a duck", views=4, resolution=32)
    assert command("figures.__main__", "figure=diversity", CLIP)[0] == 0
    assert (root / "figures" / "diversity.pdf").read_bytes().startswith(b"%PDF")


def test_gradients_of_snapshots(root, command):
    """Also where the asset was made without snapshots too, which is the run that counts."""
    write_run(root, method="trace", steps=100)
    folder = write_run(root, method="trace", steps=100, snapshots=(0, 20, 90))
    (folder / "snapshots").mkdir()
    rng = np.random.default_rng(0)
    for step in (0, 20, 90):
        np.savez(
            folder / "snapshots" / f"{step:05d}.npz",
            rgb=np.zeros((1, 8, 8, 3), np.uint8), target=np.full((1, 8, 8, 3), 200, np.uint8),
            gradient=rng.normal(size=(1, 8, 8, 3)), gradient_sds=rng.normal(size=(1, 8, 8, 3)),
        )  # fmt: skip
    assert command("figures.__main__", "figure=gradients", CLIP)[0] == 0
    assert (root / "figures" / "gradients.png").exists()
    (folder / "snapshots" / "00020.npz").write_bytes(b"no archive")
    code, _, err = command("figures.__main__", "figure=gradients", CLIP)
    assert code == 2
    assert "00020.npz cannot be read" in err


def test_a_gradient_is_shown_as_the_change_it_asks_for():
    picture = change(np.array([[[1.0, 0.0, -1.0]]]))
    assert picture.tolist() == [[[0, 128, 255]]]
    assert change(np.zeros((2, 2, 3))).tolist() == [[[128] * 3] * 2] * 2


def test_labels_are_moved_apart_and_no_further():
    assert spread([0.0, 10.0], [2.0, 2.0]) == [0.0, 10.0]
    assert spread([5.0, 5.0], [2.0, 2.0]) == [4.0, 6.0]
    assert spread([1.0, 0.0, 9.0], [2.0, 2.0, 2.0]) == [1.5, -0.5, 9.0]
    places = spread([0.0, 0.1, 0.2, 2.9], [1.0] * 4)
    assert np.diff(places).min() >= 1.0 - 1e-9
