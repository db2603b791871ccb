"""Plans a command before anything is loaded: all its runs, or one sentence about what is wrong."""

from __future__ import annotations

import numbers
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from trace_bench.runs.identity import RunSpec, runs_of
from trace_bench.settings.config import (
    METADATA,
    Job,
    check_init,
    check_settings,
    settings_of,
    unresolved,
    yaml_of,
)
from trace_bench.settings.inputs import PLACEHOLDERS
from trace_bench.sweeps import resolvers  # noqa: F401  registers the resolvers that conf/ uses
from trace_bench.system.config_path import conf_dir, group_options
from trace_bench.system.errors import TraceBenchError
from trace_bench.system.targets import GIVEN, did_you_mean, locate, parameters

#: Config groups whose settings are arguments of a class.
PARTS = ("method", "representation", "prior", "init")
#: Settings with free text, besides the prompt.
TEXTS = ("method.source", "method.display_name")
_NOT_TEXTS = ("null", "true", "false", "nan", "inf")


def make_plan(overrides: Sequence[str], multirun: bool, config_dir: str | None = None) -> list[RunSpec]:
    """All runs of a command, in the order in which the jobs will make them."""
    extra = _search_path(config_dir)
    composed: dict[tuple[str, ...], Job] = {}
    jobs = []
    for items in _expand(overrides, multirun, extra):
        prompts = [item for item in items if item.startswith("prompt=")]
        others = tuple(item for item in items if not item.startswith("prompt="))
        if others not in composed:  # there may be many prompts; they share one composition
            cfg = _compose([*extra, *others])
            composed[others] = Job.from_config(cfg, cfg.hydra)
        job = composed[others]
        jobs.append(replace(job, prompt=_parse(prompts[-1:])[0].value()) if prompts else job)
    runs = (run for job in jobs for run in runs_of(job))
    return list({run.folder: run for run in runs}.values())


def launcher_of(overrides: Sequence[str], config_dir: str | None = None) -> dict[str, Any]:
    """The launcher settings of a command; swept keys do not affect them."""
    fixed = [item.input_line for item in _parse(overrides) if not item.is_sweep_override()]
    launcher: Any = _compose([*_search_path(config_dir), *map(str, fixed)]).hydra.launcher
    try:
        return OmegaConf.to_container(launcher, resolve=True)  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        raise TraceBenchError(unresolved(error)) from error


def compose_config(
    overrides: Sequence[str], config_dir: str | None = None, root: str = "config"
) -> DictConfig:
    """Compose conf/<root>.yaml with overrides, your own folder and the hydra node.

    Raises:
        TraceBenchError: it cannot be composed; one sentence about what is wrong with the overrides.
    """
    return _compose([*_search_path(config_dir), *overrides], root)


def check_jobs(jobs: Iterable[Job]) -> None:
    """Refuse settings that a method, representation, prior or init does not take; loads no weights."""
    checked = set()
    for job in jobs:
        for group in PARTS:
            spec = getattr(job, group)
            key = (group, spec.get("_target_"), *settings_of(spec))
            if key not in checked:
                check_settings(group, spec)
                checked.add(key)
        check_init(job)


def as_overrides(settings: Mapping[str, Any]) -> list[str]:
    """Python settings as overrides of the command: {"steps": 9, "rig": {"n_views": 8}} is steps=9 and
    rig.n_views=8.
    """
    found = []
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            found += as_overrides({f"{key}.{name}": item for name, item in value.items()})
        else:
            found.append(f"{key}={_as_text(key, value)}")
    return found


def _as_text(key: str, value: Any) -> str:
    """A value in Hydra's grammar; texts are quoted unless they are plain words, such as a group's choice."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (str, Path)):
        text = str(value)
        is_word = key != "prompt" and re.fullmatch(r"[A-Za-z_][\w./-]*", text)
        return text if is_word and text.lower() not in _NOT_TEXTS else _in_quotes(text)
    if isinstance(value, numbers.Integral):
        return str(int(value))
    if isinstance(value, numbers.Real):
        return repr(float(value))
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{name}:{_as_text(key, item)}" for name, item in value.items()) + "}"
    if isinstance(value, Sequence):
        return "[" + ",".join(_as_text(key, item) for item in value) + "]"
    raise TraceBenchError(
        f"{key} cannot be a {type(value).__name__}; give a number, a text, a list or a dict."
    )


def _expand(overrides: Sequence[str], multirun: bool, extra: Sequence[str]) -> list[list[str]]:
    """The overrides of each job, expanded as by Hydra's basic sweeper."""
    parsed = _parse(overrides)
    swept = [item for item in parsed if item.is_sweep_override()]
    if not multirun:
        if swept:
            raise TraceBenchError(f"{swept[0].input_line} sets several values; add -m to sweep over them.")
        return [list(overrides)]
    fixed = [str(item.input_line) for item in parsed if not item.is_sweep_override()]
    sweeper = _compose([*extra, *fixed]).hydra.sweeper
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
    everything = _parse([f"{key}={value}" for key, value in params.items()]) + parsed
    return BasicSweeper.split_arguments(everything, max_batch_size=None)[0]


def readable_overrides(overrides: Sequence[str], multirun: bool) -> list[str]:
    """The overrides with quotes around texts, and around paths with placeholders such as {prompt_id}, if
    Hydra's grammar requires quotes.

    A comma or an apostrophe is part of a text; with -m, a comma separates prompts, as in any sweep.
    """
    return [_readable(item, multirun) for item in overrides]


def _readable(override: str, multirun: bool) -> str:
    key, _, value = override.partition("=")
    if key == "prompt":
        return _quoted(override, multirun)
    is_text = key in TEXTS or any(f"{{{name}}}" in value for name in PLACEHOLDERS)
    if not is_text or not value or value.lstrip()[:1] in ("'", '"', "["):
        return override
    return f"{key}={_in_quotes(value)}"


def _in_quotes(text: str) -> str:
    """Backslashes count double only before a quotation mark, the closing one too."""
    text = re.sub(r'(\\*)("|$)', lambda m: m[1] * 2 + ('\\"' if m[2] else ""), text.strip())
    return f'"{text}"'


def _quoted(override: str, multirun: bool) -> str:
    value = override.removeprefix("prompt=")
    if not re.search(r"[A-Za-z]", value) or value.lstrip()[:1] in ("'", '"', "["):
        return override
    if multirun and _parses(override):
        return override
    texts = [text.strip() for text in value.split(",")] if multirun else [value.strip()]
    return "prompt=" + ",".join(map(_in_quotes, texts))


def _parses(override: str) -> bool:
    try:
        OverridesParser.create().parse_override(override)
    except HydraException:  # also covers characters outside the grammar, not only OverrideParseException
        return False
    return True


def _parse(overrides: Sequence[str]) -> list[Override]:
    try:
        return OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        text = getattr(error, "override", None) or str(error).splitlines()[0]
        raise TraceBenchError(
            f"{text!r} is not key=value; put a value with special characters in quotes."
        ) from error


def _search_path(config_dir: str | None) -> list[str]:
    if config_dir is None:
        return []
    if not Path(config_dir).is_dir():
        raise TraceBenchError(f"--config-dir {config_dir} is not a folder.")
    return [f"hydra.searchpath=['file://{Path(config_dir).resolve()}']"]


def _compose(overrides: Sequence[str], root: str = "config") -> DictConfig:
    """The composed config with its hydra node, or one sentence about what is wrong with the overrides."""
    try:
        with initialize_config_dir(conf_dir(), version_base="1.3", job_name="trace_bench"):
            cfg = compose(root, list(overrides), return_hydra_config=True)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise TraceBenchError(_explain(error, overrides, root)) from error
    if root == "config":
        _check_protocol(cfg, overrides)
        _check_contestant(cfg, overrides)
    return cfg


def _check_protocol(cfg: DictConfig, overrides: Sequence[str]) -> None:
    """Refuse a part of a protocol as the protocol, and a part that does not exist, which Hydra would skip."""
    protocols = group_options(cfg, "protocol")
    if cfg.hydra.runtime.choices.protocol not in protocols:
        raise TraceBenchError(_no_option("protocol", cfg.hydra.runtime.choices.protocol, protocols))
    for item in overrides:
        group, _, option = item.partition("=")
        if group.startswith("protocol/"):
            known = [f"{name}/{part}" for name in protocols for part in group_options(cfg, f"{group}/{name}")]
            if option not in known:
                raise TraceBenchError(_no_option(group, option, known))


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
    set_here = {key: OmegaConf.select(file, key) for key in _leaves(content, "")}
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


def _no_option(group: str, option: str, options: Sequence[str]) -> str:
    listed = f" Options: {', '.join(options)}." if options else ""
    return f"There is no {group} {option!r}{did_you_mean(option, options)}{listed}"


def _explain(error: Exception, overrides: Sequence[str], root: str) -> str:
    """One sentence for Hydra's long error messages about a command line."""
    text = str(error)
    if isinstance(error, MissingConfigException) and (
        found := re.search(r"Could not find '((?:hydra/)?[^/]+)/(.+?)'", text)
    ):
        group, option = found.groups()
        return _no_option(group, option, list(getattr(error, "options", None) or []))
    if text.startswith("Config group override must be"):
        empty = [key for key, _, value in (item.partition("=") for item in overrides) if value == "null"]
        groups = [f"{key}=null" for key in empty if Path(conf_dir(), key).is_dir()]
        return f"{' '.join(groups)} chooses nothing; leave it out."
    if found := re.search(r"Could not override '(.+?)'", text):
        return _unknown_setting(found[1], overrides, root)
    if isinstance(error, ConfigCompositionException) and (
        found := re.search(r"[Ee]rror merging override (.+)", text)
    ):
        return f"{found[1].strip()} cannot be set: {str(error.__cause__ or '').splitlines()[0]}"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " ".join(lines[:2]) or type(error).__name__


def _unknown_setting(key: str, overrides: Sequence[str], root: str) -> str:
    """A sentence about a key that the config does not have, with what the command may have meant."""
    cfg = _config_without_mistakes([item for item in overrides if not item.startswith(f"{key}=")], root)
    known = list(_leaves(OmegaConf.to_container(cfg, resolve=False), "")) if cfg is not None else []
    namesakes = [name for name in known if name.endswith(f".{key}") and ".inputs." not in name]
    if len(namesakes) == 1:
        return f"There is no setting {key!r}; did you mean {namesakes[0]}?"
    parent, _, word = key.rpartition(".")
    if parent in PARTS and cfg is not None:
        return _not_taken(parent, word, cfg[parent], cfg.hydra.runtime.choices[parent])
    siblings = [name for name in known if name.rpartition(".")[0] == parent]
    close = did_you_mean(word, [name.rpartition(".")[2] for name in siblings])
    if parent:
        close = close.replace("did you mean ", f"did you mean {parent}.")
    return f"There is no setting {key!r}{close}"


def _not_taken(group: str, word: str, spec: DictConfig, choice: str) -> str:
    """A sentence about a setting of a method (representation, prior, init) that its YAML does not have."""
    target = locate(group, spec)
    taken = [name for name in parameters(target) or [] if name not in GIVEN.get(group, ())]
    if word in taken:
        return f"{group}.{word} is not in the YAML of {group}={choice}; write +{group}.{word}=... to set it."
    in_yaml = [str(key) for key in spec if key not in METADATA or key in taken]
    names = {
        name: f"{group}.{name}" if name in in_yaml else f"+{group}.{name}" for name in [*in_yaml, *taken]
    }
    close = did_you_mean(word, names)
    for name, written in names.items():
        if close == f"; did you mean {name}?":
            return f"There is no setting '{group}.{word}'; did you mean {written}?"
    listed = ", ".join(names) or "no settings"
    return f"There is no setting '{group}.{word}'; {group}={choice} takes {listed}."


def _config_without_mistakes(overrides: Sequence[str], root: str) -> DictConfig | None:
    """The config with only those choices of the command line that exist."""
    places = [item for item in overrides if item.startswith("hydra.searchpath=")]
    chosen = [item for item in overrides if re.match(r"[a-z_]+=\[?\w+\]?$", item)]
    for attempt in ([*places, *chosen], places, []):
        try:
            with initialize_config_dir(conf_dir(), version_base="1.3", job_name="trace_bench"):
                return compose(root, attempt, return_hydra_config=True)
        except (HydraException, OmegaConfBaseException):
            continue
    return None


def _leaves(node: Any, prefix: str) -> Iterable[str]:
    for key, value in node.items() if isinstance(node, dict) else ():
        yield f"{prefix}{key}"
        yield from _leaves(value, f"{prefix}{key}.")
