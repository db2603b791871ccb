"""Files that other files name, found where they lie on this machine."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath


def find_named(name: str, folders: Sequence[Path]) -> Path | None:
    """The file that another file in `folders` calls `name`; None if there is none.

    Backslashes separate folders, and upper and lower case are the same if no name fits exactly. Of an
    absolute path that does not exist here, the last part is looked for in `folders`.
    """
    name = name.strip().strip('"')
    literal = [folder / name for folder in folders]
    posix = PurePosixPath(name.replace("\\", "/"))
    absolute = posix.is_absolute() or bool(PureWindowsPath(name).drive)
    tried = [*literal, *(_walk(folder, (posix.name,) if absolute else posix.parts) for folder in folders)]
    return next((path for path in tried if path is not None and _is_file(path)), None)


def printable(name: str) -> str:
    """A name from a file for a message."""
    return name.encode("utf-8", "replace").decode()


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long, or with a zero byte
        return False


def _walk(folder: Path, parts: Sequence[str]) -> Path | None:
    """`folder`/`parts`, each part in any case if no entry has its case; None if there is none, or several."""
    for part in parts:
        exact = folder / part
        if part != ".." and not os.path.lexists(exact):
            try:
                alike = [entry for entry in folder.iterdir() if entry.name.lower() == part.lower()]
            except OSError:
                return None
            if len(alike) != 1:
                return None
            exact = alike[0]
        folder = exact
    return folder
