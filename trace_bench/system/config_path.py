"""The folder of the Hydra configuration: next to the package in a checkout, inside it in a wheel."""

from pathlib import Path

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
