"""What made the rows: versions, commits, weights, machines and hours."""

from __future__ import annotations

import pandas as pd

from scripts.leaderboard.admission import PACKAGES
from scripts.leaderboard.completeness import pending
from scripts.leaderboard.rows import Board
from scripts.leaderboard.sections import MAIN, SECTIONS
from scripts.leaderboard.tables import Metrics
from scripts.results.document import listed, paragraph


def about(board: Board, _metrics: Metrics) -> str:
    """A paragraph on the rows, one on what is not made yet, and one if several machines made them."""
    frames = [board.sections[name] for name in SECTIONS if name in board.sections]
    rows = pd.concat(frames, ignore_index=True)
    shared = board.versions
    packages = ", ".join(f"{name} {_values(rows, name)}" for name in PACKAGES)
    weights = ", ".join(f"{sha256[:12]} ({kind})" for kind, sha256 in shared.get("prior", {}).items())
    minutes = rows[[c for c in ("minutes", "minutes_shared") if c in rows]].sum().sum()
    first = (
        f"{len(rows):,} runs of {board.sections[MAIN]['method'].nunique()} methods, by trace_bench "
        f"{shared.get('trace_bench')} at commit {_values(rows, 'commit')}; {packages}. The prior's weights "
        f"begin with {weights}. Without loading and scoring, the runs take {minutes / 60:.1f} core hours on "
        f"the machine that made them, so about {minutes / 120:.0f} hours on two cores."
    )
    found = [first]
    if missing := pending(board):
        found.append(f"Not made yet: {'; '.join(missing)}.")
    if "machine" in rows and rows["machine"].nunique() > 1:
        found.append(
            f"Rows come from {rows['machine'].nunique()} machines ({_values(rows, 'machine')}), so compare "
            "UNet items and TFLOP, not minutes."
        )
    return "\n\n".join(map(paragraph, found))


def _values(rows: pd.DataFrame, column: str) -> str:
    if column not in rows:
        return "unknown"
    return listed(sorted(map(str, rows[column].dropna().unique()))) or "unknown"
