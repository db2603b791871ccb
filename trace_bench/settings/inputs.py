"""Input files of a run: located for each prompt, and identified by their content.

A group's YAML lists them under `inputs`, setting -> kind, so that an init or method that reads a file needs
no other code: `file` (with the materials and textures of a mesh), `asset` (a file, or a folder of images),
`run` (the folder of a finished run) or `model` (a folder of weights, or a hub repository).
"""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trace_bench.run_folder.manifest import is_done, read_manifest
from trace_bench.run_folder.pictures import images_in
from trace_bench.system.errors import TraceBenchError
from trace_bench.system.mesh_files import mesh_files
from trace_bench.system.model_files import file_sha256, is_folder, model_files, resolve, weights_sha256

KINDS = ("file", "asset", "run", "model")
#: Placeholders in paths, so that one command works for a whole prompt set.
PLACEHOLDERS = ("prompt_id", "slug", "seed")


def located(group: str, spec: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The group's settings with every input path completed: placeholders {prompt_id}, {slug} and {seed} are
    replaced by `values`, and a pattern with `*` or `?` by its only match.
    """
    filled = dict(spec)
    for key, kind in _declared(group, spec).items():
        value = spec.get(key)
        if isinstance(value, str) and kind != "model":
            filled[key] = _one_path(f"{group}.{key}", _fill(f"{group}.{key}", value, values))
    return filled


def contents(group: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    """Stand-ins for the inputs in a fingerprint: setting -> hash of the content, independent of its path."""
    found = {}
    for key, kind in _declared(group, spec).items():
        value = spec.get(key)
        if value is not None:
            found[key] = _identify(f"{group}.{key}", kind, str(value))
    return found


def _declared(group: str, spec: Mapping[str, Any]) -> dict[str, str]:
    declared = dict(spec.get("inputs") or {})
    for key, kind in declared.items():
        if kind not in KINDS:
            raise TraceBenchError(f"{group}.inputs.{key}={kind!r} is not one of {', '.join(KINDS)}.")
    return declared


def _fill(name: str, value: str, values: Mapping[str, Any]) -> str:
    try:
        return value.format_map({key: values[key] for key in PLACEHOLDERS})
    except (KeyError, ValueError, IndexError) as error:
        known = ", ".join(f"{{{key}}}" for key in PLACEHOLDERS)
        raise TraceBenchError(f"{name}={value} has unknown placeholders; use {known}.") from error


def _one_path(name: str, value: str) -> str:
    path = str(Path(value).expanduser())
    if not glob.has_magic(path) or Path(path).exists():
        return path
    matches = sorted(glob.glob(path))  # noqa: PTH207  Path.glob takes no absolute patterns
    if len(matches) != 1:
        first = f", the first two {matches[0]} and {matches[1]}" if matches else ""
        raise TraceBenchError(f"{name}={path} must match one path, but matches {len(matches)}{first}.")
    return matches[0]


def _identify(name: str, kind: str, value: str) -> str:
    path = Path(value).expanduser()
    if kind == "run":
        return _fingerprint_of_run(name, path)
    if kind == "model":
        return weights_sha256(model_files(resolve(value, None, []))) if is_folder(value) else value
    if kind == "asset" and path.is_dir():
        return _sha256([*images_in(path), *sorted(path.glob("normal_*.png"))], path)
    if not path.is_file():
        wanted = "an existing file or folder" if kind == "asset" else "an existing file"
        raise TraceBenchError(f"The file {path} does not exist; set {name} to the path of {wanted}.")
    others = mesh_files(path)
    if others or path.suffix.lower() == ".obj":
        return _sha256([path, *others], path.parent)
    return file_sha256(path)


def _fingerprint_of_run(name: str, folder: Path) -> str:
    manifest = read_manifest(folder)
    if manifest is None:
        raise TraceBenchError(f"{folder} is not a run folder; set {name} to a folder with a manifest.json.")
    if not is_done(folder, manifest):
        raise TraceBenchError(
            f"The run in {folder} is not finished (status {manifest.status}); {name} needs a finished run."
        )
    return manifest.fingerprint


def _sha256(paths: list[Path], root: Path) -> str:
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        digest.update(f"{os.path.relpath(path, root)}:{content}\n".encode())
    return digest.hexdigest()
