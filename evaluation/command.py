"""What the evaluation commands share: one root config and one way to fail."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path

from omegaconf import DictConfig

from trace_bench.system.errors import TraceBenchError


def command(run: Callable[[DictConfig], int]) -> Callable[[DictConfig], None]:
    """Make a Hydra task of a function that returns an exit code; users' mistakes take one sentence."""

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
    """The folder that holds runs/; it has to exist."""
    root = Path(str(config.output_root)).expanduser()
    if not root.is_dir():
        raise TraceBenchError(
            f"There is no folder {root}: make runs with `python -m trace_bench`, "
            "or name theirs with output_root=FOLDER."
        )
    return root
