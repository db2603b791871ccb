"""Where the Hydra configuration lives, and what a command can choose from it.

It lives beside the packages in a checkout, inside the package in a wheel.
"""

import textwrap
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from trace_bench.system.errors import TraceBenchError

_PACKAGE = Path(__file__).resolve().parents[1]


def conf_dir() -> str:
    """Absolute path of the folder with config.yaml.

    A wheel contains conf/ as trace_bench/conf; a checkout does not. That folder is checked first, so that
    another project's top-level conf/ in site-packages is never used.
    """
    for folder in (_PACKAGE / "conf", _PACKAGE.parent / "conf"):
        if (folder / "config.yaml").is_file():
            return str(folder)
    raise TraceBenchError(
        f"No conf/config.yaml inside {_PACKAGE} or next to it: the installation is incomplete; "
        "install trace_bench again or run it from a full checkout."
    )


def group_options(cfg: DictConfig, group: str) -> list[str]:
    """The options of a config group, in conf/ and in the folder of --config-dir."""
    return sorted({path.stem for folder in _folders(cfg) for path in (folder / group).glob("*.yaml")})


def _folders(cfg: DictConfig) -> list[Path]:
    """Where Hydra looked for the files of a composed config."""
    return [Path(source.path) for source in cfg.hydra.runtime.config_sources if source.schema == "file"]


def _choices(*more: str, _root_: DictConfig) -> str:
    """For --help: the groups that a user chooses from, with their options, one group a line.

    A user chooses what the command's root config names in its defaults. Hydra chooses the optional parts and
    the parts of parts (`protocol/method`, `architecture`), so these are not listed. `more` adds groups.
    """
    name = f"{_root_.hydra.job.config_name}.yaml"
    root = next(folder / name for folder in _folders(_root_) if (folder / name).is_file())
    entries: Any = OmegaConf.to_container(OmegaConf.load(root).defaults)
    named = {key: value for entry in entries if isinstance(entry, dict) for key, value in entry.items()}
    chosen = {key: value for key, value in named.items() if not key.startswith(("optional ", "override "))}
    return "\n".join(
        _line(group, group_options(_root_, group), default)
        for group, default in [*chosen.items(), *((group, None) for group in more)]
    )


def _line(group: str, options: list[str], default: str | list[str] | None) -> str:
    taken = ", ".join(default) if isinstance(default, list) else default
    text = ", ".join(options) + (f" (default: {taken})" if taken else "")
    return textwrap.fill(text, 118, initial_indent=f"  {group:<18}", subsequent_indent=" " * 20)


OmegaConf.register_new_resolver("choices", _choices, replace=True)
