"""Who a run is: the fingerprint of everything that changes its asset, and the folder named from it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from trace_bench.external.assets import external_identity
from trace_bench.run_folder.manifest import SCHEMA_VERSION, RunIdentity
from trace_bench.settings.config import Job, settings_of
from trace_bench.settings.inputs import contents, located
from trace_bench.settings.prompts import Prompt, PromptSet, load_prompt_set
from trace_bench.system.errors import TraceBenchError
from trace_bench.system.model_files import is_folder, resolve, weight_files, weights_sha256

#: Settings of a prior that change how fast it computes, not what.
EXECUTION = ("compile",)
#: Settings that came later, by class or part of the config, with the value that says what runs did before. At
#: this value they are not in the fingerprint, so that the runs which were made before them are found.
LATER: dict[str, dict[str, Any]] = {
    "cameras": {"distribution": "per_view", "azimuth_strata": None},
    "trace_bench.methods.csd.CSD": {"weighting": "sds"},
    "trace_bench.methods.trace.TraCe": {"adapter_trains": "lora_and_camera"},
    "trace_bench.representations.gaussians.Gaussians": {"colors": "bounded"},
    "trace_bench.representations.nerf.NeRF": {
        "shading": {"textureless_shows": "light", "ambient_light": 0.1, "diffuse_light": 0.9}
    },
}
_COMPONENTS = ("unet", "vae", "text_encoder", "text_encoder_2")


@dataclass(frozen=True)
class RunSpec:
    """One asset to make: a job's settings and one of its prompts."""

    job: Job
    prompt: Prompt
    prompt_set: PromptSet

    @cached_property
    def identity(self) -> RunIdentity:
        """What the manifest calls the run."""
        job = self.job
        identity = RunIdentity(
            method=job.choices["method"],
            representation=job.choices["representation"],
            init=job.choices["init"],
            prior=job.choices["prior"],
            protocol=job.choices["protocol"],
            prompt_set=self.prompt_set.name,
            prompt_id=self.prompt.prompt_id,
            prompt=self.prompt.text,
            guidance_scale=job.scale,
            seed=job.seed,
            steps=job.steps,
            views_per_step=job.views_per_step,
            resolution=job.resolution,
        )
        return identity if job.distils else external_identity(identity, job.method)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over all that changes the asset: no path, no device, nothing of launching or evaluation."""
        job = self.job
        content = {
            "schema_version": SCHEMA_VERSION,
            "method": _essence("method", job.method),
            "prior": prior_identity(job.prior),
            "prompt": self.prompt.text,
            "seed": job.seed,
        }
        if job.distils:
            content |= {
                "representation": _essence("representation", job.representation),
                "init": _essence("init", job.init),
                "guidance_scale": job.scale,
                "steps": job.steps,
                "views_per_step": job.views_per_step,
                "resolution": job.resolution,
                "background": job.background,
                "cameras": _without(job.cameras, LATER["cameras"]),
            }
        if job.snapshots["steps"]:  # a run without them cannot stand for one that has them
            against = {
                name: {**_essence("method", spec), "guidance_scale": spec.get("guidance_scale")}
                for name, spec in job.snapshots["against"].items()
            }
            content["snapshots"] = {"steps": job.snapshots["steps"], "against": against}
        text = json.dumps(_plain_numbers(content), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @cached_property
    def folder(self) -> Path:
        """outputs/runs/<method>/<representation>/<prompt_set>/<prompt_id>-<slug>/cfg<scale>-seed<seed>-<hash8>"""
        run = self.identity
        scale = "none" if run.guidance_scale is None else f"{run.guidance_scale:g}"
        return (
            self.job.root
            / "runs"
            / run.method
            / run.representation
            / run.prompt_set
            / f"{run.prompt_id}-{self.prompt.slug}"
            / f"cfg{scale}-seed{run.seed}-{self.fingerprint[:8]}"
        )


def runs_of(job: Job) -> list[RunSpec]:
    """The runs that a job asks for, in the order of its prompts."""
    prompt_set = load_prompt_set(job.choices["prompt_set"], job.prompt_set)
    return [RunSpec(_for_prompt(job, prompt), prompt, prompt_set) for prompt in prompt_set.select(job.prompt)]


def _for_prompt(job: Job, prompt: Prompt) -> Job:
    """The job with the paths of the files that its start or its asset is made from, complete."""
    values = {"prompt_id": prompt.prompt_id, "slug": prompt.slug, "seed": job.seed}
    init, method = (located(group, getattr(job, group), values) for group in ("init", "method"))
    return job if (init, method) == (job.init, job.method) else replace(job, init=init, method=method)


def prior_identity(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A prior's part of the fingerprint: a hub repository is its revision, a folder its weights' hash."""
    content = {key: value for key, value in _essence("prior", spec).items() if key not in EXECUTION}
    for repo, revision in (("repo", "revision"), ("adapter_repo", "adapter_revision")):
        name = content.get(repo)
        if name and is_folder(name):
            content[repo], content[revision] = _folder_sha256(name, spec), None
        elif name and not content.get(revision):
            raise TraceBenchError(
                f"prior.{repo}={name} needs a commit in prior.{revision}, "
                "so that its weights cannot change unseen."
            )
    return content


def _folder_sha256(repo: str, spec: Mapping[str, Any]) -> str:
    """Hash of weights and configs (a VAE's scaling factor is one) in a model folder, wherever it lies."""
    folder = resolve(repo, None, [])
    wanted = [*_COMPONENTS, *([spec["adapter_unet"]] if spec.get("adapter_unet") else [])]
    present = [name for name in wanted if (folder / name).is_dir()]
    weights = weight_files(folder, present, spec.get("variant"))
    return weights_sha256([*weights, *sorted(folder.glob("*/*.json"))])


def _essence(group: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    """A group's class and settings, files by their content."""
    target = spec.get("_target_")
    settings = _without({**settings_of(spec), **contents(group, spec)}, LATER.get(str(target), {}))
    return {"_target_": target, **settings}


def _without(settings: Mapping[str, Any], later: Mapping[str, Any]) -> dict[str, Any]:
    """The settings but for those that have the value in `later`; a mapping there goes into the settings'."""
    kept = {}
    for key, value in settings.items():
        if isinstance(value, dict) and isinstance(later.get(key), dict):
            kept[key] = _without(value, later[key])
        elif key not in later or value != later[key]:
            kept[key] = value
    return kept


def _plain_numbers(value: Any) -> Any:
    """15.0 as 15, so that a scale means the same however it was typed."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: _plain_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain_numbers(item) for item in value]
    return value
