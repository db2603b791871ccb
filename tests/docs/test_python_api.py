"""docs/python_api.md and examples/quickstart.ipynb, performed with short runs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import evaluation
import trace_bench
from trace_bench import api
from trace_bench import distill as loop

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "examples" / "quickstart.ipynb"
SHORT = {"steps": 2, "init": {"n": 60}, "rig": {"n_views": 8, "resolution": 16}, "device": "cpu"}
LARGEST = 600_000  # bytes: a notebook that git and a browser take


def cells() -> list[dict]:
    return [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]


def page() -> list[str]:
    text = (ROOT / "docs" / "python_api.md").read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.fixture
def perform(tmp_path, monkeypatch):
    """Execute pieces of code in turn, in an empty folder, with few steps; returns their names."""
    make, distill = api.make, loop.distill
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(api, "make", lambda *a, **settings: make(*a, **{**settings, **SHORT}))
    monkeypatch.setattr(loop, "distill", lambda *a, **settings: distill(*a, **{**settings, "steps": 2}))

    def run(pieces):
        names: dict = {}
        for piece in pieces:
            exec(compile(piece, "<shown>", "exec"), names)
        return names

    return run


@pytest.mark.slow
def test_the_page(perform):
    names = perform(page())
    assert [asset.manifest.run.method for asset in names["assets"]] == ["sds", "trace"]
    assert names["assets"][0].folder == names["asset"].folder
    assert names["frame"][["match", "clip_score"]].notna().all().all()
    assert len(names["frame"]) == 2
    assert names["canvas"].pixels.detach().abs().max() > 0.0
    assert names["gaussians"].n_primitives == 500


@pytest.mark.slow
def test_the_notebook(perform):
    names = perform("".join(cell["source"]) for cell in cells())
    assert list(names["frame"]["method"]) == ["sds", "trace"]
    assert names["views"].rgb.shape == (6, 128, 128, 3)


def test_the_notebook_is_shown_with_what_it_made():
    kinds = [set(output.get("data", {})) for cell in cells() for output in cell["outputs"]]
    assert sum("image/png" in kind for kind in kinds) == 2
    assert sum("text/html" in kind for kind in kinds) == 2  # the asset and the frame
    assert not [o for cell in cells() for o in cell["outputs"] if o["output_type"] == "error"]
    assert "site-packages" not in NOTEBOOK.read_text()  # a warning of the machine that it was run on
    assert NOTEBOOK.stat().st_size < LARGEST


def test_what_the_packages_offer_is_on_the_page():
    text = (ROOT / "docs" / "python_api.md").read_text(encoding="utf-8")
    offered = [f"trace_bench.{name}" for name in trace_bench.__all__]
    offered += [f"evaluation.{name}" for name in evaluation.__all__]
    assert not [name for name in offered if name not in text]
    for name in offered:
        package, _, attribute = name.partition(".")
        assert getattr({"trace_bench": trace_bench, "evaluation": evaluation}[package], attribute)
