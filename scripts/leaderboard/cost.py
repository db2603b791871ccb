"""Quality against cost: a table and a figure, from the committed rows."""

from __future__ import annotations

import io
from pathlib import Path

from evaluation.figures.base import Data
from evaluation.figures.pareto import draw
from evaluation.results.names import display_names
from scripts.leaderboard.ranking import best_first
from scripts.leaderboard.rows import Board
from scripts.leaderboard.sections import MAIN
from scripts.leaderboard.tables import Metrics, short, table

COST_PICTURE = Path("docs") / "images" / "leaderboard_cost.png"
_SHOWN = ("match", "clip_score", "tflop", "unet_items", "minutes", "minutes_shared", "peak_memory_gb")


def cost(board: Board, metrics: Metrics) -> str:
    """The figure, and the table with the methods that no other beats for as little work."""
    image = COST_PICTURE.relative_to("docs").as_posix()
    about = "Match and CLIP score against the TFLOP of a run. The line joins the Pareto-optimal methods."
    return f"![{about}]({image})\n\n{short(table(board, MAIN, metrics, kind='cost'), _SHOWN)}"


def draw_cost(board: Board, metrics: Metrics, file: Path) -> None:
    results = board.results(MAIN)
    data = Data(results, metrics, display_names(results.frame), best_first(board), Path())
    content = io.BytesIO()
    draw(data).figure.savefig(content, format="png", dpi=110, metadata={"Software": None})
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content.getvalue())
