"""A run whose method maximises a reward: its identity, its manifest, resuming, and missing weights."""

from __future__ import annotations

import json

import pytest
from quick_runs import asset, folders, spec, stop_at
from small_clip import save_clip

from trace_bench.run_folder.manifest import read_manifest
from trace_bench.runs.run import make_asset
from trace_bench.sweeps.planning import make_plan
from trace_bench.sweeps.prefetch import fetch_rewards
from trace_bench.sweeps.preflight import check_models
from trace_bench.system.errors import TraceBenchError

STEPS = 6
REWARD = [
    "method=reward_sds", "reward=tiny_clip", "method.exploration_steps=2", "method.noise_candidates=2",
    f"steps={STEPS}", "checkpoint.every_steps=2",
]  # fmt: skip


def test_a_resumed_run_is_the_same_and_says_what_it_maximised(tmp_path):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    make_asset(spec(whole, *REWARD))
    make_asset(spec(stopped, *REWARD), stop_at(3))
    make_asset(spec(stopped, *REWARD))
    (one,), (other,) = folders(whole), folders(stopped)
    assert asset(one) == asset(other)
    for folder in (one, other):
        manifest = read_manifest(folder)
        assert manifest.status == "done"
        assert manifest.reward["metrics"] == ["clip_score", "clip_r_precision"]
        assert manifest.cost["reward"] == manifest.cost["vae_dec"] == 2 * STEPS
    rows = [json.loads(line) for line in (one / "metrics.jsonl").read_text().splitlines()]
    assert all(row["reward_best"] >= row["reward"] for row in rows)


def test_the_weights_of_the_reward_are_part_of_the_identity(tmp_path):
    def fingerprint(name: str, seed: int) -> str:
        folder = save_clip(tmp_path / name, seed=seed)
        return spec(tmp_path, *REWARD, f"method.reward.model=local-dir:{folder}").fingerprint

    one, moved, other = fingerprint("a", 0), fingerprint("b", 0), fingerprint("c", 1)
    assert one == moved != other


@pytest.fixture
def no_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.mark.parametrize(
    ("reward", "words"),
    [
        ("clip", "method=reward_sds: The weights of ViT-B-32-quickgelu"),
        ("image_reward", r"method=reward_sds: ImageReward's weights \(1.8 GB\) are not on this machine"),
    ],
)
def test_missing_weights_stop_a_sweep_before_it_starts(no_cache, reward, words):
    runs = make_plan(["method=reward_sds", f"reward={reward}", "prompt=0"], multirun=False)
    with pytest.raises(TraceBenchError, match=words) as error:
        check_models(runs, download=False)
    assert "\n" not in str(error.value)


def test_prefetch_names_the_files_of_each_reward_once():
    jobs = [run.job for run in make_plan(["method=sds,reward_sds", "prompt=0,1"], multirun=True)]
    (line,) = fetch_rewards(jobs)
    assert line.startswith("reward Clip: ")
    assert line.endswith("open_clip_model.safetensors")
