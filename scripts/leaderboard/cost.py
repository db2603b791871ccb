"""Quality against cost: a table and a figure, from the committed rows."""

from __future__ import annotations

from scripts.leaderboard.figures import COST
from scripts.leaderboard.rows import Board
from scripts.leaderboard.sections import MAIN
from scripts.leaderboard.tables import Metrics, short, table

_SHOWN = ("match", "clip_score", "tflop", "unet_items", "minutes", "minutes_shared", "peak_memory_gb")


def cost(board: Board, metrics: Metrics) -> str:
    """The figure, and the table with the methods that no other beats for as little work."""
    image = COST.relative_to("docs").as_posix()
    about = "Match and CLIP score against the TFLOP of a run. The line joins the Pareto-optimal methods."
    return f"![{about}]({image})\n\n{short(table(board, MAIN, metrics, kind='cost'), _SHOWN)}"
