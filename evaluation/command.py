"""Shared by the evaluation commands: the output root and error handling."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path

from omegaconf import DictConfig

from trace_bench.system.errors import TraceBenchError


def command(run: Callable[[DictConfig], int]) -> Callable[[DictConfig], None]:
    """Turn a function that returns an exit code into a Hydra task; print user errors as one sentence."""

    @functools.wraps(run)
    def task(config: DictConfig) -> None:
        try:
            code = run(config)
        except TraceBenchError as error:
            print(error, file=sys.stderr)
            code = 2
        if code:
            sys.exit(code)

    return task


def output_root(config: DictConfig) -> Path:
    """The folder that holds runs/; it must exist."""
    root = Path(str(config.output_root)).expanduser()
    if not root.is_dir():
        raise TraceBenchError(
            f"The folder {root} does not exist: start runs with `python -m trace_bench` first, "
            "or point output_root=FOLDER to existing runs."
        )
    return root
