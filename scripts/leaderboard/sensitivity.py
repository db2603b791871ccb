"""What the methods are sensitive to: steps, initial points, guidance scale, view phrases."""

from __future__ import annotations

import math

import pandas as pd

from evaluation.figures.guidance import means
from evaluation.figures.janus import WITH
from evaluation.results.names import display_names
from evaluation.statistics.paired import Difference, paired_difference
from scripts.leaderboard.figures import GUIDANCE, JANUS, captioned, draw_guidance, draw_janus
from scripts.leaderboard.ranking import FIRST, best_first
from scripts.leaderboard.rows import Board
from scripts.leaderboard.sections import MAIN, SECTIONS
from scripts.leaderboard.tables import Metrics
from scripts.results.document import paragraph

NO_ROWS = "No rows yet."


def steps_and_inits(board: Board, _metrics: Metrics) -> str:
    """What other steps and other initial points change in Match, on the same prompts with the same seed."""
    main = board.sections[MAIN]
    others: dict[str, pd.DataFrame] = {}
    if "equal_work" in board.sections:
        others["other steps"] = board.sections["equal_work"]
    if "inits" in board.sections:
        rows = board.sections["inits"]
        others |= {f"`init={name}`": rows[rows["init"] == name] for name in SECTIONS["inits"].values}
    if not others:
        return NO_ROWS
    first = main[main["seed"] == 0]
    own = _by_prompt(first)
    changed = {
        title: _by_prompt(rows[~rows["fingerprint"].isin(first["fingerprint"])])
        for title, rows in others.items()
    }
    names = display_names(main)["method"]
    lines = [f"| Method | Steps | {' | '.join(changed)} |", f"|---|---:|{'---:|' * len(changed)}"]
    for method in best_first(board):
        cells = [_change(own[method], rows.get(method)) for rows in changed.values()]
        lines.append(f"| {names.get(method, method)} | {_steps(board, method)} | {' | '.join(cells)} |")
    return "\n".join(lines) + without_asset(board, "inits")


def without_asset(board: Board, section: str) -> str:
    """A sentence for each method and value of the section's setting whose runs end in an error."""
    names = display_names(board.sections[MAIN])["method"]
    found: dict[tuple[str, str], list[str]] = {}
    for one in board.failures:
        if one.section == section:
            found.setdefault((one.method, one.value), []).append(one.why)
    setting = (SECTIONS[section].by or "").replace("_", " ")
    lines = [
        paragraph(
            f"{names.get(method, method)} makes no asset at {setting} {value} "
            f"({len(why)} {'run' if len(why) == 1 else 'runs'}): “{why[0]}”"
        )
        for (method, value), why in found.items()
    ]
    return "".join(f"\n\n{line}" for line in lines)


def _steps(board: Board, method: str) -> str:
    """A method's own steps, and those of equal work if they are others."""
    found = [board.sections[name] for name in (MAIN, "equal_work") if name in board.sections]
    counts = [rows.loc[rows["method"] == method, "steps"].max() for rows in found]
    return " → ".join(dict.fromkeys(f"{count:,.0f}" for count in counts if not math.isnan(count)))


def _by_prompt(rows: pd.DataFrame) -> dict[str, pd.Series]:
    """Each method's Match by prompt."""
    return {
        str(name): own.set_index("prompt_id")[FIRST] for name, own in rows.groupby("method", observed=True)
    }


def _change(before: pd.Series, after: pd.Series | None) -> str:
    """The mean difference on the prompts that `after` has, with its interval."""
    if after is None:
        return "—"
    return paired_difference(after.to_numpy(float), before[after.index].to_numpy(float)).text(3)


def guidance(board: Board, metrics: Metrics) -> str:
    """The figure of all methods' guidance scales; each method's own scale and its best and worst one."""
    if "guidance" not in board.sections:
        return NO_ROWS
    rows, main = board.sections["guidance"], board.sections[MAIN]
    names = display_names(main)["method"]
    lines = ["| Method | Own scale | Best scale | Match there | Worst scale | Match there |",
             "|---|---:|---:|---:|---:|---:|"]  # fmt: skip
    for method in best_first(board):
        own = rows[rows["method"] == method]
        if own.empty:
            continue
        found = means(own, FIRST)
        scale = main.loc[main["method"] == method, "guidance_scale"].iloc[0]
        cells = [f"{scale:g}", *(f"{at:g} | {found[at]:.3f}" for at in (found.idxmax(), found.idxmin()))]
        lines.append(f"| {names.get(method, method)} | {' | '.join(cells)} |")
    about = "Match over the guidance scale, a panel per method"
    figure = captioned(draw_guidance(board, metrics), GUIDANCE, about)
    return f"{figure}\n\n" + "\n".join(lines) + without_asset(board, "guidance")


def view_phrases(board: Board, metrics: Metrics) -> str:
    """The figure of view phrases and Perp-Neg, its caption and its numbers."""
    if "janus" not in board.sections:
        return NO_ROWS
    drawing = draw_janus(board, metrics)
    names = display_names(board.sections["janus"])["method"]
    lines = ["| Method | Prompts with | Janus | No front | Change of Janus | ... a missing front as 1 |",
             "|---|---|---:|---:|---:|---:|"]  # fmt: skip
    for row in [] if drawing.numbers is None else drawing.numbers.itertuples():
        first = row.text == WITH
        cells = [
            str(names.get(row.method, row.method)) if first else "", str(row.text),
            "—" if math.isnan(row.janus) else f"{row.janus:.2f}", f"{row.no_front}/{row.runs}",
            *("" if first or math.isnan(mean) else Difference(mean, low, high, 0).text(2)
              for mean, low, high in ((row.difference, row.low, row.high),
                                      (row.fault_difference, row.fault_low, row.fault_high))),
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    about = "Janus number with and without view phrases, a row per method"
    failed = without_asset(board, "janus") + without_asset(board, "janus_perp_neg")
    return captioned(drawing, JANUS, about) + "\n\n" + "\n".join(lines) + failed
