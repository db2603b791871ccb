"""trace_bench makes 3D assets from text by score distillation, with the same pipeline for every method.

Importing the package is cheap: its functions (docs/python_api.md), and with them torch, are imported on first
use.
"""

from typing import TYPE_CHECKING, Any

from trace_bench.system.errors import TraceBenchError

__version__ = "0.1.0"
__all__ = ["Asset", "TraceBenchError", "load_method", "load_prior", "load_representation", "make"]

if TYPE_CHECKING:
    from trace_bench.api import Asset, load_method, load_prior, load_representation, make
else:

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from trace_bench import api

        return getattr(api, name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
