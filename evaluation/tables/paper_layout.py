"""Layout of a paper table: ours | paper in each column, marks at doubtful values, notes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from evaluation.results.aggregate import Cell, Row
from evaluation.tables.formats import Entry, Grid, Heading, cell_text
from evaluation.tables.paper import PaperTable

HOW = {
    "no runs": "no runs: start them with `python -m trace_bench -m {runs}`",
    "no Elo": "no Elo: these runs are in no tournament; `python -m evaluation.gpteval3d` plays it "
    "(judge=openai asks a paid model; judge=clip and judge=truth work offline)",
    "no votes": "no votes: make the study and import answers with `python -m evaluation.user_study`",
    "not asked": "not asked: {not_asked}",
    "settings": "settings: several settings of the method have equally many prompts; see `table=methods`",
    "paper": "a bare dash in a paper column: the paper has no such row",
}


@dataclass
class Ours:
    """Our results for one row of a table."""

    row: Row | None = None  # means over prompts of the runs
    texts: dict[str, str] = field(default_factory=dict)  # column -> cell text
    values: dict[str, float] = field(default_factory=dict)  # column -> number, if any
    rank: dict[str, int] = field(default_factory=dict)  # column -> 1 decided best, 2 best but not decided
    marks: dict[str, str] = field(default_factory=dict)  # column -> letters of the notes about it
    contestant: str = ""  # its name in the tournament
    beats: dict[str, set[str]] = field(default_factory=dict)  # column -> contestants that it decidedly beats
    record: dict[str, object] = field(default_factory=dict)  # for CSV


def cell_of(row: Row | None, name: str) -> Cell | None:
    return next((cell for cell in row.cells if cell.quantity.name == name), None) if row else None


def lay_out(
    table: PaperTable, names: Mapping[str, Mapping[str, str]], ours: Mapping[str, Ours], about: str, *,
    notes: Sequence[str] = (), ranked: bool = True, differences: bool = False, runs: str = "",
    not_asked: str = "",
) -> Grid:  # fmt: skip
    """Build the grid of a paper table.

    Args:
        runs: the settings of `trace_bench` that make the missing runs.
        not_asked: why a cell is not asked for.
    """
    timed = table.kind != "preference"
    arrow = " ↑" if ranked else ""
    head = [Heading("Baseline" if table.kind == "preference" else "Method")]
    for column, label in table.columns.items():
        group = label + arrow
        head += [Heading("ours", group), Heading("paper", group, table.marks(column=column))]
    head += [Heading("TraCe − row")] if differences else []
    head += [Heading("ours", "Minutes"), Heading("paper", "Minutes")] if timed else []
    best_ours = {c: _ranks_of_ours(ours, c) for c in table.columns}
    printed = {c: {m: row.values[c] for m, row in table.rows.items()} for c in table.columns}
    best_paper = {c: _ranks(values) for c, values in printed.items()}
    body, records = [], []
    for method, one in ours.items():
        name = names.get("method", {}).get(method, method)
        if one.row is not None and "prior" in one.row.labels:
            name += f" (prior {one.row.labels['prior']})"
        entries = [Entry(name, marks=table.marks(row=method))]
        record: dict[str, object] = {"method": method} | one.record
        for column in table.columns:
            rank = best_ours[column].get(method, 0) if ranked else 0
            paper_rank = best_paper[column].get(method, 0) if ranked else 0
            marks = table.marks(row=method, column=column)
            entries += [
                Entry(one.texts[column], rank, one.marks.get(column, "")),
                Entry(_printed(table, method, column), paper_rank, marks),
            ]
            record[f"{column}_paper"] = printed[column].get(method)
        entries += [Entry(one.texts["difference"])] if differences else []
        if timed:
            cell = cell_of(one.row, "minutes")
            missing = "— no runs" if one.row is None else "— settings"
            entries.append(Entry(cell_text(cell) if cell else missing))
            minutes = table.rows[method].minutes if method in table.rows else None
            entries.append(Entry(minutes or "—", marks=table.marks(row=method, column="minutes")))
            record |= {"minutes_ours": cell.mean if cell else None, "minutes_paper": minutes}
        body.append(entries)
        records.append(record)
    caption = f"Table {table.number}. {table.title}. {about}"
    return Grid(
        f"table{table.number}",
        caption,
        head,
        body,
        1,
        records,
        [*notes, *_notes(table, body, runs, not_asked)],
    )


def _ranks(values: Mapping[str, float]) -> dict[str, int]:
    """2 for the highest, which nothing decides; empty if all are equal."""
    if len(set(values.values())) < 2:
        return {}
    return {m: 2 for m, value in values.items() if value == max(values.values())}


def _ranks_of_ours(ours: Mapping[str, Ours], column: str) -> dict[str, int]:
    """The same, with 1 for a row that is decidedly better than every other."""
    shown = {m: one for m, one in ours.items() if column in one.values}
    ranks = _ranks({m: one.values[column] for m, one in shown.items()})
    for method in ranks:
        others = {one.contestant for m, one in shown.items() if m != method}
        is_decided = others <= shown[method].beats.get(column, set()) or shown[method].rank.get(column) == 1
        ranks[method] = 1 if is_decided else 2
    return ranks


def _printed(table: PaperTable, method: str, column: str) -> str:
    row = table.rows.get(method)
    if row is None:
        return "—"
    digits = 4 if table.kind == "image_reward" else 2
    text = f"{row.values[column]:.{digits}f}".replace("-", "−")
    return text if row.spread is None else f"{text} ± {row.spread:.4f}"


def _notes(table: PaperTable, body: Sequence[Sequence[Entry]], runs: str, not_asked: str) -> list[str]:
    """How to fill missing cells, then the doubts about the paper."""
    texts = {entry.text for row in body for entry in row}
    runs = runs or f"experiment=table{table.number}"
    notes = [how.format(runs=runs, not_asked=not_asked) for key, how in HOW.items() if f"— {key}" in texts]
    if len(body) > len(table.rows):
        notes.append(HOW["paper"])
    marks = (f"({doubt.letter}) " if doubt.letter else "" for doubt in table.doubts)
    notes += [f"{mark}{doubt.id}: {doubt.text}" for mark, doubt in zip(marks, table.doubts, strict=True)]
    return [note if note.endswith(".") else f"{note}." for note in notes]
