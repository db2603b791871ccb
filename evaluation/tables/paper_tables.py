"""The paper's Tables 1 to 8 next to our results: one function per kind of table.

Our results are the runs (of one prompt set and prior), the tournament or the study that cover most of a
table; the caption names them. A missing number is a dash with the reason; the notes say how to get it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from evaluation.metrics.base import TOY_PRIORS, Metric, Quantity
from evaluation.results.aggregate import (
    COST,
    OPTIMISED,
    Cell,
    Panel,
    Row,
    method_table,
    on_same_prompts,
    one_judge,
    optimised_note,
    order_methods,
    panels,
)
from evaluation.results.collect import Results
from evaluation.results.missing import notes_on_scores
from evaluation.statistics.paired import paired_difference
from evaluation.tables.formats import Grid, cell_text
from evaluation.tables.paper import PaperTable
from evaluation.tables.paper_layout import Ours, cell_of, lay_out

OURS = "trace"
Names = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class Source:
    """The source of our results."""

    results: Results
    metrics: Mapping[str, Metric]
    names: Names
    order: Sequence[str]
    prompt_set: str | None = None  # None: the one with the most results
    prior: str | None = None


def paper_grid(table: PaperTable, source: Source) -> Grid:
    """Build one of the eight tables."""
    build: dict[str, Callable[[PaperTable, Source], Grid]] = {
        "preference": _preferences,
        "elo": _elo,
        "image_reward": _image_reward,
    }
    return build[table.kind](table, source)


def _preferences(table: PaperTable, source: Source) -> Grid:
    """Tables 1 to 3."""
    votes = _chosen(source, source.results.of_kind("preference"), ["study"])
    if len(votes):
        votes = votes[(votes["aspect"] == table.aspect) & (votes["method"] == OURS)]
    ours = {}
    for method in table.rows:
        found = votes[votes["baseline"] == method] if len(votes) else votes
        if found.empty or not found.iloc[0]["votes"]:
            ours[method] = Ours(texts=dict.fromkeys(table.columns, "— no votes"))
            continue
        row = found.iloc[0]
        texts = {c: _share(row[f"{c}_value"], row[f"{c}_low"], row[f"{c}_high"]) for c in table.columns}
        kept = row.drop(["kind", "aspect", "baseline"]).dropna()
        ours[method] = Ours(texts=texts, record={f"ours_{key}": value for key, value in kept.items()})
    if len(votes):
        first = votes.iloc[0]
        about = f"Ours: study {first['study']}, {first['raters']:.0f} raters, {first['prompts']:.0f} prompts"
        about += "; percent [95 %, bootstrap over raters and prompts], TraCe against each."
    else:
        about = "Ours: no study yet."
    return lay_out(table, source.names, ours, f"Percent of votes. {about}", ranked=False)


def _share(value: float, low: float, high: float) -> str:
    return f"{value:.2f}" if pd.isna(low) else f"{value:.2f} [{low:.0f}, {high:.0f}]"


def _elo(table: PaperTable, source: Source) -> Grid:
    """Tables 4, 5 and 7."""
    scores = source.results.of_kind("elo")
    if len(scores):
        scores = scores[scores["representation"] == table.representation]
    scores = _chosen(source, scores, ["judge", "tournament"], table.rows)
    if len(scores) and not table.extra and not scores["method"].isin(list(table.rows)).any():
        scores = scores.iloc[:0]
    panel = _panel(table, source, scores)
    rows = _rows(panel, source, [COST[0]])
    extra = sorted({*scores["method"], *rows} - set(table.rows)) if len(scores) and table.extra else []
    ours = {m: _elo_row(m, scores, table, rows.get(m)) for m in [*table.rows, *extra]}
    judge = str(scores.iloc[0]["judge_kind"]) if len(scores) and "judge_kind" in scores else ""
    not_asked = f"the judge {judge or 'of this tournament'} was not asked for this criterion; "
    not_asked += "judge=openai and judge=truth are asked for all (docs/gpteval3d.md)"
    about = "Ours: no tournament yet."
    notes = []
    if len(scores):
        first = scores.iloc[0]
        about = f"Ours: {_set(first)}, judge {first['judge_name']}; [95 % interval]; * regularised."
        notes = [str(first["caption"]), *str(first.get("notes", "") or "").splitlines()]
        if not first["complete"]:
            notes.append("The tournament is incomplete: continue it with `python -m evaluation.gpteval3d`.")
        if any(OPTIMISED in one.marks.values() for one in ours.values()):
            notes.append(f"({OPTIMISED}) the method maximises what this judge compares, so it has no rank")
    return lay_out(
        table, source.names, ours, f"{about} {_paper(panel)}", notes=notes, not_asked=not_asked,
        runs=_settings_of_missing_runs(table, panel, rows),
    )  # fmt: skip


def _elo_row(method: str, scores: pd.DataFrame, table: PaperTable, row: Row | None) -> Ours:
    ours = Ours(row=row)
    found = scores[scores["method"] == method] if len(scores) else scores
    settings = found.get("settings", pd.Series(dtype="string"))
    if settings.nunique(dropna=False) > 1:
        return replace(ours, texts=dict.fromkeys(table.columns, "— settings"))
    asked = set(scores["criterion"]) if len(scores) else set(table.columns)
    for criterion in table.columns:
        of = found[found["criterion"] == criterion] if len(found) else found
        if of.empty or pd.isna(of.iloc[0]["elo"]):
            ours.texts[criterion] = "— no Elo" if criterion in asked else "— not asked"
            if row is None and found.empty:
                ours.texts[criterion] = "— no runs"
            continue
        one = of.iloc[0]
        ours.texts[criterion] = _elo_text(one)
        if bool(one.get("maximises", False)):
            ours.marks[criterion] = OPTIMISED
        else:
            ours.values[criterion] = round(float(one["elo"]))
        ours.beats[criterion] = set(str(one.get("beats") or "").splitlines())
        ours.contestant = str(one.get("contestant", method))
        for key in ("elo", "elo_low", "elo_high", "comparisons", "frozen", "regularised"):
            ours.record[f"{criterion}_ours_{key.removeprefix('elo_')}"] = one.get(key)
    return ours


def _elo_text(row: pd.Series) -> str:
    """1068 [988, 1156]; at least or at most, where the contestant never lost or never won."""
    star = "*" if row["regularised"] else ""
    low, high = row.get("elo_low"), row.get("elo_high")
    if pd.isna(low) and pd.isna(high):
        return f"{row['elo']:.0f}{star}"
    if pd.isna(low) or pd.isna(high):
        return f"≤ {high:.0f}{star}" if pd.isna(low) else f"≥ {low:.0f}{star}"
    return f"{row['elo']:.0f}{star} [{low:.0f}, {high:.0f}]"


def _image_reward(table: PaperTable, source: Source) -> Grid:
    """Tables 6 and 8."""
    metric = source.metrics.get("image_reward")
    quantity = metric.quantities[0] if metric else Quantity("image_reward", "ImageReward", "", True, 3)
    panel = _panel(table, source, pd.DataFrame())
    rows = _rows(panel, source, [quantity, COST[0]]) if metric else _rows(panel, source, [COST[0]])
    extra = sorted(rows.keys() - table.rows.keys()) if table.extra else []
    ours, reference = {}, cell_of(rows.get(OURS), "image_reward")
    asked = panel is None or metric is None or metric.concerns(panel.prior)
    for method in [*table.rows, *extra]:
        row = rows.get(method)
        cell = cell_of(row, "image_reward")
        one = Ours(row, {"image_reward": _reason(cell, row) if asked else "— not asked"})
        one.texts["difference"] = "—"
        if cell is not None and cell.complete and asked:
            if cell.comparable:
                one.values["image_reward"] = cell.shown
            one.rank["image_reward"] = cell.rank
            one.marks["image_reward"] = cell.marks
            one.record = {
                "image_reward_ours": cell.mean,
                "image_reward_ours_std_prompts": cell.std,
                "n": cell.n,
            }
            if reference is not None and reference.comparable and cell.comparable and method != OURS:
                gap = paired_difference(*on_same_prompts(reference, cell))
                one.texts["difference"] = gap.text(2)
                one.record |= dict(zip(("gap", "gap_low", "gap_high"), gap[:3], strict=True))
        ours[method] = one
    if any(one.row is not None and "prior" in one.row.labels for one in ours.values()):
        for one in ours.values():
            one.rank.clear()  # rows of several priors are no paired comparison
    about = (
        "Ours: no runs yet."
        if panel is None
        else f"Ours: {_set(panel.frame.iloc[0])}, {panel.prompts} prompts"
    )
    if panel is not None:
        about += "; mean ± std over prompts (ddof 1) of the mean over views and seeds; TraCe − row: paired "
        about += "over prompts, 95 % interval from six prompts on, if both means exist."
    notes = []
    if panel is not None and metric is not None and asked:
        shown = panel.frame[panel.frame["method"].isin([*table.rows, *extra])]
        notes = notes_on_scores(shown, {metric.name: metric}, source.results)
        notes += optimised_note([cell for row in rows.values() for cell in row.cells])
    return lay_out(
        table, source.names, ours, f"{about} {_paper(panel)}", notes=notes, differences=True,
        runs=_settings_of_missing_runs(table, panel, rows),
        not_asked=metric.left_out if metric else "",
    )  # fmt: skip


def _settings_of_missing_runs(table: PaperTable, panel: Panel | None, rows: Mapping[str, Row]) -> str:
    """The sweep that fills the rows without runs: of the paper, or in the toy world if that is shown."""
    if panel is None or panel.prior not in TOY_PRIORS:
        return ""
    missing = ",".join(method for method in table.rows if method not in rows)
    return (
        f"method={missing} representation={table.representation} prompt_set={panel.prompt_set} "
        f"prior={panel.prior}"
    )


def _reason(cell: Cell | None, row: Row | None) -> str:
    if row is None:
        return "— no runs"
    if cell is None or (cell.n == 0 and cell.expected):
        return "— no score"
    return cell_text(cell)


def _chosen(
    source: Source, frame: pd.DataFrame, keys: list[str], methods: Mapping[str, object] | None = None
) -> pd.DataFrame:
    """Choose a tournament or study: most methods of the table first, then finished, then a judge other than
    CLIP, then most prompts.
    """
    for name, wanted in (("prompt_set", source.prompt_set), ("prior", source.prior)):
        if wanted is not None and len(frame):
            frame = frame[frame[name] == wanted]
    if frame.empty:
        return frame

    def merit(part: pd.DataFrame) -> tuple[Any, ...]:
        covered = part["method"].isin(list(methods or ())).sum()
        complete = bool(part["complete"].all()) if "complete" in part else True
        seen = bool((part["judge_kind"] != "clip").all()) if "judge_kind" in part else True
        return covered, complete, seen, part["prompts"].max(), part["votes"].sum() if "votes" in part else 0

    return max((part for _, part in frame.groupby(keys, sort=True)), key=merit)


def _panel(table: PaperTable, source: Source, judged: pd.DataFrame) -> Panel | None:
    """Runs with the table's representation, from the tournament's prompt set and prior if any."""
    frame = source.results.frame
    if frame.empty:
        return None
    frame = frame[frame["representation"] == table.representation]
    first = judged.iloc[0] if len(judged) else {}
    found = [
        panel
        for panel in panels(order_methods(frame, source.order))
        if not panel.own
        and panel.prompt_set == (first.get("prompt_set") or source.prompt_set or panel.prompt_set)
        and panel.prior == (first.get("prior") or source.prior or panel.prior)
    ]
    methods = set(table.rows)
    return max(found, key=lambda p: int(p.frame["method"].isin(methods).sum()), default=None)


def _rows(panel: Panel | None, source: Source, quantities: list[Quantity]) -> dict[str, Row]:
    """Per method the row with the most prompts, without cells if several settings have equally many.

    A method without runs of the panel's prior is taken from other priors on the same prompts (Dreamer XL has
    its own), and its row says so.
    """
    if panel is None:
        return {}
    best = _best_rows(panel, source, quantities)
    frame = source.results.frame
    same = (frame["prompt_set"] == panel.prompt_set) & ~frame["own_prompt"].astype(bool)
    same &= frame["representation"].isin(panel.frame["representation"].unique())
    for other in panels(order_methods(frame[same & (frame["prior"] != panel.prior)], source.order)):
        for method, row in _best_rows(other, source, quantities).items() if source.prior is None else ():
            best.setdefault(method, replace(row, labels=row.labels | {"prior": other.prior}))
    return best


def _best_rows(panel: Panel, source: Source, quantities: list[Quantity]) -> dict[str, Row]:
    rows: dict[str, list[Row]] = {}
    for row in method_table(one_judge(panel, source.metrics)[0], quantities, source.names).rows:
        rows.setdefault(str(row.key["method"]), []).append(row)
    best = {}
    for method, several in rows.items():
        several.sort(key=_prompts, reverse=True)
        tied = len(several) > 1 and _prompts(several[0]) == _prompts(several[1])
        best[method] = replace(several[0], cells=[]) if tied else several[0]
    return best


def _prompts(row: Row) -> int:
    """The number of prompts that a row has runs of, with or without numbers."""
    return len(row.cells[-1].by_prompt)


def _set(row: Any) -> str:
    return f"prompt set {row['prompt_set']}, prior {row['prior']}"


def _paper(panel: Panel | None) -> str:
    """The hardware of the minutes."""
    machines = sorted(panel.frame["machine"].dropna().unique()) if panel is not None else []
    ours = f"ours on {', '.join(machines)}, " if machines else ""
    return f"Minutes: {ours}the paper's on one A100 with SD 2.1."
