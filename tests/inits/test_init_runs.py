"""Inits in a run: charged time, identity, and one run after another."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from trace_bench.representations.gaussians.ply import read_splat_ply, write_splat_ply
from trace_bench.run_folder.manifest import read_manifest
from trace_bench.runs.run import make_asset
from trace_bench.settings.typed_text import readable_overrides
from trace_bench.sweeps.planning import make_plan
from trace_bench.system.errors import TraceBenchError

CONF = str(Path(__file__).parents[1] / "conf")
QUICK = [
    "prior=analytic", "representation=gaussians", "method=sds", "steps=4", "guidance_scale=5", "resolution=8",
    "rig.resolution=16", "rig.n_views=2", "device=cpu",
]  # fmt: skip


def planned(tmp_path, *overrides):
    typed = readable_overrides([*QUICK, f"output_root={tmp_path / 'out'}", *overrides], False)
    (spec,) = make_plan(typed, multirun=False, config_dir=CONF)
    return spec


@pytest.fixture
def splats(tmp_path):
    torch.manual_seed(0)
    n = 50
    params = {
        "means": 0.4 * torch.randn(n, 3),
        "quats": torch.nn.functional.normalize(torch.randn(n, 4), dim=-1),
        "scales": torch.full((n, 3), -2.0) + 0.3 * torch.randn(n, 3),
        "opacities": torch.randn(n),
        "sh0": 0.3 * torch.randn(n, 1, 3),
    }
    return write_splat_ply(tmp_path / "0.ply", params)


def cloud(path, *more):
    return ("init=pointcloud", f"init.path={path}", *more)


def test_the_time_that_a_start_took_elsewhere_is_charged_once(tmp_path, splats):
    spec = planned(tmp_path, *cloud(splats, "init.minutes=100"))
    asked = iter([False, False, True])
    assert make_asset(spec, lambda: next(asked)).status == "preempted"
    assert make_asset(spec).status == "done"
    manifest = read_manifest(spec.folder)
    for name in ("init", "total"):
        assert 6000.0 <= manifest.seconds[name] < 12_000.0
    assert manifest.init == {"points": 50, "seconds_elsewhere": 6000.0, "file": "0.ply"}
    assert manifest.minutes == pytest.approx(
        sum(manifest.seconds[name] for name in ("init", "distill", "render")) / 60
    )


def test_gaussians_go_on_where_the_file_left_them(tmp_path, splats):
    """With zero learning rates, the asset equals the init."""
    still = [f"representation.lr.{name}=1e-12" for name in ("means", "quats", "scales", "opacities", "sh0")]
    still += ["representation.means_lr_final=1e-12", "representation.densify.mode=off"]
    spec = planned(tmp_path, *cloud(splats), *still)
    outcome = make_asset(spec)
    assert outcome.status == "done", outcome.message
    made, given = read_splat_ply(outcome.folder / "asset.ply"), read_splat_ply(splats)
    for name, value in given.items():
        torch.testing.assert_close(made[name], value, rtol=1e-4, atol=1e-5)


def test_a_start_from_a_file_is_the_file_s_content(tmp_path, splats):
    first = planned(tmp_path, *cloud(splats))
    same = tmp_path / "same.ply"
    same.write_bytes(splats.read_bytes())
    assert planned(tmp_path, *cloud(same)).fingerprint == first.fingerprint
    assert planned(tmp_path, *cloud(tmp_path / "{prompt_id}.ply")).fingerprint == first.fingerprint
    params = read_splat_ply(splats)
    write_splat_ply(same, params | {"opacities": params["opacities"] + 1.0})
    assert planned(tmp_path, *cloud(same)).fingerprint != first.fingerprint
    assert planned(tmp_path, *cloud(splats, "init.keep_splats=false")).fingerprint != first.fingerprint


def test_one_run_after_another(tmp_path):
    first = planned(tmp_path, "init=sphere", "init.n=40")
    after = ("method=csd", "guidance_scale=null", "init=run", f"init.folder={first.folder}")
    with pytest.raises(TraceBenchError, match="is not a run folder"):
        planned(tmp_path, *after)
    assert make_asset(first, lambda: True).status == "preempted"
    with pytest.raises(
        TraceBenchError, match=r"is not finished \(status preempted\); init.folder needs a finished run"
    ):
        planned(tmp_path, *after)
    assert make_asset(first).status == "done"
    second = planned(tmp_path, *after)
    pattern = f"init.folder={tmp_path}/out/runs/sds/gaussians/toy/{{prompt_id}}-{{slug}}/cfg5-seed{{seed}}-*"
    assert planned(tmp_path, *after[:-1], pattern).fingerprint == second.fingerprint
    outcome = make_asset(second)
    assert outcome.status == "done", outcome.message
    before, manifest = read_manifest(first.folder), read_manifest(outcome.folder)
    assert manifest.init["run"] == before.fingerprint
    assert manifest.init["points"] == before.n_primitives
    assert manifest.init["seconds_elsewhere"] == pytest.approx(60.0 * before.minutes, abs=1e-3)
    seconds = dict(manifest.seconds)
    total = seconds.pop("total")
    assert seconds["init"] >= manifest.init["seconds_elsewhere"], "the time of the first run is part of it"
    assert sum(seconds.values()) <= total + 0.01
    json.dumps(manifest.init)
    other = planned(tmp_path, "init=sphere", "init.n=40", "seed=1")
    assert make_asset(other).status == "done"
    assert planned(tmp_path, *after[:-1], f"init.folder={other.folder}").fingerprint != second.fingerprint


def test_the_toy_scene_s_guess_needs_the_prompt(tmp_path):
    spec = planned(tmp_path, "init=toy_coarse", "init.n=80", "prompt=a blue torus")
    from trace_bench.runs.build import make_init

    points = make_init(spec.job, spec.prompt.text, torch.device("cpu"))
    assert len(points) == 80
    ring = points.positions[:, :2].norm(dim=-1).numpy()
    assert np.quantile(ring, 0.05) > 0.2  # the hole
