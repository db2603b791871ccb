"""Whole runs on a random checkpoint with SD 2.1's classes and config keys, through the command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from configured import FLOW
from omegaconf import OmegaConf
from safetensors.torch import load_file
from sd_checkpoint import make_checkpoint, make_flow_checkpoint, make_sd3_checkpoint

from trace_bench.sweeps.sweep import main
from trace_bench.system.config_path import conf_dir

METHODS = sorted(
    path.stem
    for path in (Path(conf_dir()) / "method").glob("*.yaml")
    if OmegaConf.load(path).get("distils", True)
)
LATENT_PRIOR_METHODS = [name for name in METHODS if name not in {"dreamer_xl", "external", *FLOW}]
REPRESENTATIONS = {
    "gaussians": ["init=random", "init.n=60"],
    "image": [],
    "nerf": [
        "representation.hash_grid.levels=3",
        "representation.hash_grid.log2_size=10",
        "representation.samples_per_ray=48",
        "representation.occupancy.resolution=12",
        "representation.mesh.resolution=16",
    ],
}
#: One method on each representation; the other pairs are slow tests.
QUICK = {("sds", "gaussians"), ("vsd", "image"), ("trace", "nerf")}
PAIRS = [
    pytest.param(
        method,
        representation,
        marks=[pytest.mark.slow] * ((method, representation) not in QUICK),
    )
    for method in LATENT_PRIOR_METHODS
    for representation in REPRESENTATIONS
]


@pytest.fixture(scope="module")
def overrides(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """SD 2.1's own config, pointed at small random files: an epsilon base and a v model under the adapter."""
    folder = tmp_path_factory.mktemp("sd")
    base, v = make_checkpoint(folder / "base"), make_checkpoint(folder / "v", "v_prediction", seed=1)
    return [
        "prior=sd21",
        f"prior.repo={base}",
        f"prior.adapter_repo={v}",
        "prior.revision=null",
        "prior.adapter_revision=null",
        "prior.resolution=16",
        "prior.dtype=float32",
        "prior.compile=false",
        "prompt='a zombie joker, 8k'",
        "steps=6",
        "views_per_step=2",
        "resolution=24",
        "rig.n_views=8",
        "rig.resolution=32",
        "device=cpu",
    ]


def run_folder(root: Path) -> Path:
    (manifest,) = root.glob("runs/**/manifest.json")
    return manifest.parent


@pytest.mark.parametrize(("method", "representation"), PAIRS)
def test_every_method_makes_an_asset(
    method: str, representation: str, overrides: list[str], tmp_path: Path
) -> None:
    arguments = [f"method={method}", f"representation={representation}", f"output_root={tmp_path}"]
    if method == "reward_sds":
        arguments.append("reward=tiny_clip")
    if method == "sds_bridge":  # the small text encoder has no room for the real suffixes
        arguments += ["method.prompt_suffixes.source=x", "method.prompt_suffixes.target=y"]
    assert main([*arguments, *overrides, *REPRESENTATIONS[representation]]) == 0
    folder = run_folder(tmp_path)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["status"] == "done"
    assert manifest["run"]["method"] == method
    assert manifest["cost"]["unet_fwd"] >= 6 * 2 * 2
    assert manifest["cost"]["tflop"] > 0
    assert all((folder / name).is_file() for name in manifest["files"])
    asset = load_file(folder / "asset.safetensors")
    assert all(torch.isfinite(t).all() for t in asset.values())
    views = len(list((folder / "renders").glob("rgb_*.png")))
    assert views == (1 if representation == "image" else 8)
    assert (folder / "turntable.mp4").exists() == (representation != "image")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "prior"), [("rfds", "sd3"), ("vsd", "sd3"), ("rfds_rev", "tiny_flow"), ("trace", "tiny_flow")]
)
def test_flow_priors_make_an_asset(method: str, prior: str, overrides: list[str], tmp_path: Path) -> None:
    make = {"sd3": make_sd3_checkpoint, "tiny_flow": make_flow_checkpoint}[prior]
    size = ["prior.resolution=64" if prior == "sd3" else "prior.resolution=16"]
    size += ["prior.dtype=float32", "prior.compile=false"] if prior == "sd3" else []
    rest = [item for item in overrides if not item.startswith("prior")]
    arguments = [f"method={method}", f"prior={prior}", f"prior.repo={make(tmp_path / 'model')}", *size, *rest]
    arguments += [f"output_root={tmp_path / 'out'}", *REPRESENTATIONS["gaussians"]]
    assert main(arguments) == 0
    manifest = json.loads((run_folder(tmp_path / "out") / "manifest.json").read_text())
    assert manifest["status"] == "done"
    assert manifest["prior"]["sha256"]
    assert manifest["cost"]["tflop"] > 0


def test_the_same_command_again_does_nothing(
    overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["method=sds", f"output_root={tmp_path}", *overrides, *REPRESENTATIONS["gaussians"]]
    assert main(arguments) == 0
    before = {path: path.stat().st_mtime_ns for path in run_folder(tmp_path).rglob("*") if path.is_file()}
    capsys.readouterr()
    assert main(arguments) == 0
    assert "made before" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_another_seed_is_another_asset(overrides: list[str], tmp_path: Path) -> None:
    for seed in (0, 1):
        arguments = ["method=sds", f"seed={seed}", f"output_root={tmp_path}"]
        assert main([*arguments, *overrides, *REPRESENTATIONS["gaussians"]]) == 0
    assets = [load_file(p)["means"] for p in sorted(tmp_path.glob("runs/**/asset.safetensors"))]
    assert len(assets) == 2
    assert not torch.equal(assets[0], assets[1])
