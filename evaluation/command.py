"""Shared by the evaluation commands: the command line, the output root, the terminal and error handling."""

from __future__ import annotations

import errno
import functools
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import hydra
from hydra._internal.utils import get_args_parser
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from trace_bench.settings.composing import compose_config, parse_overrides
from trace_bench.settings.config import unresolved
from trace_bench.system.config_path import conf_dir
from trace_bench.system.errors import TraceBenchError
from trace_bench.system.output import forgive_closed_output
from trace_bench.system.text import printable, tolerate_terminal

EXIT_MISTAKE = 2
_NO_ROOM = {
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.EIO, errno.EEXIST,
    errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG,
}  # fmt: skip
_NOT_TASKS = ("help", "hydra_help", "version", "shell_completion")


def command(config_name: str) -> Callable[[Callable[[DictConfig], int]], Callable[[], None]]:
    """Turn a function of the composed conf/<config_name>.yaml, which returns an exit code, into a command.

    The command reads sys.argv. A mistake in it, and every TraceBenchError, is one sentence and exit code 2.
    """

    def decorate(run: Callable[[DictConfig], int]) -> Callable[[], None]:
        @functools.wraps(run)
        def task(config: DictConfig) -> None:
            if code := exit_code(run, config):
                sys.exit(code)

        def main() -> None:
            forgive_closed_output()
            tolerate_terminal()
            try:
                _check(sys.argv[1:], config_name)
            except TraceBenchError as error:
                print(printable(str(error)), file=sys.stderr)
                sys.exit(EXIT_MISTAKE)
            hydra.main(version_base="1.3", config_path=conf_dir(), config_name=config_name)(task)()

        main.__doc__, main.__name__, main.__module__ = run.__doc__, run.__name__, run.__module__
        return main

    return decorate


def _check(arguments: list[str], config_name: str) -> None:
    """Refuse a command line that Hydra would refuse with a traceback."""
    args = get_args_parser().parse_intermixed_args(arguments)
    if any(getattr(args, name, None) for name in _NOT_TASKS):
        return
    single = []
    for item in parse_overrides(args.overrides):
        if not item.is_sweep_override():
            single.append(str(item.input_line))
        elif not args.multirun:
            key, _, values = str(item.input_line).partition("=")
            raise TraceBenchError(
                f"{item.input_line} sets several values; write {shlex.quote(f'{key}=[{values}]')} for a "
                "list, or add -m to run the command for each."
            )
    if args.multirun and (args.cfg or args.info):
        raise TraceBenchError("--cfg and --info show one configuration; leave out -m.")
    compose_config(single, args.config_dir, config_name)


def exit_code(run: Callable[[DictConfig], int], config: DictConfig) -> int:
    """What `run` returns; 2 after a user's error or on a full or read-only disk, told in one sentence."""
    try:
        return run(config)
    except TraceBenchError as error:
        print(printable(str(error)), file=sys.stderr)
    except OmegaConfBaseException as error:  # a setting that refers to nothing, or was deleted
        print(printable(unresolved(error)), file=sys.stderr)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        where = error.filename or f"A file under {config.output_root}"
        print(
            f"{where} cannot be written ({error.strerror}): make room, or get the right to write there, "
            "then run the command again.",
            file=sys.stderr,
        )
    return EXIT_MISTAKE


def output_root(config: DictConfig) -> Path:
    """The folder that holds runs/; it must exist."""
    root = Path(str(config.output_root)).expanduser()
    if not root.is_dir():
        raise TraceBenchError(
            f"The folder {root} does not exist: start runs with `python -m trace_bench` first, "
            "or point output_root=FOLDER to existing runs."
        )
    return root
