"""The order of the methods here and in the paper's printed tables."""

from __future__ import annotations

from math import isnan

import pandas as pd

from evaluation.statistics.paired import signed
from evaluation.tables.pairs_table import p_text
from evaluation.tables.paper import PaperTable, paper_tables
from scripts.leaderboard.decided import decided_in_match
from scripts.leaderboard.ranking import FIRST, rank_agreement
from scripts.leaderboard.rows import Board
from scripts.leaderboard.sections import MAIN
from scripts.leaderboard.tables import Metrics
from scripts.results.document import listed, paragraph

TABLES = (4, 5, 6, 7, 8)


def paper(board: Board, metrics: Metrics) -> str:
    """Rank correlation of the methods' Match with each printed column of Tables 4 to 8."""
    lines = [
        "| Table | Column | Methods | Kendall's τ | p | Smallest possible p |",
        "|---|---|---:|---:|---:|---:|",
    ]
    tests, alone = 0, []
    for number in TABLES:
        table = paper_tables()[number]
        frame = board.sections.get(MAIN if table.representation == "gaussians" else "nerf", pd.DataFrame())
        ours = {} if frame.empty else frame.groupby("method")[FIRST].mean().to_dict()
        for column, title in table.columns.items():
            theirs = {name: row.values[column] for name, row in table.rows.items()}
            found = rank_agreement(ours, theirs)
            if isnan(found.tau):
                alone.append(number)
                continue
            tests += 1
            lines.append(
                f"| {number} | {title} | {len(found.methods)} | {signed(found.tau, 2)} | {p_text(found.p)} | "
                f"{p_text(found.smallest_p)} |"
            )
    if not tests:
        return "Nothing to compare yet: of each table, fewer than three methods have rows here."
    return "\n\n".join(["\n".join(lines), *_words(board, metrics, tests, alone), _doubts(board)])


def _words(board: Board, metrics: Metrics, tests: int, alone: list[int]) -> list[str]:
    """What the numbers can decide."""
    methods = [name for name in paper_tables()[4].rows if name in set(board.sections[MAIN]["method"])]
    decided, every = decided_in_match(board, metrics, methods)
    tested = (
        f"These are {tests} tests, without a correction for their number. τ takes the order of two methods "
        f"as exact, also where their difference is not decided: of the {every} pairs of Table 4's methods, "
        f"{decided} are decided in Match."
    )
    found = [tested]
    found += [
        f"Table {number} has no row here: fewer than three of its methods have a printed score and rows of "
        "ours."
        for number in dict.fromkeys(alone)
    ]
    return [paragraph(text) for text in found]


def _doubts(board: Board) -> str:
    """The doubts about the printed numbers that are compared, each once, with its tables."""
    ran = set(board.sections[MAIN]["method"])
    texts: dict[tuple[str, str], list[int]] = {}
    for number in TABLES:
        table = paper_tables()[number]
        for doubt in table.doubts:
            if any(_is_compared(place, table, ran) for place in doubt.at):
                texts.setdefault((doubt.id, doubt.text), []).append(number)
    lines = ["Doubts about the printed numbers (`evaluation/tables/paper_tables.yaml`):", ""]
    for (name, text), numbers in texts.items():
        where = f"Table{'s' if len(numbers) > 1 else ''} {listed(numbers)}"
        lines.append(paragraph(f"- **{name}**, {where}: {text}.", indent="  "))
    return "\n".join(lines)


def _is_compared(place: dict[str, str], table: PaperTable, methods: set[str]) -> bool:
    """Whether a doubt is about a title, a column or a row of which the order is compared."""
    return place.get("column", next(iter(table.columns))) in table.columns and (
        "row" not in place or place["row"] in methods
    )
