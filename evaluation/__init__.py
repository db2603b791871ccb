"""Scores, tables and pictures from run folders; knows nothing of how an asset was made.

`evaluation.score_runs` and `evaluation.read_results` are for Python and notebooks (docs/python_api.md).
"""

from typing import TYPE_CHECKING, Any

__all__ = ["read_results", "score_runs"]

if TYPE_CHECKING:
    from evaluation.api import read_results, score_runs
else:  # importing the package stays cheap: what it offers is imported when it is asked for

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from evaluation import api

        return getattr(api, name)
