"""Where the Hydra configuration lives: beside the packages in a checkout, inside the package in a wheel."""

from pathlib import Path

from trace_bench.system.errors import TraceBenchError

_PACKAGE = Path(__file__).resolve().parents[1]


def conf_dir() -> str:
    """Absolute path of the folder that holds config.yaml.

    A wheel carries conf/ as trace_bench/conf, which a checkout does not have; looking there first means that
    a stranger's top-level conf/ in site-packages is never taken for ours.
    """
    for folder in (_PACKAGE / "conf", _PACKAGE.parent / "conf"):
        if (folder / "config.yaml").is_file():
            return str(folder)
    raise TraceBenchError(
        f"No conf/config.yaml inside {_PACKAGE} or beside it: the installation is incomplete, "
        "install trace_bench again or run it from a full checkout."
    )
