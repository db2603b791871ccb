"""The identity of a run: the fingerprint of everything that changes its asset, and its folder name."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from trace_bench.external.assets import external_identity
from trace_bench.external.controls import control_identity
from trace_bench.run_folder.manifest import SCHEMA_VERSION, RunIdentity
from trace_bench.settings.config import Job, settings_of
from trace_bench.settings.inputs import contents, located
from trace_bench.settings.prompts import Prompt, PromptSet, load_prompt_set
from trace_bench.system.errors import TraceBenchError
from trace_bench.system.model_files import is_folder, resolve, weight_files, weights_sha256

#: Settings of a prior that change its speed, not its results.
EXECUTION = ("compile", "gradient_checkpointing")
_COMPONENTS = ("unet", "vae", "text_encoder", "text_encoder_2")


#: What the identities of a plan's runs share: a part's settings, by their id, and the part's text in the
#: fingerprint. It holds the settings, so that their id stays theirs.
Shared = dict[int, tuple[Mapping[str, Any], str]]


@dataclass(frozen=True)
class RunSpec:
    """One asset to make: a job's settings and one of its prompts."""

    job: Job
    prompt: Prompt
    prompt_set: PromptSet
    shared: Shared = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def identity(self) -> RunIdentity:
        """The run's identity in the manifest."""
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
        if job.distils:
            return identity
        own = control_identity if "control" in job.method else external_identity
        return own(identity, job.method)

    @cached_property
    def asset(self) -> str:
        """sha256 of everything that changes the asset: no paths, no device, no launcher or evaluation."""
        return _sha256(self._content)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of the asset, its snapshots and its renders of single steps, if there are any: a run without
        them cannot replace one with them."""
        more: dict[str, Any] = {}
        if self.job.distils and self.job.renders_at:
            more["renders_at"] = sorted(set(self.job.renders_at))
        snapshots = self.job.snapshots
        if snapshots["steps"]:
            more["snapshots"] = {"steps": snapshots["steps"], "against": self._against}
        if not more:
            return self.asset
        return _sha256(self._content | {key: _as_json(value) for key, value in more.items()})

    @property
    def _against(self) -> dict[str, Any]:
        """The methods of the snapshots."""
        return {
            name: {**_essence("method", spec), "guidance_scale": spec.get("guidance_scale")}
            for name, spec in self.job.snapshots["against"].items()
        }

    @cached_property
    def _content(self) -> dict[str, str]:
        """Everything that changes the asset, each as JSON."""
        job = self.job
        content: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "prompt": self.prompt.text,
            "seed": job.seed,
        }
        if job.distils:
            content |= {
                "guidance_scale": job.scale,
                "steps": job.steps,
                "views_per_step": job.views_per_step,
                "resolution": job.resolution,
                "background": job.background,
                "cameras": job.cameras,
            }
            if not job.view_phrases:
                content["view_phrases"] = False
        found = {key: _as_json(value) for key, value in content.items()}
        for group in ("method", "prior", *(("representation", "init") if job.distils else ())):
            found[group] = self._part(group, getattr(job, group))
        return found

    def _part(self, group: str, spec: Mapping[str, Any]) -> str:
        """A part's text in the fingerprint, worked out once for all runs of a plan."""
        if id(spec) not in self.shared:
            part = prior_identity(spec) if group == "prior" else _essence(group, spec)
            self.shared[id(spec)] = spec, _as_json(part)
        return self.shared[id(spec)][1]

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


def runs_of(job: Job, prompt_set: PromptSet | None = None, shared: Shared | None = None) -> list[RunSpec]:
    """The runs of a job, in the order of its prompts.

    prompt_set, shared: the job's prompts, and what its runs share with others, if a plan has them already.
    """
    prompt_set = prompt_set or load_prompt_set(job.choices["prompt_set"], job.prompt_set)
    shared = {} if shared is None else shared
    chosen = prompt_set.select(job.prompt)
    return [RunSpec(_for_prompt(job, prompt), prompt, prompt_set, shared) for prompt in chosen]


def _for_prompt(job: Job, prompt: Prompt) -> Job:
    """The job with the placeholders in the file paths of its init or asset filled in."""
    values = {"prompt_id": prompt.prompt_id, "slug": prompt.slug, "seed": job.seed}
    init, method = (located(group, getattr(job, group), values) for group in ("init", "method"))
    return job if (init, method) == (job.init, job.method) else replace(job, init=init, method=method)


def prior_identity(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A prior's part of the fingerprint: a hub repository's revision, or the hash of a folder's weights."""
    content = {key: value for key, value in _essence("prior", spec).items() if key not in EXECUTION}
    for repo, revision in (("repo", "revision"), ("adapter_repo", "adapter_revision")):
        name = content.get(repo)
        if name and is_folder(name):
            if repo == "adapter_repo" and not Path(name).is_dir():
                continue  # a method without an adapter does not need it; the check before the runs knows
            content[repo], content[revision] = _folder_sha256(name, spec), None
        elif name and not content.get(revision):
            raise TraceBenchError(
                f"prior.{repo}={name} needs a commit in prior.{revision}, "
                "so that its weights cannot change unnoticed."
            )
    return content


def _folder_sha256(repo: str, spec: Mapping[str, Any]) -> str:
    """Hash of a model folder's weights and configs (which contain the VAE's scaling factor)."""
    folder = resolve(repo, None, [])
    wanted = [*_COMPONENTS, *([spec["adapter_unet"]] if spec.get("adapter_unet") else [])]
    present = [name for name in wanted if (folder / name).is_dir()]
    weights = weight_files(folder, present, spec.get("variant"))
    return weights_sha256([*weights, *sorted(folder.glob("*/*.json"))])


def _essence(group: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    """A group's class and settings, with files replaced by their hashes."""
    target = spec.get("_target_")
    return {"_target_": target, **_own_source(str(target)), **settings_of(spec), **contents(group, spec)}


def _own_source(target: str) -> dict[str, str]:
    """Hash of the file of a class outside trace_bench, so that a run of an edited class is another run."""
    module = target.rpartition(".")[0]
    if not module or module.partition(".")[0] == "trace_bench":
        return {}
    try:
        found = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return {}  # `locate` says so
    path = Path(found.origin) if found and found.origin else None
    if path is None or not path.is_file():
        return {}
    return {"source": hashlib.sha256(path.read_bytes()).hexdigest()}


def _sha256(content: Mapping[str, str]) -> str:
    """Of a JSON object, given by the JSON of its values."""
    text = ",".join(f"{json.dumps(key)}:{content[key]}" for key in sorted(content))
    return hashlib.sha256(f"{{{text}}}".encode()).hexdigest()


def _as_json(value: Any) -> str:
    return json.dumps(_plain_numbers(value), sort_keys=True, separators=(",", ":"))


def _plain_numbers(value: Any) -> Any:
    """15.0 as 15, so that a scale means the same however it was written."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: _plain_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain_numbers(item) for item in value]
    return value
