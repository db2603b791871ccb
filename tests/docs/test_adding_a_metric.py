"""docs/adding_a_metric.md, run verbatim in an empty folder."""

from __future__ import annotations

import json

import pytest
from page import Page, run
from run_folders import draw, write_run

PAGE = Page("adding_a_metric")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What steps 1 and 2 make, and two finished runs."""
    folder = tmp_path_factory.mktemp("mine")
    assert PAGE.write(folder) == ["conf/metric/sharpness.yaml", "sharpness.py"]
    for method in ("sds", "vsd"):
        draw(write_run(folder / "outputs", method=method), "a red cube", views=4)
    return folder


@pytest.mark.slow
def test_the_check_is_green(folder):
    done = run(folder, PAGE.under("3.").text)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " checks, none failed." in done.stdout


@pytest.mark.slow
def test_it_is_scored_and_tabled_beside_the_default_metrics(folder):
    score, tables = PAGE.under("4.").text.splitlines()
    done = run(folder, score)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("ground_truth", "clip_score", "sharpness"):
        assert f"{name}: 2 scored, 0 up to date" in done.stdout
    (one, _) = folder.glob("outputs/runs/*/*/*/*/*/scores/sharpness.json")
    content = json.loads(one.read_text())
    assert content["values"]["sharpness"] > 0
    assert len(content["rows"]) == 4
    assert "Sharpness" in run(folder, tables).stdout
    alone = run(folder, score.replace("default,", ""))
    assert alone.stdout.splitlines() == ["sharpness: 0 scored, 2 up to date, of 2 finished runs"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("yaml", "code", "says"),
    [
        ("_target_: sharpness.Sharpness", "", "The YAML of the metric sharpness.Sharpness needs `# @package"),
        ("# @package metrics.blur\n_target_: sharpness.Sharpness", "", "a Metric with the name 'blur', but"),
        ("# @package metrics.blur\n_target_: sharpnes.Sharpness", "", "there is no module 'sharpnes' in"),
        ("# @package metrics.blur\n_target_: blur.Blur", "", "blur.Blur does not define score, which Metric"),
        ("# @package metrics.blur\n_target_: blur.Blur\nviews: 3", "    def score(self, run): ...\n",
         "metrics.blur.views is not a setting of blur.Blur."),
    ],
)  # fmt: skip
def test_mistakes_are_one_sentence(folder, yaml, code, says):
    (folder / "conf" / "metric" / "blur.yaml").write_text(yaml)
    body = f"class Blur(Metric):\n    name = 'blur'\n{code}"
    (folder / "blur.py").write_text(f"from evaluation.metrics.base import Metric\n{body}")
    done = run(folder, "trace-bench check metric=blur --config-dir conf")
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
