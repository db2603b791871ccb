"""The figures of the page, from the committed rows."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd

from evaluation.figures import janus
from evaluation.figures.__main__ import draw
from evaluation.figures.base import Data, Drawing
from evaluation.results.names import display_names
from scripts.leaderboard.ranking import best_first
from scripts.leaderboard.rows import Board
from scripts.leaderboard.sections import MAIN
from scripts.leaderboard.tables import Metrics
from scripts.results.document import paragraph
from scripts.results.workshop import figure_settings

_IMAGES = Path("docs") / "images"
COST = _IMAGES / "leaderboard_cost.png"
GUIDANCE = _IMAGES / "leaderboard_guidance.png"
JANUS = _IMAGES / "leaderboard_janus.png"


def draw_cost(board: Board, metrics: Metrics) -> Drawing:
    """Quality against cost."""
    return _draw("pareto", _data(board, metrics, board.sections[MAIN]))


def draw_guidance(board: Board, metrics: Metrics) -> Drawing:
    """Match over the guidance scale, a panel per method."""
    return _draw("guidance", _data(board, metrics, board.sections["guidance"]))


def draw_janus(board: Board, metrics: Metrics) -> Drawing:
    """The Janus number with view phrases, without, and with Perp-Neg."""
    plain = board.sections["janus"]
    parts = [plain.assign(text=plain["view_phrases"].map({"True": janus.WITH, "False": janus.WITHOUT}))]
    if "janus_perp_neg" in board.sections:
        parts.append(board.sections["janus_perp_neg"].assign(text=janus.PERP_NEG))
    return _draw("janus", _data(board, metrics, pd.concat(parts, ignore_index=True)))


#: The section that each is drawn from, and how.
FIGURES: Mapping[Path, tuple[str, Callable[[Board, Metrics], Drawing]]] = {
    COST: (MAIN, draw_cost),
    GUIDANCE: ("guidance", draw_guidance),
    JANUS: ("janus", draw_janus),
}


def _draw(name: str, data: Data) -> Drawing:
    """By conf/figure/<name>.yaml."""
    return draw(name, figure_settings(name), data)


def _data(board: Board, metrics: Metrics, rows: pd.DataFrame) -> Data:
    results = board.results(MAIN)
    results.frame = rows
    return Data(results, metrics, display_names(rows), best_first(board), Path())


def captioned(drawing: Drawing, file: Path, about: str) -> str:
    """A figure of the page with its caption."""
    lines = [f"![{about}]({file.relative_to('docs').as_posix()})"]
    return "\n\n".join([*lines, *(paragraph(line) for line in drawing.text.splitlines() if line)])


def save_png(drawing: Drawing, file: Path) -> None:
    """Write the figure, without what differs from one day to the next."""
    content = io.BytesIO()
    drawing.figure.savefig(content, format="png", dpi=110, metadata={"Software": None})
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content.getvalue())
