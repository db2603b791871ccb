"""`python -m trace_bench.export`: copies of assets and films for other programs.

    python -m trace_bench.export FOLDER ... [format=ply,splat,glb,gif,mp4] [to=exports]

A FOLDER is a run folder, or an output root, which stands for its finished runs. Without `format`, each run
gives every format that it has. The files get the names of their runs; the run folders stay as they are.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from trace_bench.run_folder.index import read_index
from trace_bench.run_folder.manifest import is_done, read_manifest
from trace_bench.run_folder.reading import Run
from trace_bench.system.errors import TraceBenchError
from trace_bench.system.files import write_atomic
from trace_bench.system.output import forgive_closed_output
from trace_bench.system.text import printable

GIF_SECONDS = 4.0
_GIF_FRAMES = 60  # more than 20 a second make a file large, and some viewers slow


#: Representations whose asset.ply is a mesh; that of an external asset is its kind.
_MESHES = ("nerf", "mesh")


class NotThereError(TraceBenchError):
    """A run has nothing of a format."""


def export(run: Run, kind: str, path: Path) -> None:
    """Write one format of a finished run.

    kind: one of FORMATS.

    Raises:
        NotThereError: the run has no asset of this format, such as a .splat of a NeRF.
        TraceBenchError: a file of the run is missing or broken.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    FORMATS[kind](run, path)


def _ply(run: Run, path: Path) -> None:
    _copy(run, "asset.ply", path)


def _splat(run: Run, path: Path) -> None:
    from trace_bench.system.splat_file import splat_of_ply

    if run.identity.representation in _MESHES or not _has(run, "asset.ply"):
        raise NotThereError(f"{run.folder} has no 3D Gaussians.")
    write_atomic(path, splat_of_ply(run.folder / "asset.ply"))


def _glb(run: Run, path: Path) -> None:
    _copy(run, "asset.glb", path)


def _mp4(run: Run, path: Path) -> None:
    _copy(run, "turntable.mp4", path)


def _gif(run: Run, path: Path) -> None:
    """One turn of the renders, which repeats for ever."""
    import io

    from PIL import Image

    count = run.manifest.views
    if count < 2:
        raise NotThereError(f"{run.folder} has no views to turn.")
    chosen = [i * count // min(count, _GIF_FRAMES) for i in range(min(count, _GIF_FRAMES))]
    frames = []
    for view in chosen:
        try:
            with Image.open(run.rgb(view)) as picture:
                frames.append(picture.convert("RGB").quantize(256, dither=Image.Dither.FLOYDSTEINBERG))
        except OSError as error:
            raise TraceBenchError(
                f"{run.rgb(view)} cannot be read; repeat the run with force=true."
            ) from error
    pause_ms = max(20, round(GIF_SECONDS * 100 / len(frames)) * 10)
    buffer = io.BytesIO()
    frames[0].save(
        buffer, "GIF", save_all=True, append_images=frames[1:], duration=pause_ms, loop=0, optimize=False
    )
    write_atomic(path, buffer.getvalue())


FORMATS: dict[str, Callable[[Run, Path], None]] = {
    "ply": _ply,
    "splat": _splat,
    "glb": _glb,
    "gif": _gif,
    "mp4": _mp4,
}


def _has(run: Run, name: str) -> bool:
    return name in run.manifest.files


def _copy(run: Run, name: str, path: Path) -> None:
    if not _has(run, name):
        raise NotThereError(f"{run.folder} has no {name}.")
    if not (run.folder / name).is_file():
        raise TraceBenchError(f"{run.folder / name} is missing; repeat the run with force=true.")
    shutil.copyfile(run.folder / name, path)


def runs_in(folder: Path) -> list[Run]:
    """The run in a folder, or the finished runs of an output root.

    Raises:
        TraceBenchError: the folder is neither.
    """
    manifest = read_manifest(folder) if folder.is_dir() else None
    if manifest is not None:
        if not is_done(folder, manifest):
            raise TraceBenchError(f"The run in {folder} is not finished; repeat its command.")
        return [Run(folder, manifest)]
    runs = list(read_index(folder).runs.values()) if folder.is_dir() else []
    done = [run for run in runs if run.manifest.status == "done"]
    if not done:
        raise TraceBenchError(f"{folder} is no run folder, and no output root with finished runs.")
    return done


def name_of(run: Run) -> str:
    """A file name for a run: method, representation, prompt set, prompt, and the rest of its identity."""
    return "-".join(run.folder.resolve().parts[-5:])


def main(argv: Sequence[str]) -> int:
    """Run the command line; returns the exit code."""
    forgive_closed_output()
    parser = argparse.ArgumentParser(
        prog="python -m trace_bench.export",
        description="Copy assets and films for other programs.",
        epilog=f"format: {', '.join(FORMATS)}; default: all that a run has. to: default exports.",
    )
    parser.add_argument(
        "words", nargs="+", metavar="FOLDER", help="a run folder or an output root; format=..., to=..."
    )
    words = parser.parse_args(list(argv)).words
    try:
        folders, asked, to = _understood(words)
        runs = [run for folder in folders for run in runs_in(folder)]
        made = [_export_all(run, asked, to) for run in runs]
    except TraceBenchError as error:
        print(f"trace_bench.export: {printable(str(error))}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"trace_bench.export: {error.filename} cannot be written ({error.strerror}).", file=sys.stderr)
        return 2
    print(f"{sum(written for written, _ in made)} files of {len(runs)} runs in {to}")
    return 2 if any(failed for _, failed in made) else 0


def _understood(words: Sequence[str]) -> tuple[list[Path], list[str], Path]:
    """The folders, the formats that were asked for (none: all), and where the files go."""
    keys = dict(word.partition("=")[::2] for word in words if word.startswith(("format=", "to=")))
    folders = [Path(word).expanduser() for word in words if not word.startswith(("format=", "to="))]
    asked = [name for name in keys.get("format", "").split(",") if name]
    if unknown := [name for name in asked if name not in FORMATS]:
        raise TraceBenchError(f"format={unknown[0]} is not known; use {', '.join(FORMATS)}.")
    if not folders:
        raise TraceBenchError("name a run folder, or an output root such as outputs.")
    return folders, asked, Path(keys.get("to") or "exports").expanduser()


def _export_all(run: Run, asked: Sequence[str], to: Path) -> tuple[int, int]:
    """Write the formats of a run; what it does not have is said only if it was asked for.

    Returns: how many were written, and how many could not be because a file of the run is missing or broken.
    """
    written = failed = 0
    for kind in asked or FORMATS:
        path = to / f"{name_of(run)}.{kind}"
        try:
            export(run, kind, path)
        except NotThereError as error:
            if asked:
                print(f"Left out: {kind}, because {printable(str(error))}", file=sys.stderr)
        except TraceBenchError as error:
            print(f"Not written: {kind}. {printable(str(error))}", file=sys.stderr)
            failed += 1
        else:
            written += 1
    return written, failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
