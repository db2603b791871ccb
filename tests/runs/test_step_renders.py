"""Renders after chosen numbers of steps: what is written, and that they do not change the run."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from quick_runs import SMALL_3D, STEPS, asset, planned, spec, stop_at

from trace_bench.run_folder.live import Live, LiveFile
from trace_bench.run_folder.manifest import changed_files, read_manifest
from trace_bench.run_folder.reading import Run
from trace_bench.runs.run import make_asset
from trace_bench.system.errors import TraceBenchError

AT = "renders_at=[0,4,8,99]"
RIG = "rig.n_views=2"


@pytest.mark.parametrize("kind", [SMALL_3D, []])
def test_renders_change_neither_asset_nor_work(tmp_path, kind):
    plain, with_renders = (make_asset(spec(tmp_path, *kind, RIG, *more)).folder for more in ([], [AT]))
    assert asset(plain) == asset(with_renders)
    first, second = (read_manifest(folder) for folder in (plain, with_renders))
    assert first.cost == second.cost
    assert (first.asset, first.fingerprint) == (second.asset, second.asset)
    assert first.fingerprint != second.fingerprint
    steps = Run(with_renders, second).steps_rendered
    assert list(steps) == [0, 4, 8]  # there is no step 99
    pictures = [np.asarray(Image.open(step.rgb(0))) for step in steps.values()]
    assert len(steps[4].cameras) == (2 if kind else 1)
    assert (pictures[0] != pictures[2]).any()
    records = [json.loads((step.folder / "step.json").read_text()) for step in steps.values()]
    unet = [record["cost"]["unet_fwd"] for record in records]
    assert unet[0] == 0
    assert unet[2] == 2 * unet[1] == second.cost["unet_fwd"] * 8 // 12
    assert changed_files(with_renders, second) == {}
    steps[4].rgb(0).unlink()
    assert changed_files(with_renders, second) == {"renders_at/00004/renders/rgb_0.png": "missing"}


def test_a_resumed_run_has_the_renders_of_an_uninterrupted_one(tmp_path):
    whole = make_asset(spec(tmp_path / "a", *SMALL_3D, RIG, AT)).folder
    stopped = spec(tmp_path / "b", *SMALL_3D, RIG, AT)
    assert make_asset(stopped, stop_at(6)).status == "preempted"
    resumed = make_asset(stopped).folder
    for name in ("renders/rgb_1.png", "step.json"):
        for step in ("00000", "00004", "00008"):
            found = [(folder / "renders_at" / step / name).read_bytes() for folder in (whole, resumed)]
            assert found[0] == found[1]


def test_their_time_is_not_that_of_steps(tmp_path, monkeypatch):
    import time

    from trace_bench.runs import step_renders

    write = step_renders.write_bare_renders
    monkeypatch.setattr(
        step_renders, "write_bare_renders", lambda *given: (time.sleep(0.4), write(*given))[1]
    )
    folder = make_asset(spec(tmp_path, "renders_at=[0,1,2,3,4]")).folder
    seconds = read_manifest(folder).seconds
    assert seconds["render"] > 2.0 > seconds["distill"]


def test_the_display_counts_their_views_and_keeps_the_steps_that_are_done(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(LiveFile, "update", lambda self, live: seen.append(live))
    monkeypatch.setattr(LiveFile, "enter", lambda self, phase: seen.append(Live(phase)))
    assert make_asset(spec(tmp_path, *SMALL_3D, RIG, "renders_at=[0,4]")).status == "done"
    told = [(live.done, live.total, live.distilled) for live in seen if live.phase == "render_step"]
    assert told == [(0, 0, 0.0), (2, 2, 0.0), (0, 0, 4 / STEPS), (2, 2, 4 / STEPS)]
    last_step = max(i for i, live in enumerate(seen) if live.phase == "distill")
    assert "render" not in {live.phase for live in seen[:last_step]}
    parts = [live.distilled for live in seen]
    assert parts == sorted(parts), "the bar of the sweep goes back"


def test_a_wrong_list_is_refused():
    with pytest.raises(TraceBenchError, match="renders_at"):
        planned("renders_at=[-1]")
