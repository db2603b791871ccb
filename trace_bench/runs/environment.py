"""The environment of a run: versions, the code's commit, the machine, the Slurm job."""

from __future__ import annotations

import hashlib
import os
import platform
import socket
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import trace_bench

PACKAGES = (
    "torch",
    "diffusers",
    "transformers",
    "peft",
    "accelerate",
    "gsplat",
    "safetensors",
    "numpy",
    "numba",
    "hydra-core",
    "hydra-submitit-launcher",
    "submitit",
    "open-clip-torch",
    "image-reward",
    "openai",
)
SLURM = (
    "SLURM_JOB_ID",
    "SLURM_ARRAY_JOB_ID",
    "SLURM_ARRAY_TASK_ID",
    "SLURM_RESTART_COUNT",
    "SLURM_JOB_PARTITION",
)
#: Folders of a checkout whose files decide what a run does.
_CODE = ("trace_bench", "evaluation", "conf")


@cache
def describe_environment(device: str) -> dict[str, Any]:
    """The manifest's `environment` for a run on torch device `device`."""
    return {
        "trace_bench": trace_bench.__version__,
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        **_code(),
        "platform": platform.platform(),
        "host": socket.gethostname(),
        "cpu": _cpu_name(),
        "cpus": len(os.sched_getaffinity(0)),
        **_device(device),
        "slurm": {key.removeprefix("SLURM_").lower(): os.environ[key] for key in SLURM if key in os.environ},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _code() -> dict[str, Any]:
    """Commit of this package's checkout, and the hash of its changes if it has any; None if installed."""
    nothing = {"commit": None, "dirty": None, "diff_sha256": None}
    diff = code_diff()
    if diff is None:
        return nothing
    try:
        commit = _git("rev-parse", "HEAD").decode().strip()
    except (OSError, subprocess.SubprocessError):
        return nothing
    digest = hashlib.sha256(diff).hexdigest() if diff else None
    return {"commit": commit, "dirty": bool(diff), "diff_sha256": digest}


@cache
def code_diff() -> bytes | None:
    """The changes of this package's checkout since its commit, as a patch; None if there is no checkout.

    New files in the folders that runs use belong to it, before git knows them too.
    """
    if not (_checkout() / ".git").exists():
        return None
    try:
        new = _git("ls-files", "-z", "--others", "--exclude-standard", "--", *_CODE).decode().split("\0")
        return _diff("HEAD") + b"".join(_diff("--no-index", "--", os.devnull, file) for file in new if file)
    except (OSError, subprocess.SubprocessError):
        return None


def _diff(*args: str) -> bytes:
    return _git("diff", "--binary", "--no-color", "--no-ext-diff", "--no-textconv", *args)


def _checkout() -> Path:
    return Path(trace_bench.__file__).resolve().parents[1]


def _git(*args: str) -> bytes:
    command = ["git", "-C", str(_checkout()), *args]
    done = subprocess.run(command, check=False, capture_output=True, timeout=20)
    if done.returncode != 0 and not (done.returncode == 1 and "--no-index" in args):  # 1: they differ
        raise subprocess.CalledProcessError(done.returncode, command)
    return done.stdout


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine()
    )


def _device(device: str) -> dict[str, Any]:
    import torch

    if not device.startswith("cuda"):
        return {"device": device, "gpu": None, "cuda": None, "torch_threads": torch.get_num_threads()}
    return {
        "device": device,
        "gpu": torch.cuda.get_device_name(device),
        "cuda": torch.version.cuda,
        "torch_threads": torch.get_num_threads(),
    }
