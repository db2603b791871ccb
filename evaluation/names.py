"""What tables and pictures call methods and representations: the `display_name` of their YAML."""

from __future__ import annotations

from pathlib import Path

from omegaconf import OmegaConf

from trace_bench.config_path import conf_dir


def display_names() -> dict[str, dict[str, str]]:
    """{"method": {"sds": "SDS", ...}, "representation": {...}}; what has no display name keeps its own."""
    names: dict[str, dict[str, str]] = {}
    for group in ("method", "representation"):
        names[group] = {}
        for path in sorted((Path(conf_dir()) / group).glob("*.yaml")):
            name = OmegaConf.select(OmegaConf.load(path), "display_name")
            names[group][path.stem] = str(name or path.stem)
    return names
