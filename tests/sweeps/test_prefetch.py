"""Models that a sweep will load: found from its settings, downloaded completely, named if missing."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from pathlib import Path

import huggingface_hub
import pytest
import yaml
from huggingface_hub import constants
from sd_checkpoint import make_checkpoint

from trace_bench.priors.stable_diffusion import StableDiffusionPrior
from trace_bench.sweeps import prefetch
from trace_bench.sweeps.prefetch import Target, fetch, is_as_promised, main, wanted
from trace_bench.system.config_path import conf_dir
from trace_bench.system.errors import TraceBenchError

CONF = Path(conf_dir())
REPO, COMMIT = "someone/small", "a" * 40


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = make_checkpoint(tmp_path_factory.mktemp("sd") / "small")
    index = {name: ["library", "Class"] for name in ("unet", "vae", "text_encoder", "tokenizer", "scheduler")}
    index |= {"_class_name": "StableDiffusionPipeline", "safety_checker": [None, None]}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


@pytest.fixture
def hub(checkpoint, tmp_path, monkeypatch):
    """The checkpoint in the layout of the hub's cache: blobs named by hash, and links to them."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    base = tmp_path / "hub" / "models--someone--small"
    (base / "blobs").mkdir(parents=True)
    for path in sorted(checkpoint.rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            is_large = path.suffix == ".safetensors"
            sha1 = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
            blob = base / "blobs" / (hashlib.sha256(data).hexdigest() if is_large else sha1)
            shutil.copy(path, blob)
            link = base / "snapshots" / COMMIT / path.relative_to(checkpoint)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(blob)
    return base / "snapshots" / COMMIT


def values_of(name):
    return yaml.safe_load((CONF / "prior" / f"{name}.yaml").read_text())


def test_a_sweeps_settings_name_its_models():
    spec, start = values_of("sd21"), yaml.safe_load((CONF / "init" / "shap_e.yaml").read_text())
    found, metrics, _ = wanted(["-m", "method=sds,trace", "prior=sd21", "metric=clip_score,image_reward"])
    assert found == [
        Target(spec["repo"], spec["revision"], "fp16"),
        Target(spec["adapter_repo"], spec["adapter_revision"], "fp16"),
        Target(start["repo"], start["revision"], start["variant"]),
    ]
    assert metrics == ["clip_score", "image_reward"]


def test_several_priors_and_what_comes_with_the_package():
    found, *_ = wanted(["prior=tiny,sd15", "init=random"])
    assert [target.repo for target in found] == [
        "pkg://trace_bench/models/tiny_prior",
        values_of("sd15")["repo"],
    ]


def test_a_complete_repository_is_verified_and_the_variables_are_printed(hub, capsys):
    assert main([f"repo={REPO}", f"revision={COMMIT}"]) == 0
    said = capsys.readouterr().out
    assert f"{REPO}: {hub}" in said
    for line in ("HF_HUB_OFFLINE=1", "TRANSFORMERS_OFFLINE=1", f"HF_HUB_CACHE={constants.HF_HUB_CACHE}"):
        assert f"  export {line}\n" in said
    assert StableDiffusionPrior(REPO, revision=COMMIT, resolution=16).folder == hub


PARTS = [
    "unet/config.json",
    "vae/config.json",
    "tokenizer/vocab.json",
    "text_encoder/config.json",
]


@pytest.mark.parametrize("name", PARTS)
def test_offline_a_missing_file_is_named_without_waiting(hub, name, monkeypatch):
    (hub / name).resolve().unlink()  # like an incomplete copy of a cache: a dangling link

    def waits(seconds: float) -> None:
        pytest.fail(f"it waits {seconds} s before it tries again")

    monkeypatch.setattr(time, "sleep", waits)
    with pytest.raises(TraceBenchError) as error:
        StableDiffusionPrior(REPO, revision=COMMIT, resolution=16)
    assert str(hub / name) in str(error.value)
    assert f"python -m trace_bench.prefetch repo={REPO} revision={COMMIT}" in str(error.value)


def test_offline_missing_weights_are_named(hub):
    for path in (hub / "unet").glob("*.safetensors"):
        path.unlink()
    with pytest.raises(TraceBenchError, match=r"unet/\*\.safetensors is missing"):
        StableDiffusionPrior(REPO, revision=COMMIT, resolution=16)


def test_damaged_files_are_found(hub, capsys):
    for name in ("unet/config.json", "vae/diffusion_pytorch_model.safetensors"):
        blob = (hub / name).resolve()
        whole = blob.read_bytes()
        assert is_as_promised(hub / name)
        blob.write_bytes(whole[:-1] + b"?")
        assert not is_as_promised(hub / name)
        assert main([f"repo={REPO}", f"revision={COMMIT}"]) == 1
        assert f"{hub / name} is damaged" in capsys.readouterr().err
        blob.write_bytes(whole)
    fetch(Target(REPO, COMMIT))


def test_an_incomplete_repository_is_not_called_fetched(hub):
    (hub / "vae" / "config.json").unlink()
    with pytest.raises(TraceBenchError, match=r"has no vae/config\.json"):
        fetch(Target(REPO, COMMIT))


def test_the_judges_models_are_those_of_their_yaml(monkeypatch):
    fetched = []
    monkeypatch.setattr(prefetch, "_open_clip", lambda model, tag: fetched.append((model, tag)) or "clip")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda repo, name, revision: f"{repo}/{name}")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda repo, revision, allow_patterns: repo)
    monkeypatch.setattr(prefetch, "fetch_url", lambda url, sha256, path: None)
    assert prefetch.fetch_judge("clip_score") == "clip"
    assert fetched == [("ViT-B-32-quickgelu", "openai")]
    assert prefetch.fetch_judge("ground_truth") == "nothing to download"
    assert prefetch.fetch_judge("hps") == "xswu/HPSv2/HPS_v2.1_compressed.pt"
    assert prefetch.fetch_judge("pick_score") == (
        "yuvalkirstain/PickScore_v1, laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
    )
    assert prefetch.fetch_judge("aesthetic").startswith("clip, ")
    assert prefetch.fetch_judge("clip_r_precision") == "clip, clip"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["prior=sd12"], "There is no prior 'sd12'"),
        (["metric=fid"], "There is no metric 'fid'"),
        (["repo=a/b", "prior=sd21"], "combined with revision= and variant="),
        (["metric="], "Nothing to download"),
        (["prior=sd21", "sead=1"], "did you mean seed?"),
    ],
)
def test_mistakes(arguments, says, capsys):
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert says in error
    assert "Traceback" not in error
