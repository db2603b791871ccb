"""Runs that differ beyond the manifest's identity, such as one method with two learning rates.

Two finished runs with the same method, representation, settings, prompt and seed can differ only in
config.yaml. Averaging them would hide an experiment in an error bar, so the differing keys distinguish them;
where config.yaml is the same too (an input file has changed), the fingerprint does.
"""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from trace_bench.system.errors import UNREADABLE
from trace_bench.system.files import content_of
from trace_bench.system.text import one_line

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # config.yaml is resolved: no interpolations
_LARGEST = 1_000_000  # bytes; ours have some thousand
_DEEPEST = 50
SAME = [
    "prompt_set", "prior", "method", "representation", "guidance_scale", "init", "protocol", "steps",
    "views_per_step", "resolution",
]  # fmt: skip
#: One label for all guidance scales: else a figure over the scale would lose the one that has two variants.
_LABELLED = [key for key in SAME if key != "guidance_scale"]
_EACH = ["guidance_scale", "prompt_id", "seed"]
#: Keys of config.yaml that are not method settings: prompt, seed, paths, choices, logging, how a run starts.
SKIPPED = (
    "prompt", "seed", "output_root", "device", "force", "on_error", "log_every", "checkpoint", "snapshots",
    "renders_at", "choices", "hydra", "lanes", "tracker", "detach", "dry_run",
    "prior.compile", "prior.gradient_checkpointing",
)  # fmt: skip


def add_variants(frame: pd.DataFrame, root: Path, problems: list[str] | None = None) -> pd.DataFrame:
    """Add the column `variant`: empty, or the differing settings as "key=value, ...".

    A config.yaml that cannot be read is told in `problems`; its run is told apart by its fingerprint.
    """
    frame = frame.assign(variant="")
    if frame.empty:
        return frame
    twice = frame.duplicated([*_LABELLED, *_EACH], keep=False)
    found = frame[frame.groupby(_LABELLED, dropna=False)["folder"].transform(_any(twice))]
    for _, part in found.groupby(_LABELLED, dropna=False):
        configs = {
            index: flat_config(root / folder / "config.yaml", problems)
            for index, folder in part["folder"].items()
        }
        differing = _differing(part, configs)
        texts = {
            index: ", ".join(
                f"{key.removeprefix('method.')}={config.get(key, 'none')}" for key in differing if config
            )
            for index, config in configs.items()
        }
        alike = part.assign(text=pd.Series(texts)).duplicated([*_EACH, "text"], keep=False)
        for index, text in texts.items():
            is_unknown = alike[index] or not configs[index]
            words = [text, str(part.loc[index, "fingerprint"])[:8] if is_unknown else ""]
            frame.loc[index, "variant"] = ", ".join(word for word in words if word)
    return frame


def _any(flags: pd.Series) -> Any:
    return lambda column: bool(flags[column.index].any())


def _differing(part: pd.DataFrame, configs: dict[Hashable, dict[str, str]]) -> list[str]:
    """Keys with several values among runs of one scale, prompt and seed."""
    keys: set[str] = set()
    for _, same in part.groupby(_EACH, dropna=False):
        seen = [configs[index] for index in same.index]
        keys |= {key for config in seen for key in config if len({other.get(key) for other in seen}) > 1}
    return sorted(keys)


def flat_config(
    path: Path, problems: list[str] | None = None, skipped: tuple[str, ...] = SKIPPED
) -> dict[str, str]:
    """config.yaml as dotted keys, without those that begin as in `skipped`; empty if it cannot be read."""
    try:
        if path.stat().st_size > _LARGEST:
            raise ValueError("it is too large")
        text = content_of(path)
        _check_shape(text)
        content = yaml.load(text, Loader=_LOADER)
        return {key: value for key, value in _flat(content or {}, "") if not key.startswith(skipped)}
    except FileNotFoundError:
        return {}
    except (OSError, yaml.YAMLError, *UNREADABLE) as error:
        if problems is not None:
            said = one_line(str(error) or type(error).__name__, 200)
            problems.append(
                f"{path} cannot be read ({said}); tables tell its run apart by its fingerprint instead."
            )
        return {}


def _check_shape(text: bytes) -> None:
    """Raise ValueError for aliases, which can grow to gigabytes, and for nesting that exhausts the C stack.

    trace_bench writes neither.
    """
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent) or depth > _DEEPEST:
            raise ValueError("it has YAML aliases or is nested too deep")


def _flat(node: Any, prefix: str) -> list[tuple[str, str]]:
    if isinstance(node, dict):
        return [pair for key, value in node.items() for pair in _flat(value, f"{prefix}{key}.")]
    return [(prefix.rstrip("."), str(node))]
