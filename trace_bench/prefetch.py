"""`python -m trace_bench.prefetch prior=sd21`: fetch on a machine with network what a run will load.

`prior=NAME` fetches what conf/prior/NAME.yaml names; `repo=OWNER/NAME revision=COMMIT` a single repository.
"""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

from trace_bench.config_path import conf_dir
from trace_bench.errors import TraceBenchError
from trace_bench.priors.weights import PACKAGED, resolve

PATTERNS = ["*/*.json", "*/*.txt", "model_index.json"]


def targets(arguments: list[str]) -> list[tuple[str, str | None, str | None]]:
    """(repository, revision, file variant) of each thing the arguments ask for."""
    wanted: list[tuple[str, str | None, str | None]] = []
    values = dict(argument.partition("=")[::2] for argument in arguments)
    unknown = set(values) - {"prior", "repo", "revision", "variant"}
    if unknown or not ({"prior", "repo"} & set(values)):
        raise TraceBenchError(
            "prefetch takes prior=NAME, or repo=OWNER/NAME with revision= and variant=, "
            f"not {' '.join(arguments)!r}."
        )
    for name in filter(None, values.get("prior", "").split(",")):
        path = Path(conf_dir()) / "prior" / f"{name}.yaml"
        if not path.is_file():
            known = sorted(p.stem for p in path.parent.glob("*.yaml"))
            raise TraceBenchError(f"There is no prior {name!r}; the priors are {', '.join(known)}.")
        config = yaml.safe_load(path.read_text())
        variant = config.get("variant")
        wanted.append((config["repo"], config.get("revision"), variant))
        if config.get("adapter_repo"):
            wanted.append((config["adapter_repo"], config.get("adapter_revision"), variant))
    if "repo" in values:
        wanted.append((values["repo"], values.get("revision"), values.get("variant")))
    return wanted


def main(arguments: list[str]) -> int:
    """Fetch each target and say where it lies; 1 where one cannot be had."""
    try:
        for repo, revision, variant in targets(arguments):
            weights = [f"*/*.{variant}.safetensors"] if variant else ["*/*.safetensors"]
            folder = resolve(repo, revision, PATTERNS + weights)
            note = " (part of the package)" if repo.startswith(PACKAGED) else ""
            print(f"{repo}: {folder}{note}")
    except TraceBenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
