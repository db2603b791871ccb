"""The command line that all benchmarks share."""

from __future__ import annotations

import argparse


def parser_of(name: str, doc: str | None) -> argparse.ArgumentParser:
    """The parser of `python -m benchmarks.<name>`; --help prints the module's docstring."""
    return argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}",
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
