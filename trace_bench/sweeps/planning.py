"""Plans a command before anything is loaded: all its runs, or one sentence about what is wrong."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.types import Override, ValueType
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from trace_bench.runs.identity import RunSpec, Shared, runs_of
from trace_bench.settings.composing import PARTS, compose_config, leaves, no_option, parse_overrides
from trace_bench.settings.config import Job, check_init, check_part, check_prior, unresolved, yaml_of
from trace_bench.settings.prompts import PromptSet, load_prompt_set
from trace_bench.sweeps import resolvers  # noqa: F401  registers the resolvers that conf/ uses
from trace_bench.system.config_path import group_options
from trace_bench.system.errors import TraceBenchError


class Fixed:
    """What all jobs of a command share: its overrides without those that sweep; composed once, if needed."""

    def __init__(self, overrides: Sequence[str], config_dir: str | None = None) -> None:
        self._overrides, self._config_dir = overrides, config_dir

    @cached_property
    def config(self) -> DictConfig:
        """The composed config.

        Raises:
            TraceBenchError: as `compose_run`.
        """
        parsed = parse_overrides(self._overrides)
        fixed = [str(item.input_line) for item in parsed if not item.is_sweep_override()]
        return compose_run(fixed, self._config_dir)


def make_plan(
    overrides: Sequence[str], multirun: bool, config_dir: str | None = None, fixed: Fixed | None = None
) -> list[RunSpec]:
    """All runs of a command, in the order in which the jobs will make them.

    fixed: to compose the fixed part for the plan and for `launcher_of` together.
    """
    jobs = _Jobs(config_dir)
    known: dict[str, Any] = {}
    runs: dict[Path, RunSpec] = {}
    for items in _expand(overrides, multirun, fixed or Fixed(overrides, config_dir)):
        prompts = [item for item in items if item.startswith("prompt=")]
        job, prompt_set, shared = jobs.job(tuple(item for item in items if not item.startswith("prompt=")))
        for text in prompts[-1:]:
            if text not in known:
                known[text] = parse_overrides([text])[0].value()
            job = replace(job, prompt=known[text])
        runs |= {run.folder: run for run in runs_of(job, prompt_set, shared)}
    return list(runs.values())


class _Jobs:
    """The jobs of a plan: many prompts and seeds share one composition."""

    def __init__(self, config_dir: str | None) -> None:
        self.config_dir = config_dir
        self._found: dict[tuple[str, ...], tuple[Job, PromptSet, Shared]] = {}
        self._of_any_seed: dict[tuple[str, ...], tuple[Job, PromptSet, Shared]] = {}

    def job(self, overrides: tuple[str, ...]) -> tuple[Job, PromptSet, Shared]:
        """The job of these overrides, its prompts, and what the identities of its runs share."""
        if overrides not in self._found:
            seeds = [item for item in overrides if item.startswith("seed=")]
            others = tuple(item for item in overrides if item not in seeds)
            if len(seeds) == 1 and others in self._of_any_seed:
                job, prompt_set, shared = self._of_any_seed[others]
                seed: Any = parse_overrides(seeds)[0].value()
                self._found[overrides] = replace(job, seed=seed), prompt_set, shared
            else:
                cfg = compose_run(overrides, self.config_dir)
                job = Job.from_config(cfg, cfg.hydra)
                prompt_set = load_prompt_set(job.choices["prompt_set"], job.prompt_set)
                self._found[overrides] = (job, prompt_set, {})
                if len(seeds) == 1 and not _depends_on_seed(cfg):
                    self._of_any_seed[others] = self._found[overrides]
        return self._found[overrides]


def _depends_on_seed(cfg: DictConfig) -> bool:
    """Whether anything but the key itself may change with the seed."""
    own = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
    text = str(OmegaConf.to_container(own, resolve=False))
    named = any("seed" in piece.partition("}")[0] for piece in text.split("${")[1:])
    return named or cfg.hydra.runtime.choices.get("contestant") not in (None, "null")


def launcher_of(fixed: Fixed) -> dict[str, Any]:
    """The launcher settings of a command; swept keys do not affect them."""
    launcher: Any = fixed.config.hydra.launcher
    try:
        return OmegaConf.to_container(launcher, resolve=True)  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        raise TraceBenchError(unresolved(error)) from error


def check_jobs(jobs: Iterable[Job]) -> None:
    """Refuse settings that a method, representation, prior or init does not take; loads no weights."""
    checked: set[str] = set()
    seen: set[tuple[int, ...]] = set()  # jobs of a plan share the settings of their parts
    for job in jobs:
        parts = tuple(id(getattr(job, group)) for group in PARTS)
        if parts in seen:
            continue
        seen.add(parts)
        for group in PARTS:
            spec = getattr(job, group)
            key = json.dumps([group, spec], sort_keys=True, default=str)
            if key not in checked:
                check_part(group, spec)
                checked.add(key)
        check_prior(job)
        check_init(job)


def _expand(overrides: Sequence[str], multirun: bool, fixed: Fixed) -> list[list[str]]:
    """The overrides of each job, expanded as by Hydra's basic sweeper."""
    if not multirun:
        one_value_each(overrides)
        return [list(overrides)]
    parsed = parse_overrides(overrides)
    swept = [item for item in parsed if item.is_sweep_override()]
    for item in swept:
        if item.value_type is ValueType.INTERVAL_SWEEP:
            raise TraceBenchError(
                f"{item.input_line} names no single values; list them, such as {item.key_or_group}=1,2,5 or "
                f"'{item.key_or_group}=range(1,10)'."
            )
    cfg = fixed.config
    sweeper = cfg.hydra.sweeper
    try:
        params: Any = OmegaConf.to_container(sweeper.get("params") or OmegaConf.create(), resolve=True)
    except OmegaConfBaseException as error:
        raise TraceBenchError(unresolved(error)) from error
    named = {item.get_key_element() for item in parsed}
    if (
        "prompt" in params
        and "prompt" not in named
        and any(s.get_key_element() == "prompt_set" for s in swept)
    ):
        raise TraceBenchError(
            "A sweep uses the prompts of one prompt set; use one command per set, or set prompt=... too."
        )
    everything = parse_overrides([f"{key}={value}" for key, value in params.items()])
    everything += [_listed(item, cfg) for item in parsed]
    return BasicSweeper.split_arguments(everything, max_batch_size=None)[0]


def one_value_each(overrides: Sequence[str]) -> None:
    """Refuse a key with several values, which needs -m."""
    for item in parse_overrides(overrides):
        if item.is_sweep_override():
            raise TraceBenchError(f"{item.input_line} sets several values; add -m to sweep over them.")


def _listed(item: Override, cfg: DictConfig) -> Override:
    """The override; with glob(...), one that lists the options which it matches."""
    if item.value_type is not ValueType.GLOB_CHOICE_SWEEP:
        return item
    group = item.get_key_element()
    options = group_options(cfg, group)
    if not options:
        raise TraceBenchError(
            f"{item.input_line}: glob() is for config groups, such as method; list the values."
        )
    found = item.value().filter(options)  # type: ignore[union-attr]
    if not found:
        raise TraceBenchError(f"{item.input_line} matches no {group}. Options: {', '.join(options)}.")
    return parse_overrides([f"{group}={','.join(found)}"])[0]


def compose_run(overrides: Sequence[str], config_dir: str | None = None) -> DictConfig:
    """The composed config of `python -m trace_bench`, with its hydra node; refuses what Hydra would skip.

    Raises:
        TraceBenchError: as `compose_config`; also for a protocol or contestant that does not hold together.
    """
    cfg = compose_config(overrides, config_dir)
    _check_protocol(cfg, overrides)
    _check_contestant(cfg, overrides)
    return cfg


def _check_protocol(cfg: DictConfig, overrides: Sequence[str]) -> None:
    """Refuse a part of a protocol as the protocol, and a part that does not exist, which Hydra would skip."""
    protocols = group_options(cfg, "protocol")
    if cfg.hydra.runtime.choices.protocol not in protocols:
        raise TraceBenchError(no_option("protocol", cfg.hydra.runtime.choices.protocol, protocols))
    for item in overrides:
        group, _, option = item.partition("=")
        if group.startswith("protocol/"):
            known = [f"{name}/{part}" for name in protocols for part in group_options(cfg, f"{group}/{name}")]
            if option not in known:
                raise TraceBenchError(no_option(group, option, known))


def _check_contestant(cfg: DictConfig, overrides: Sequence[str]) -> None:
    """Refuse to change what a contestant sets itself, such as the single step of toy_native.

    Only the prior and the settings of its method may change.
    """
    choices = cfg.hydra.runtime.choices
    name = choices.get("contestant")
    if name in (None, "null"):
        return
    file = OmegaConf.load(yaml_of("contestant", str(name), cfg.hydra))
    content: Any = OmegaConf.to_container(file, resolve=False)
    choose = [entry for entry in content.pop("defaults", ()) if isinstance(entry, dict)]
    chosen = {key.removeprefix("override /"): value for entry in choose for key, value in entry.items()}
    chosen.pop("prior", None)
    set_here = {key: OmegaConf.select(file, key) for key in leaves(content, "")}
    for item in overrides:
        key = item.lstrip("+~").partition("=")[0]
        is_other_option = key in chosen and choices.get(key) != chosen[key]
        own = None if key.startswith("method.") else set_here.get(key)
        is_other_value = (
            own is not None and not OmegaConf.is_config(own) and OmegaConf.select(cfg, key) != own
        )
        if is_other_option or is_other_value:
            raise TraceBenchError(
                f"contestant={name} sets {key} itself; leave out {item}, or this contestant."
            )
