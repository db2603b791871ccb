"""Composes a command's configuration with Hydra; every mistake in it is one sentence."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from trace_bench.settings.config import METADATA
from trace_bench.settings.typed_text import as_data
from trace_bench.system.config_path import conf_dir
from trace_bench.system.errors import TraceBenchError
from trace_bench.system.targets import GIVEN, did_you_mean, locate, parameters

_NOT_A_NAME = re.compile(r"nan|inf|true|false|[-+]?\d[\d._e+-]*", re.IGNORECASE)
#: Config groups whose settings are arguments of a class.
PARTS = ("method", "representation", "prior", "init")


def compose_config(
    overrides: Sequence[str], config_dir: str | None = None, root: str = "config"
) -> DictConfig:
    """Compose conf/<root>.yaml with overrides, your own folder and the hydra node.

    Raises:
        TraceBenchError: it cannot be composed; one sentence about what is wrong with the overrides.
    """
    parse_overrides(overrides)
    folders = [Path(conf_dir()), *([Path(config_dir)] if config_dir else [])]
    overrides = [*search_path(config_dir), *(_as_option(as_data(item), folders) for item in overrides)]
    try:
        with initialize_config_dir(conf_dir(), version_base="1.3", job_name="trace_bench"):
            return compose(root, overrides, return_hydra_config=True)
    except (HydraException, OmegaConfBaseException, ValueError, TypeError) as error:
        raise TraceBenchError(_explain(error, overrides, root, folders)) from error


def _as_option(override: str, folders: Sequence[Path]) -> str:
    """The override; the option of a group in quotes if Hydra would read its name as a number or a flag."""
    key, _, value = override.partition("=")
    is_group = re.fullmatch(r"[\w/]+", key) and any((folder / key).is_dir() for folder in folders)
    return f"{key}='{value}'" if is_group and _NOT_A_NAME.fullmatch(value) else override


def parse_overrides(overrides: Sequence[str]) -> list[Override]:
    """The overrides as Hydra's grammar reads them.

    Raises:
        TraceBenchError: one of them is not key=value.
    """
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        text = getattr(error, "override", None) or next((item for item in overrides if not _parses(item)), "")
        raise TraceBenchError(
            f"{text!r} is not key=value; put a value with special characters in quotes."
        ) from error
    for item in overrides:
        if item.startswith("="):
            raise TraceBenchError(f"{item!r} is not key=value; put the name of a setting before the =.")
    return parsed


def _parses(override: str) -> bool:
    try:
        OverridesParser.create().parse_override(override)
    except HydraException:
        return False
    return True


def search_path(config_dir: str | None) -> list[str]:
    """The override that adds the folder of --config-dir to conf/."""
    if config_dir is None:
        return []
    if not Path(config_dir).is_dir():
        raise TraceBenchError(f"--config-dir {config_dir} is not a folder.")
    return [f"hydra.searchpath=['file://{Path(config_dir).resolve()}']"]


def no_option(group: str, option: str, options: Sequence[str]) -> str:
    """A sentence about an option that a config group does not have."""
    listed = f" Options: {', '.join(options)}." if options else ""
    return f"There is no {group} {option!r}{did_you_mean(option, options)}{listed}"


def _explain(error: Exception, overrides: Sequence[str], root: str, folders: Sequence[Path]) -> str:
    """One sentence for Hydra's long error messages about a command line."""
    text = str(error)
    if isinstance(error, MissingConfigException) and (
        found := re.search(r"Could not (?:find|load) '((?:hydra/)?[^/]+)/(.+?)'", text)
    ):
        group, option = found.groups()
        options = {path.stem for folder in folders for path in (folder / group).glob("*.yaml")}
        return no_option(group, option, sorted({*options, *(getattr(error, "options", None) or [])}))
    if text.startswith("Config group override must be") or isinstance(error, TypeError):
        chosen = [item for item in overrides if (Path(conf_dir()) / item.partition("=")[0]).is_dir()]
        empty = [item for item in chosen if item.endswith("=null")]
        if empty:
            return f"{' '.join(empty)} chooses nothing; leave it out."
        named = " ".join(chosen) or "The command"
        return f"{named} names no option; use the name of a file in conf/, without .yaml."
    if removed := [item for item in overrides if item.startswith("~")]:
        return f"{' '.join(removed)} takes away what the configuration needs; leave it out."
    if text.startswith("Ambiguous value for argument"):
        item = text.split("'")[1]
        key, _, values = item.partition("=")
        return f"{item} names several options; write {key}=[{values}], or add -m to sweep over them."
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
    known = list(leaves(OmegaConf.to_container(cfg, resolve=False), "")) if cfg is not None else []
    namesakes = [name for name in known if name.endswith(f".{key}") and ".inputs." not in name]
    if len(namesakes) == 1:
        return f"There is no setting {key!r}; did you mean {namesakes[0]}?"
    parent, _, word = key.rpartition(".")
    if parent in PARTS and cfg is not None and parent in cfg:
        return _not_taken(parent, word, cfg[parent], cfg.hydra.runtime.choices[parent])
    if parent == "prompt_set" and word in ("file", "folder", "sha256", "limit") and cfg is not None:
        return f"prompt_set={cfg.hydra.runtime.choices.prompt_set} takes no {word}; add prompt_set=file."
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


def leaves(node: Any, prefix: str) -> Iterable[str]:
    """The dotted keys of a nested dict, groups included."""
    for key, value in node.items() if isinstance(node, dict) else ():
        yield f"{prefix}{key}"
        yield from leaves(value, f"{prefix}{key}.")
