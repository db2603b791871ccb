"""Every figure, drawn from small real runs; its numbers and pictures compared with the files of the runs."""

from __future__ import annotations

import copy
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from real_runs import STEPS, VIEWS, pictures, texts, value
from skimage.color import deltaE_ciede2000, rgb2lab

from trace_bench.run_folder.reading import read_json
from trace_bench.system.config_path import conf_dir

pytestmark = pytest.mark.slow  # half a minute for runs, scores, a tournament and a study

SAME = {"init": "toy_coarse", "steps": STEPS, "representation": "gaussians"}
DRAWN = {
    "cfg_ablation", "coco2d", "controls", "convergence", "diversity", "elo", "gaussiandreamer", "gradients",
    "guidance", "janus", "judge_validity", "native3d", "nerf_qualitative", "pareto", "preference",
    "versus_csd", "versus_ism", "versus_sdi", "versus_vsd",
}  # fmt: skip


def test_there_is_a_test_of_every_figure():
    assert {path.stem for path in Path(conf_dir(), "figure").glob("*.yaml")} == DRAWN


def seen(path):
    return np.asarray(Image.open(path).convert("RGB"))


# --- figures of renders ----------------------------------------------------------------------------------


def test_gaussiandreamer(others):
    """Its Shap-E init needs weights, so both methods begin with a coarse guess."""
    found = pictures(others.draw("gaussiandreamer", prompts=[4]))
    expected = [
        others.run(method, "4", init="toy_coarse").rgb(view)
        for method in ("gaussiandreamer", "trace")
        for view in (0, 2)  # nearest to 35 and 180 degrees
    ]
    assert len(found) == len(expected)
    for picture, path in zip(found, expected, strict=True):
        assert (picture == seen(path)).all()


@pytest.mark.parametrize("other", ["vsd", "sdi", "csd", "ism"])
def test_versus(methods, other):
    drawing = methods.draw(f"versus_{other}")
    found = pictures(drawing)
    expected = [
        methods.run(method, prompt).rgb(view)
        for prompt in ("0", "1")
        for method in (other, "trace")
        for view in (0, 2)  # nearest to 35 and 180 degrees
    ]
    assert len(found) == len(expected)
    for picture, path in zip(found, expected, strict=True):
        assert (picture == seen(path)).all()
    names = texts(drawing)
    assert names[:2] == [f"{methods.data.method(other)}\n".strip(), "TraCe"]
    for said in ("Renders, at azimuth 35°, 180°", "4 runs; 2 prompts; 1 seed", "prior analytic", "4 steps"):
        assert said in drawing.caption, drawing.caption


def test_figure_2_has_normals_and_alpha(others):
    drawing = others.draw("nerf_qualitative")
    found = pictures(drawing)
    views = [0, 1, 2]  # nearest to 35, 125 and 215 degrees
    runs = [others.run(method, "2", representation="nerf") for method in ("sds", "vsd", "trace")]
    rows = {"rgb": [seen(run.rgb(v)) for run in runs for v in views]}
    rows["normal"] = [seen(run.normal(v)) for run in runs for v in views]
    for row, expected in enumerate(rows.values()):
        for picture, wanted in zip(found[9 * row : 9 * row + 9], expected, strict=True):
            assert (picture == wanted).all()
    alpha = [np.load(run.geometry)["alpha"][v] for run in runs for v in views]
    for picture, wanted in zip(found[18:], alpha, strict=True):
        assert (np.asarray(picture).reshape(wanted.shape) == wanted).all()
    assert {"normals", "alpha mask"} <= set(texts(drawing))
    assert "normals in world space as (n + 1) / 2; alpha, white is opaque" in drawing.caption


def test_figure_3_shows_flat_images(others):
    drawing = others.draw("coco2d")
    found = pictures(drawing)
    runs = [others.run(name, "3", representation="image") for name in ("sds", "csd", "vsd", "trace")]
    assert [tuple(p.shape) for p in found] == [seen(run.rgb(0)).shape for run in runs]
    assert all((p == seen(run.rgb(0))).all() for p, run in zip(found, runs, strict=True))


def test_figure_4_has_several_steps_and_says_its_scale(methods):
    drawing = methods.draw("gradients")
    found = pictures(drawing)
    [folder] = {
        run.folder
        for run in methods.runs
        if run.identity.prompt_id == "0" and (run.folder / "snapshots").is_dir()
    }
    labels = [text for text in texts(drawing) if ", step " in text.replace("\n", " ")]
    assert [" ".join(label.split()) for label in labels[:2]] == ["a red cube, step 0", "a red cube, step 3"]
    for i, step in enumerate((0, 3)):
        with np.load(folder / "snapshots" / f"{step:05d}.npz") as file:
            plain, target, ours, sds = (
                file[name][0] for name in ("plain", "target", "gradient", "gradient_sds")
            )
        row = found[4 * i : 4 * i + 4]
        assert (row[0] == plain).all()
        assert (row[1] == target).all()
        for picture, gradient in zip(row[2:], (sds, ours), strict=True):
            scale = np.quantile(np.abs(gradient), 0.99)
            expected = 255 * np.clip(0.5 - gradient / (2 * scale), 0, 1)
            assert np.abs(picture - expected).max() <= 0.5 + 1e-6
            shown = [t.get_text() for axes in drawing.figure.axes for t in axes.texts]
            assert f"± {scale:.1e}" in shown
    assert "Renders over white" in drawing.caption
    assert "2 runs; 2 prompts; 1 seed" in drawing.caption  # of those drawn


def test_figure_5_has_a_number_for_diversity_and_the_quality_it_costs(methods):
    drawing = methods.draw("diversity")
    numbers = drawing.numbers.set_index("prompt")
    for prompt, prompt_id in (("a red cube", "0"), ("a blue torus", "1")):
        runs = [methods.run("trace", prompt_id, seed=seed) for seed in (0, 1)]
        found = []
        for first, second in combinations(runs, 2):
            for view in range(VIEWS):  # 0, 90, 180 and 270 degrees
                a, b = (rgb2lab(seen(run.rgb(view))) for run in (first, second))
                there = np.minimum(a[..., 0], b[..., 0]) < 99
                found.append(deltaE_ciede2000(a, b)[there].mean())
        assert numbers.loc[prompt, "diversity"] == pytest.approx(np.mean(found))
        matches = [value(run) for run in runs]
        assert numbers.loc[prompt, "quality"] == pytest.approx(np.mean(matches))
        assert numbers.loc[prompt, "quality_std"] == pytest.approx(np.std(matches, ddof=1))
        [label] = [t for t in texts(drawing) if t.startswith(prompt)]
        assert f"diversity {np.mean(found):.1f}" in label
        assert f"Match {np.mean(matches):.3f} ± {np.std(matches, ddof=1):.3f}" in label
    assert "CIEDE2000" in drawing.caption
    assert "mean ± standard deviation over seeds" in drawing.caption


def test_figure_6_says_what_its_columns_are(others):
    drawing = others.draw("native3d", prompt_set="toy", prompts=[1])
    assert {"Native guess alone", "Native guess + TraCe", "TraCe from random"} <= set(texts(drawing))
    runs = [
        others.run("trace", "1", init=init, steps=steps)
        for steps, init in ((1, "toy_coarse"), (STEPS, "random"), (STEPS, "toy_coarse"))
    ]
    for picture, run in zip(pictures(drawing), runs, strict=True):
        assert (picture == seen(run.rgb(0))).all()
    heads = [text for text in drawing.figure.texts if text.get_fontweight() == "bold"]
    boxes = sorted((text.get_window_extent() for text in heads), key=lambda box: box.x0)
    assert all(a.x1 < b.x0 for a, b in pairwise(boxes)), "headings overlap"
    assert boxes[-1].x1 <= drawing.figure.bbox.x1


# --- figures of numbers ----------------------------------------------------------------------------------


def test_figure_1(others):
    drawing = others.draw("cfg_ablation", quantity="match", label=None)
    [line] = [line for line in drawing.figure.axes[0].lines if len(line.get_xdata()) == 3]
    expected = [
        np.mean([value(others.run("trace", guidance_scale=scale, seed=seed, **SAME)) for seed in (0, 1)])
        for scale in (5.0, 10.0, 20.0)
    ]
    assert list(line.get_xdata()) == [5.0, 10.0, 20.0]
    assert line.get_ydata() == pytest.approx(expected)
    for said in ("means over 2 seeds", "Shade: guidance 10 to 30", "6 runs; 1 prompt; 2 seeds", "Judge: "):
        assert said in drawing.caption, drawing.caption


def test_guidance(others):
    drawing = others.draw("guidance")
    expected = [
        np.mean([value(others.run("trace", guidance_scale=scale, seed=seed, **SAME)) for seed in (0, 1)])
        for scale in (5.0, 10.0, 20.0)
    ]
    numbers = drawing.numbers[drawing.numbers["method"] == "trace"]
    assert numbers["guidance_scale"].tolist() == [5.0, 10.0, 20.0]
    assert numbers["match"].tolist() == pytest.approx(expected)
    [panel] = [axes for axes in drawing.figure.axes if axes.get_title(loc="left") == "TraCe"]
    mean, best = panel.lines[-2:]
    assert mean.get_ydata() == pytest.approx(expected)
    assert best.get_ydata() == pytest.approx([max(expected)])
    assert "6 runs; 1 prompt; 2 seeds" in drawing.caption


def counted(figures):
    """The same figures, with a count of TFLOP, which the analytic prior has not: 0.5 for each UNet item."""

    def of_step(row):
        return read_json(figures.root / row["folder"] / "step.json")

    frame, steps = figures.results.frame, figures.results.steps
    items = [
        sum(of_step(row)["cost"][f"unet_{way}"] for way in ("fwd", "bwd")) for _, row in steps.iterrows()
    ]
    results = replace(
        figures.results, frame=frame.assign(tflop=0.5 * frame["unet_items"]),
        steps=steps.assign(tflop=0.5 * np.array(items, float)),
    )  # fmt: skip
    found = copy.copy(figures)
    found.data = replace(figures.data, results=results)
    return found


def test_convergence(methods):
    drawing = counted(methods).draw("convergence")
    left, right = drawing.figure.axes[:2]
    assert [a.get_xlabel() for a in (left, right)] == ["Steps", "Counted TFLOP"]
    names = [methods.data.method(name) for name in ("sds", "vsd", "trace")]
    assert left.get_ylabel() == "Match"
    assert list(dict.fromkeys(drawing.numbers["method"])) == ["sds", "vsd", "trace"]  # as in the tables
    for axes in (left, right):
        assert {text.get_text() for text in axes.texts} == set(names)
    for i, method in enumerate(("sds", "vsd", "trace")):
        means, stds, work = [], [], []
        for step in (0, 2, STEPS):
            of_seeds, items = [], []
            for seed in (0, 1):
                runs = [methods.run(method, prompt, seed=seed) for prompt in ("0", "1")]
                if step < STEPS:
                    runs = [run.steps_rendered[step] for run in runs]
                    items += [read_json(run.folder / "step.json")["cost"] for run in runs]
                else:
                    items += [run.manifest.cost for run in runs]
                of_seeds.append(np.mean([value(run) for run in runs]))
            means.append(np.mean(of_seeds))
            stds.append(np.std(of_seeds, ddof=1))
            work.append(0.5 * np.mean([cost["unet_fwd"] + cost["unet_bwd"] for cost in items]))
        for axes, x in ((left, [0, 2, STEPS]), (right, work)):
            assert list(axes.lines[i].get_xdata()) == pytest.approx(x)
            assert axes.lines[i].get_ydata() == pytest.approx(means)
            band = axes.collections[i].get_paths()[0].vertices
            for place, mean, std in zip(x, means, stds, strict=True):
                ys = band[np.isclose(band[:, 0], place)][:, 1]
                assert (ys.min(), ys.max()) == pytest.approx((mean - std, mean + std))
    assert len(drawing.numbers) == 3 * 2 * 2 * 3
    for said in ("the band is ± one standard deviation over seeds (ddof 1)", "12 runs; 2 prompts; 2 seeds"):
        assert said in drawing.caption, drawing.caption


def test_convergence_of_more_methods_than_colours(methods):
    """Axes for each method, once over steps and once over TFLOP, with the other lines in grey."""
    figures, several = counted(methods), 9
    steps, runs = figures.data.results.steps, figures.data.results.frame
    for i in range(several - 3):
        name = {"method": f"other{i}"}
        steps = pd.concat([steps, steps[steps["method"].astype(str) == "sds"].assign(**name)])
        runs = pd.concat([runs, runs[runs["method"].astype(str) == "sds"].assign(**name)])
    figures.data = replace(figures.data, results=replace(figures.data.results, steps=steps, frame=runs))
    alone, drawing = counted(methods).draw("convergence"), figures.draw("convergence")
    own = [axes for axes in drawing.figure.axes if axes.get_title(loc="left")]
    names = [axes.get_title(loc="left") for axes in own]
    assert len(names) == 2 * several
    assert names[:several] == names[several:]
    for axes, line in zip(own[:3], alone.figure.axes[0].lines, strict=True):
        assert len(axes.lines) == several
        assert (axes.lines[-1].get_xydata() == line.get_xydata()).all()
    assert "Grey: the other methods." in drawing.caption


def test_convergence_without_a_count_of_tflop(methods):
    drawing = methods.draw("convergence")
    [axes] = drawing.figure.axes
    assert axes.get_xlabel() == "Steps"
    assert "counted work" not in drawing.caption


def test_quality_against_cost(methods):
    numbers = methods.draw("pareto", cost="unet_items").numbers
    matches = numbers[numbers["quality"] == "match"].set_index("method")
    for method in ("sds", "trace"):
        runs = [methods.run(method, prompt, seed=seed) for prompt in ("0", "1") for seed in (0, 1)]
        row = matches.loc[methods.data.method(method)]
        assert row["value"] == pytest.approx(np.mean([value(run) for run in runs]))


def test_elo(methods):
    drawing = methods.draw("elo")
    [path] = methods.root.glob("gpteval3d/*/elo.json")
    [tournament] = read_json(path)["tournaments"]
    panels = {axes.get_title(loc="left"): axes for axes in drawing.figure.axes}
    assert len([title for title in panels if title]) == 6
    [labels] = [
        [t.get_text() for t in axes.get_yticklabels()]
        for axes in drawing.figure.axes
        if axes.get_title(loc="left") == "Text-asset alignment"
    ]
    assert [label for label in labels if label] == ["TraCe", "ISM", "SDI", "VSD", "CSD", "SDS"]
    axes = panels["Text-asset alignment"]
    points = {
        round(float(line.get_ydata()[0])): float(line.get_xdata()[0])
        for line in axes.lines
        if line.get_marker() in ("o", "D")
    }
    for row in tournament["rows"]:
        if row["criterion"] == "text_asset_alignment":
            y = labels.index(methods.data.method(row["contestant"]))
            assert points[y] == pytest.approx(row["elo"])
    caption = drawing.caption
    assert "seed 0 of each method" in caption
    assert "2 prompts" in caption
    assert caption.count("95 % intervals") == 1
    assert caption.count("prior analytic") == 1


def test_preference(methods):
    """Both raters always preferred TraCe; the paper's bars are above ours."""
    drawing = methods.draw("preference")
    ours = drawing.numbers[drawing.numbers["row"].str.contains("our study")]
    assert len(ours) == 3 * 2
    assert (ours["ours"] == 100).all()
    bars = drawing.figure.axes[0].patches
    names = [t.get_text() for t in drawing.figure.axes[0].get_yticklabels()]
    mine = [i for i, name in enumerate(names) if name == "SDS, our study"]
    widths = [bar.get_width() for bar in bars if round(bar.get_y() + bar.get_height() / 2) in mine]
    assert widths == [100.0, 0.0, 0.0]
    for said in (
        "2 raters, 2 prompts",
        "prior analytic",
        "Can't tell counts as tie",
        "60 raters, 50 prompts",
    ):
        assert said in drawing.caption, drawing.caption


def test_preference_of_the_paper_alone(others):
    drawing = others.draw("preference")
    assert len(drawing.numbers) == 3 * 5
    table = drawing.numbers[drawing.numbers["row"] == "SDS, paper"]
    assert (table[["ours", "tie", "baseline"]].sum(axis=1) > 98).all()


def test_judge_validity(methods):
    drawing = methods.draw("judge_validity", tie_margin=0.0)
    numbers = drawing.numbers.set_index("criterion")
    hits = decided = 0
    for baseline in ("sds", "vsd"):
        for prompt in ("0", "1"):
            gap = value(methods.run("trace", prompt)) - value(methods.run(baseline, prompt))
            decided += gap != 0
            hits += gap > 0
    share = numbers.loc["text_asset_alignment", "agreement"]
    assert share == pytest.approx(hits / decided)
    [point] = [
        line.get_xdata()[0]
        for line in drawing.figure.axes[0].lines
        if line.get_marker() == "o" and line.get_xdata()[0] == pytest.approx(100 * share)
    ][:1]
    assert point == pytest.approx(100 * share)
    for said in ("2 raters, study main", "prompt set file, prior analytic, seed 0", "2 prompts"):
        assert said in drawing.caption, drawing.caption


def test_janus(others):
    drawing = others.draw("janus", prior="analytic")
    numbers = drawing.numbers.set_index(["method", "text"])
    assert list(numbers.index) == [
        ("sds", "view phrases"), ("sds", "no view phrases"),
        ("ism", "view phrases"), ("ism", "no view phrases"), ("ism", "Perp-Neg"),
    ]  # fmt: skip
    for (method, text), row in numbers.iterrows():
        values = []
        for run in others.runs:
            config = (run.folder / "config.yaml").read_text()
            is_with = "view_phrases: true" in config
            name = (
                "Perp-Neg" if "perp_neg: true" in config else "view phrases" if is_with else "no view phrases"
            )
            if run.identity.prompt_set == "toy_janus" and (run.identity.method, name) == (method, text):
                scores = read_json(run.folder / "scores" / "ground_truth.json")["values"]
                values.append(scores["janus"])
        known = [v for v in values if v is not None]
        assert len(values) == 2
        assert row["no_front"] == values.count(None)
        assert row["janus"] == pytest.approx(np.mean(known) if known else np.nan, nan_ok=True)
    assert "prompt set toy_janus" in drawing.caption
    assert "prior analytic" in drawing.caption


def test_controls(others):
    drawing = others.draw("controls", quantities=["match", "soft_iou"])
    numbers = drawing.numbers.set_index(["control", "quantity"])
    runs = [run for run in others.runs if "control" in run.identity.method]
    assert len(runs) == 6
    for control in ("truth", "turned", "half"):
        mine = [run for run in runs if f"control: {control}\n" in (run.folder / "config.yaml").read_text()]
        assert len(mine) == 2
        matches = [value(run) for run in mine]
        assert numbers.loc[(control, "match"), "mean"] == pytest.approx(np.mean(matches))
        assert numbers.loc[(control, "match"), "std"] == pytest.approx(np.std(matches, ddof=1))
    assert not numbers.loc[("half", "match"), "fooled"]
    assert "6 runs of this output root" in drawing.caption
    assert "2 prompts" in drawing.caption


def test_controls_that_the_package_ships(methods):
    drawing = methods.draw("controls")
    assert "scores that the package ships. Judge: ground_truth version 3" in drawing.caption
    assert len(drawing.numbers) > 20


def test_every_caption_is_whole(methods, others):
    """No missing values, and no more than one blank in a row."""
    for name in sorted(DRAWN - {"gaussiandreamer", "janus", "native3d", "coco2d", "nerf_qualitative"}):
        figures = others if name in {"cfg_ablation", "guidance"} else methods
        changes = {"cfg_ablation": {"quantity": "match"}, "pareto": {"cost": "unet_items"}}.get(name, {})
        caption = figures.draw(name, **changes).caption
        for word in ("nan", "None", "<NA>", "  ", "0.0,", ".."):
            assert word not in caption, f"{name}: {caption}"
        assert caption.endswith("."), caption
