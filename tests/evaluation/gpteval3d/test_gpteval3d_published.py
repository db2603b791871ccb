"""The published tournament, if its files are available in TRACE_BENCH_GPTEVAL3D, or in shared/ next to the
checkout. They have no licence and are not part of this repository.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from evaluation.gpteval3d.comparisons import read_scores
from evaluation.gpteval3d.criteria import CRITERIA
from evaluation.gpteval3d.elo import fit
from evaluation.gpteval3d.plan import read_ensembles
from evaluation.gpteval3d.published import Published
from trace_bench.system.config_path import conf_dir

ROOT = Path(__file__).resolve().parents[3]
FOLDER = Path(os.environ.get("TRACE_BENCH_GPTEVAL3D") or ROOT.parent / "shared" / "data" / "gpteval3d")
CONFIG = OmegaConf.to_container(OmegaConf.load(f"{conf_dir()}/gpteval3d.yaml"))

pytestmark = pytest.mark.skipif(
    not (FOLDER / "config.json").is_file(),
    reason="needs the published tournament: name its folder in TRACE_BENCH_GPTEVAL3D",
)

#: wins / draws / losses of a new method, text-asset alignment
RECORD = {
    "dreamfusion": (6, 1, 1), "dreamgaussian": (5, 2, 1), "fantasia3d": (6, 0, 2), "instant3d": (3, 1, 4),
    "latent-nerf": (2, 1, 5), "magic3d": (4, 0, 4), "mvdream": (2, 0, 6), "point-e": (8, 0, 0),
    "prolificdreamer": (1, 2, 5), "shap-e": (7, 1, 0), "sjc": (6, 1, 1), "syncdreamer": (8, 0, 0),
    "wonder3d": (7, 1, 0),
}  # fmt: skip


def published(folder: Path | None = FOLDER) -> Published:
    return Published.from_config(CONFIG["published"] | {"folder": folder}, Path("nowhere"))


def test_every_file_is_the_one_that_the_config_names():
    tournament = published()
    for name in CONFIG["published"]["sha256"]:
        assert tournament.path(name).is_file()
    assert len(tournament.prompts()) == 110


def test_thirteen_methods_by_six_criteria():
    scores = published().scores()
    assert tuple(scores) == CRITERIA
    assert {frozenset(table) for table in scores.values()} == {frozenset(RECORD)}
    assert {table["dreamfusion"] for table in scores.values()} == {1000.0}


def test_the_shipped_ensembles_are_the_published_ones():
    content = json.loads((FOLDER / "config.json").read_text())["ensembles"]
    for ours, theirs in zip(read_ensembles(CONFIG["ensembles"]), content, strict=True):
        assert f"gpt_prompts/{ours.instruction}.txt" == theirs["gpt_prompt"]
        assert (ours.views, ours.rgb, ours.normal) == (
            theirs["num_views"],
            bool(theirs["rgb"]),
            bool(theirs["normal"]),
        )
        assert [CRITERIA.index(name) for name in ours.criteria] == theirs["dimensions"]
        assert ours.comparisons == theirs["num_comparisons"]


@pytest.mark.parametrize(
    ("draw", "prior", "expected"),
    [(1.0, None, 1216.430090623719), (0.5, None, 1227.382481736), (1.0, 0.5, 1202.236048185)],
)
def test_a_new_method_and_thirteen_that_do_not_move(draw, prior, expected):
    table = published().scores()["text_asset_alignment"]
    wins = np.zeros((14, 14))
    for i, name in enumerate(table):
        won, drawn, lost = RECORD[name]
        wins[13, i], wins[i, 13] = won + draw * drawn, lost + draw * drawn
    found = fit(wins[None], dict(enumerate(table.values())), prior).elo[0]
    assert found[13] == pytest.approx(expected, abs=1e-6)
    assert found[:13].tolist() == list(table.values())


def test_a_new_method_that_beats_all_thirteen_twice():
    table = published().scores()["text_asset_alignment"]
    wins = np.zeros((14, 14))
    wins[13, :13] = 2
    found = fit(wins[None], dict(enumerate(table.values())))
    assert found.regularised[0]
    assert found.elo[0, 13] == pytest.approx(1396.468292, abs=1e-6)


def test_the_command_with_the_published_anchors(command, tmp_path):
    records = []
    for name, (won, drawn, lost) in RECORD.items():
        for result, times in ((-1, won), (0, drawn), (1, lost)):
            records += [{"m1": "trace", "m2": name, "result": result}] * times
    (tmp_path / "comparisons.json").write_text(json.dumps({"0": records}))
    anchors = f"anchors={FOLDER / 'config.json'}"
    code, out, _ = command(
        "gpteval3d.__main__", "mode=elo", f"comparisons={tmp_path / 'comparisons.json'}", anchors
    )
    assert code == 0
    found = json.loads(out)["scores"]["0"]
    assert found.pop("trace") == pytest.approx(1216.430090623719, abs=1e-6)
    assert found == read_scores(FOLDER / "config.json")["text_asset_alignment"]


def test_none_of_its_texts_is_in_the_repository():
    """No line of the instructions, and no prompt except those in our own sets."""
    ours = "".join(path.read_text() for path in (ROOT / "evaluation" / "gpteval3d").glob("*.py"))
    lines = {
        line.strip()
        for path in (FOLDER / "gpt_prompts").glob("*.txt")
        for line in path.read_text().split("\n")
    }
    assert not [line for line in lines if len(line) > 40 and line in ours]
