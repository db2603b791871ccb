"""LaTeX tables fit a page."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from judgement_files import elo_file, preferences
from run_folders import write_run, write_score

from evaluation.metrics.clip_score import ClipScore
from evaluation.metrics.ground_truth import GroundTruth
from evaluation.metrics.image_reward.metric import ImageReward
from evaluation.results.collect import collect
from evaluation.tables.__main__ import make_grids
from evaluation.tables.formats import Entry, Grid, Heading
from evaluation.tables.latex import latex, prose

METHODS = ["sds", "csd", "vsd", "sdi", "ism", "trace", "consistent3d", "dreamer_xl", "trace_official"]
PROMPTS = ["a duck", "a red house", "an old bronze statue of a knight on a rearing horse, " * 4]
SETTINGS = {
    "over": "auto", "order": METHODS, "methods": None, "prompt_set": None, "prior": None, "controls": "all",
}  # fmt: skip


def grids(root: Path) -> list[Grid]:
    """All tables, with scores, a tournament of all criteria and a study."""
    metrics = {
        "ground_truth": GroundTruth(),
        "clip_score": ClipScore({"own": {"model": "local-dir:none"}}, {"tiny": "own"}),
        "image_reward": ImageReward(),
    }
    patch = pytest.MonkeyPatch()
    for metric in (ClipScore, ImageReward):
        patch.setattr(metric, "weights", lambda self, run: "w")
        patch.setattr(metric, "settings", lambda self, run: {})
    rng = np.random.default_rng(0)
    criteria = [
        "plausibility", "texture_details", "geometry_details", "text_asset_alignment",
        "text_geometry_alignment", "overall",
    ]  # fmt: skip
    for method in METHODS:
        for i, prompt in enumerate(PROMPTS):
            for representation in ("gaussians", "nerf")[: 1 + (method in {"sds", "trace"})]:
                folder = write_run(
                    root, method=method, prompt=prompt.strip(), prompt_id=str(i), count=len(PROMPTS),
                    representation=representation, unet=(123456, 0),
                )  # fmt: skip
                for metric in metrics.values():
                    values = {q.name: round(float(rng.random()), 3) for q in metric.quantities}
                    write_score(folder, metric, **values | {"recognised": 1, "no_front": 0})
    elo_file(root, [(m, c, 1000 + int(rng.integers(200)), 95) for m in METHODS for c in criteria])
    preferences(root)
    names = [*map(str, range(1, 9)), "methods", "prompts", "cost", "pairs"]
    made = make_grids(names, collect(root, metrics), metrics, SETTINGS)
    patch.undo()
    return [*made, _hard()]


def _hard() -> Grid:
    """Nothing but long texts."""
    head = [Heading("Prompt " * 9), Heading("Method"), *(Heading("ours", "A long heading ↑") for _ in "abc")]
    row = [Entry("word " * 40), Entry("sds" * 9), *(Entry("1000.25 ± 0.001 [999, 1001]") for _ in "abc")]
    notes = ["`python -m evaluation.tables table=pairs` and a note that goes on and on. " * 6] * 30
    return Grid("hard", "A caption. " * 40, head, [row] * 60, 2, [], notes)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex (texlive-latex-recommended)")
def test_every_table_fits_a_page(tmp_path):
    made = grids(tmp_path / "outputs")
    assert len(made) >= 13
    for grid in made:
        (tmp_path / f"{grid.name}.tex").write_text(latex(grid))
    inputs = "\n".join(rf"\input{{{grid.name}.tex}}\clearpage" for grid in made)
    (tmp_path / "all.tex").write_text(
        "\\documentclass{article}\\usepackage{booktabs,graphicx}\n"
        f"\\begin{{document}}\n{inputs}\n\\end{{document}}\n"
    )
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"], cwd=tmp_path, check=False,
        capture_output=True, timeout=60,
    )  # fmt: skip
    log = (tmp_path / "all.log").read_text(errors="replace")
    assert done.returncode == 0, log[-2000:]
    assert not re.findall(r"^(?:Overfull|LaTeX Warning: Float too large).*", log, re.MULTILINE)


def test_a_wide_table_is_split_by_columns_and_a_long_one_by_rows():
    body = [[Entry(f"row {i}"), *(Entry("0.123 ± 0.045") for _ in range(12))] for i in range(70)]
    grid = Grid("g", "C.", [Heading("Row"), *(Heading(f"h{i}") for i in range(12))], body, 1, [], ["N."])
    written = latex(grid)
    pieces = written.split(r"\toprule")[1:]
    assert len(pieces) > 3
    assert all(piece.strip().startswith("Row & ") for piece in pieces)
    for i in range(12):
        held = sum(piece.count(r" \\") - 1 for piece in pieces if re.search(rf"h{i}\b", piece))
        assert held == 70
    assert written.count(r"\label{") == 1
    assert written.count("N.") == 1
    assert written.count(r"\begin{table}") == written.count("continued") + 1


def test_a_label_that_is_the_same_everywhere_moves_to_the_caption():
    head = [Heading("Method"), Heading("Representation"), Heading("IoU")]
    body = [[Entry(method), Entry("3DGS"), Entry("0.5")] for method in ("SDS", "VSD")]
    written = latex(Grid("g", "C.", head, body, 2, []))
    assert r"\caption{C. Representation: 3DGS.}" in written
    assert "Method & IoU" in written


def test_a_prompt_stands_above_its_rows_and_again_on_a_new_page():
    body = [[Entry("" if i % 50 else f"prompt {i // 50}"), Entry(f"m{i}"), Entry("1")] for i in range(100)]
    written = latex(Grid("g", "C.", [Heading("Prompt"), Heading("Method"), Heading("IoU")], body, 2, []))
    pieces = written.split(r"\toprule")[1:]
    assert [re.findall(r"prompt \d", piece)[0] for piece in pieces] == ["prompt 0", "prompt 0", "prompt 1"]
    assert pieces[1].count("prompt 1}} \\\\\n") == 1


def test_code_and_marks_in_a_note():
    assert prose("(a) use `table=pairs`, 5 %") == r"\textsuperscript{a} use \texttt{table=pairs}, 5 \%"
    assert prose("a ` stray one") == "a ` stray one"


def test_characters_that_pdflatex_lacks_are_announced():
    grid = Grid("g", "C.", [Heading("Prompt")], [[Entry("一只鸭子")]], 1, [])
    assert "lualatex" in latex(grid)
    assert "lualatex" not in latex(Grid("g", "Stuhl für Ümit ±", [Heading("P")], [[Entry("…")]], 1, []))
