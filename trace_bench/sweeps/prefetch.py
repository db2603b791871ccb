"""`python -m trace_bench.prefetch ...`: download and verify everything a sweep will load.

    python -m trace_bench.prefetch method=sds,vsd,trace prompt_set=gpteval3d   the settings of a sweep
    python -m trace_bench.prefetch prior=sd21,sd15 metric=clip_score           and a metric of the evaluation
    python -m trace_bench.prefetch repo=OWNER/NAME revision=COMMIT             one repository of the hub

Run it on a machine with network access. It prints the variables to export on the compute nodes. With these, a
run loads everything from disk, or reports within seconds which file is missing.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from trace_bench.rewards.base import make_reward
from trace_bench.settings.config import Job
from trace_bench.settings.typed_text import readable_overrides
from trace_bench.sweeps.planning import make_plan
from trace_bench.system.cache import cache_dir
from trace_bench.system.cache import fetch as fetch_url
from trace_bench.system.config_path import conf_dir
from trace_bench.system.errors import TraceBenchError
from trace_bench.system.model_files import PACKAGED, file_sha256, missing_file, resolve
from trace_bench.system.output import forgive_closed_output
from trace_bench.system.text import one_line

TEXTS = ["*.json", "*.txt"]  # tokenizers and configs at the top of a repository
CONFIGS = ["*/*.json", "*/*.txt", "model_index.json"]
NOT_LOADED = ("feature_extractor", "image_encoder", "image_processor", "safety_checker")


@dataclass(frozen=True)
class Target:
    """A model folder or a hub repository."""

    repo: str
    revision: str | None = None
    variant: str | None = None


def targets(jobs: Iterable[Job]) -> list[Target]:
    """The models that the jobs' priors, inits and methods load, without duplicates."""
    found: dict[Target, None] = {}
    for job in jobs:
        prior = job.prior
        for name in ("", "adapter_"):
            if prior.get(f"{name}repo"):
                found[Target(prior[f"{name}repo"], prior.get(f"{name}revision"), prior.get("variant"))] = None
        for spec in (job.init, job.method):
            for key, kind in (spec.get("inputs") or {}).items():
                if kind == "model" and spec.get(key):
                    found[Target(spec[key], spec.get("revision"), spec.get("variant"))] = None
    return list(found)


def fetch(target: Target) -> Path:
    """The target's folder on this machine, complete and with verified content."""
    weights = [f"*/*.{target.variant}.safetensors"] if target.variant else ["*/*.safetensors"]
    folder = resolve(target.repo, target.revision, CONFIGS + weights)
    for name in components(folder):
        if missing_file(folder, [name]) == folder / name / "*.safetensors":  # no such variant
            resolve(target.repo, target.revision, [f"{name}/*"])
    if lacking := missing_file(folder, components(folder)):
        raise TraceBenchError(f"{target.repo} has no {lacking.relative_to(folder)} at this revision.")
    for path in sorted(folder.glob("*/*")):
        if not is_as_promised(path):
            raise TraceBenchError(
                f"{path} is damaged; remove {path.resolve()} and run the command again to download it."
            )
    return folder


def components(folder: Path) -> list[str]:
    """The components of a pipeline that are loaded, from its index; empty if the folder has no index."""
    index = folder / "model_index.json"
    named = json.loads(index.read_text(encoding="utf-8")) if index.is_file() else {}
    return [
        name
        for name, kind in named.items()
        if isinstance(kind, list) and None not in kind and name not in NOT_LOADED
    ]


def is_as_promised(path: Path) -> bool:
    """Whether a file in the hub's cache has the content that its blob name stands for; True for all other
    files.

    Large files are named by their sha256, small ones as in git: the sha1 of "blob <size>", NUL, content.
    """
    real = path.resolve()
    if real.parent.name != "blobs":
        return True
    if len(real.name) == 64:
        return file_sha256(real) == real.name
    content = real.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest() == real.name


def fetch_judge(name: str) -> str:
    """Download the models named in conf/metric/<name>.yaml, except those in the package."""
    path = Path(conf_dir()) / "metric" / f"{name}.yaml"
    if not path.is_file() or name == "default":
        known = ", ".join(
            sorted(found.stem for found in path.parent.glob("*.yaml") if found.stem != "default")
        )
        raise TraceBenchError(f"There is no metric {name!r}; use one of {known}.")
    spec: Mapping[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    try:
        return _download(spec)
    except Exception as error:
        raise TraceBenchError(
            f"The weights of the metric {name} could not be downloaded ({type(error).__name__}: "
            f"{one_line(str(error), 200)}); run the command again, on a machine with network access."
        ) from error


def _download(spec: Mapping[str, Any]) -> str:
    """Download what a metric's YAML names; its paths."""
    models = [*(spec.get("models") or {}).values(), spec.get("clip") or {}]
    fetched = [_open_clip(m["model"], m["pretrained"]) for m in models if m.get("pretrained")]
    if spec.get("repo"):
        from huggingface_hub import hf_hub_download, snapshot_download

        if spec.get("file"):
            fetched.append(hf_hub_download(spec["repo"], spec["file"], revision=spec.get("revision")))
        else:
            wanted = [*TEXTS, "*.safetensors"]
            fetched.append(
                snapshot_download(spec["repo"], revision=spec.get("revision"), allow_patterns=wanted)
            )
        for part, revision in (("tokenizer", None), ("processor", spec.get("processor_revision"))):
            if spec.get(part) and not Path(spec[part]).is_dir():
                fetched.append(snapshot_download(spec[part], revision=revision, allow_patterns=TEXTS))
    if spec.get("url"):
        path = cache_dir() / "weights" / f"{spec['sha256'][:16]}{Path(spec['url']).suffix}"
        if not path.is_file() or file_sha256(path) != spec["sha256"]:
            fetch_url(spec["url"], spec["sha256"], path)
        fetched.append(str(path))
    return ", ".join(fetched) or "nothing to download"


def _open_clip(model: str, tag: str) -> str:
    import open_clip.pretrained as weights

    return str(weights.download_pretrained(weights.get_pretrained_cfg(model, tag)))


def variables() -> dict[str, str]:
    """Environment variables for the nodes, so that they find everything and do not use the network."""
    from huggingface_hub import constants

    return {
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_HUB_CACHE": str(Path(constants.HF_HUB_CACHE).absolute()),
        "TRACE_BENCH_CACHE": str(cache_dir().absolute()),
    }


def fetch_rewards(jobs: Iterable[Job]) -> Iterator[str]:
    """Download the files of the rewards that the jobs' methods maximise; a line for each reward."""
    specs = {json.dumps(job.method["reward"], sort_keys=True) for job in jobs if job.method.get("reward")}
    for spec in sorted(specs):
        made = make_reward(json.loads(spec))
        yield f"reward {type(made).__name__}: {', '.join(map(str, made.files(download=True)[:1]))}"


def wanted(arguments: Sequence[str]) -> tuple[list[Target], list[str], list[Job]]:
    """The targets and metrics requested by the arguments, and the jobs of a sweep."""
    values = dict(argument.partition("=")[::2] for argument in arguments if argument != "-m")
    metrics = [name for name in values.pop("metric", "").strip("[]").split(",") if name]
    if "repo" in values:
        unknown = set(values) - {"repo", "revision", "variant"}
        if unknown:
            raise TraceBenchError(
                f"repo= can be combined with revision= and variant=, not with {', '.join(sorted(unknown))}=."
            )
        return [Target(values["repo"], values.get("revision"), values.get("variant"))], metrics, []
    if not values and not metrics:
        raise TraceBenchError(
            "Nothing to download; give a sweep's settings, prior=NAME, metric=NAME or repo=OWNER/NAME."
        )
    overrides = readable_overrides([f"{key}={value}" for key, value in values.items()], multirun=True)
    jobs = [run.job for run in make_plan(overrides, multirun=True)] if overrides else []
    return targets(jobs), metrics, jobs


def main(arguments: Sequence[str]) -> int:
    """Download each target and print its path; returns 1 if one is not available."""
    forgive_closed_output()
    if not arguments or {"-h", "--help"} & set(arguments):
        print(__doc__)
        return 0
    os.environ.pop("HF_HUB_OFFLINE", None)
    try:
        models, metrics, jobs = wanted(arguments)
        for target in models:
            folder = fetch(target)
            note = " (part of the package)" if target.repo.startswith(PACKAGED) else ""
            print(f"{target.repo}: {folder}{note}", flush=True)
        for line in fetch_rewards(jobs):
            print(line, flush=True)
        for name in metrics:
            print(f"{name}: {fetch_judge(name)}", flush=True)
    except TraceBenchError as error:
        print(f"trace_bench.prefetch: {error}", file=sys.stderr)
        return 1
    print("Everything is available. On the nodes:")
    for key, value in variables().items():
        print(f"  export {key}={shlex.quote(value)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
