"""The leaderboard's tables of what methods are sensitive to."""

from __future__ import annotations

from types import SimpleNamespace

import pandas as pd
import pytest
from leaderboard_rows import METRICS, board, frame
from run_folders import write_run

from scripts import make_leaderboard
from scripts.leaderboard import making
from scripts.leaderboard.page import BLOCKS
from scripts.leaderboard.rows import Board, dumps, kept, loads
from scripts.leaderboard.sections import MAIN

BLOCK = {
    name: BLOCKS["docs/leaderboard.md", f"leaderboard-{name}"] for name in ("steps", "guidance", "janus")
}


def row_of(text, name):
    """The cells of a method's row."""
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {name} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_changes_are_those_on_the_prompts_of_both():
    """Other steps add .1 on two prompts, of which one is better without; a sphere changes nothing."""
    rows = board()
    own = rows.sections[MAIN]
    sds = own["method"] == "sds"
    own.loc[sds, "match"] = 0.3
    more = own[sds & own["prompt_id"].isin(["0", "3"])].assign(steps=408)
    more["fingerprint"] = more["fingerprint"].str[::-1]
    same = own[own["method"] == "ism"]  # with equal work, these are its own runs
    more.loc[more["prompt_id"] == "0", "match"] = 0.6
    more.loc[more["prompt_id"] == "3", "match"] = 0.2
    rows.sections["equal_work"] = kept(pd.concat([more, same]))
    rows.sections["inits"] = kept(pd.concat([
        own[sds].assign(init="sphere", fingerprint=[f"sphere {i}" for i in range(sds.sum())]),
        own[sds].assign(
            init="toy_coarse", fingerprint=[f"coarse {i}" for i in range(sds.sum())], match=own["match"] + 0.2
        ),
    ]))  # fmt: skip
    assert row_of(BLOCK["steps"](rows, METRICS), "SDS") == [
        "SDS", "240 → 408", "+0.100", "+0.000 [+0.000, +0.000]", "+0.200 [+0.200, +0.200]",
    ]  # fmt: skip
    assert row_of(BLOCK["steps"](rows, METRICS), "VSD") == ["VSD", "240", "—", "—", "—"]
    assert row_of(BLOCK["steps"](rows, METRICS), "ISM") == ["ISM", "240", "—", "—", "—"]


def test_the_best_guidance_scale_is_named():
    """The invented rows are best at 10, and .9 of that elsewhere."""
    rows = board()
    mean = frame().query("method == 'sds'")["match"].mean()
    text = BLOCK["guidance"](rows, METRICS)
    found = row_of(text, "SDS")
    assert found == ["SDS", "5", "10", f"{mean:.3f}", "2.5", f"{0.9 * mean:.3f}"]
    assert "![Match over the guidance scale" in text
    assert "Grey lines are prompts" in text


def test_the_change_without_view_phrases_is_named():
    """The invented rows' Janus number is .2 with phrases and .3 without."""
    text = BLOCK["janus"](board(), METRICS)
    place = text.splitlines().index(next(line for line in text.splitlines() if line.startswith("| SDS |")))
    first, second = (
        [c.strip() for c in line.strip("|").split("|")] for line in text.splitlines()[place : place + 2]
    )
    assert first == ["SDS", "view phrases", "0.20", "0/8", "", ""]
    assert second[:4] == ["", "no view phrases", "0.30", "0/8"]
    assert second[4] == second[5] == "+0.10 [+0.10, +0.10]"


def test_sections_that_are_not_made_leave_their_place_empty():
    rows = board()
    for name in ("equal_work", "inits", "guidance", "janus", "janus_perp_neg"):
        rows.sections.pop(name)
    for block in BLOCK.values():
        assert block(rows, METRICS) == "No rows yet."
    after = board()
    after.sections.pop("janus_perp_neg")
    assert "| Perp-Neg |" not in BLOCK["janus"](after, METRICS)
    assert "| Perp-Neg |" in BLOCK["janus"](loads(dumps(board()), METRICS), METRICS)


def test_view_phrases_are_read_from_the_runs_settings(tmp_path, monkeypatch):
    """No column of a collected frame has them."""
    folders = []
    for value in (True, False):
        folder = write_run(tmp_path, prompt="a duck", variant=str(value))
        (folder / "config.yaml").write_text(f"view_phrases: {value}\n", encoding="utf-8")
        folders.append(folder)
    names = [str(folder.relative_to(tmp_path)) for folder in folders]
    rows = frame().iloc[:2].assign(folder=names).drop(columns=["commit", "torch", "diffusers", "numpy"])
    environment = {"commit": "c" * 40, "packages": {}}
    runs = [
        SimpleNamespace(
            folder=folder,
            identity=SimpleNamespace(method="sds"),
            manifest=SimpleNamespace(environment=environment),
        )
        for folder in folders
    ]
    monkeypatch.setattr(making, "versions_of", lambda *_, **__: {})
    shop = SimpleNamespace(
        output_root=tmp_path, metrics={}, runs=lambda _: runs, failed=lambda _: {},
        results=lambda _: SimpleNamespace(frame=rows, judges={}),
    )  # fmt: skip
    made = Board()
    making.add(made, "janus", shop, ())
    assert sorted(made.sections["janus"]["view_phrases"]) == ["False", "True"]


def test_an_unknown_section_is_one_sentence(capsys):
    with pytest.raises(SystemExit):
        make_leaderboard.options(["--sections", "nerf,colours"])
    assert "colours is none of own_budget, equal_work, nerf" in capsys.readouterr().err
    assert make_leaderboard.options(["--sections", "nerf,janus"]).sections == ["nerf", "janus"]
    assert make_leaderboard.options([]).sections == ["own_budget", "equal_work", "nerf"]
