"""Scores, tables and figures from run folders, independent of how an asset was made.

`evaluation.score_runs` and `evaluation.read_results` are for Python and notebooks (docs/python_api.md).
"""

from typing import TYPE_CHECKING, Any

__all__ = ["read_results", "score_runs"]

if TYPE_CHECKING:
    from evaluation.api import read_results, score_runs
else:  # importing the package stays cheap: functions are imported on first use

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from evaluation import api

        return getattr(api, name)
