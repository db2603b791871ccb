"""Compare two methods, settings or output roots, prompt by prompt.

    python -m evaluation.compare sds trace
    python -m evaluation.compare method=trace,guidance_scale=7.5 method=trace,guidance_scale=20
    python -m evaluation.compare outputs-before outputs-after
    python -m evaluation.compare outputs-before:sds outputs-after:sds

Prints what differs in settings and versions, each metric's difference with test and 95 % interval
(docs/statistics.md), and which prompts moved; writes the same to OUTPUT_ROOT/compare/, and prompts as CSV.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd

from evaluation.metrics.base import Metric, Quantity
from evaluation.metrics.load import configured_metrics
from evaluation.results.comparison import (
    KEYS,
    Match,
    Side,
    matches,
    paired,
    read_side,
    settings_apart,
    versions_apart,
)
from evaluation.results.missing import notes_on_scores
from evaluation.statistics.multiple import holm
from evaluation.statistics.paired import ALPHA, FEWEST, Difference, paired_difference, signed
from evaluation.tables.formats import Entry, Grid, Heading, heading, markdown
from evaluation.tables.pairs_table import p_text
from trace_bench.system.errors import TraceBenchError

MOST_SETTINGS = 30  # lines; the file has all


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="evaluation.compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"KEY is one of {', '.join(KEYS)}. Exit codes: 0 compared, 2 a mistake in the command.",
    )  # fmt: skip
    side = "a method, KEY=VALUE[,KEY=VALUE], an output root, or FOLDER:KEY=VALUE"
    parser.add_argument("a", metavar="A", help=side)
    parser.add_argument("b", metavar="B", help="the same; differences are A - B")
    parser.add_argument("--output-root", type=Path, default=Path("outputs"), metavar="FOLDER",
                        help="where A and B are, unless they name a folder (outputs)")  # fmt: skip
    parser.add_argument("--metric", action="append", metavar="NAME",
                        help="only this number, such as match; may be repeated (all)")  # fmt: skip
    chosen = parser.parse_args(argv)
    try:
        return compare(chosen.a, chosen.b, chosen.output_root, chosen.metric)
    except TraceBenchError as error:
        print(f"evaluation.compare: {error}", file=sys.stderr)
        return 2


def compare(first: str, second: str, root: Path, wanted: Sequence[str] | None = None) -> int:
    """Print the comparison and write it; raises TraceBenchError for a mistake."""
    metrics = configured_metrics()
    names = [q.name for metric in metrics.values() for q in metric.quantities]
    wrong = [name for name in wanted or () if name not in names]
    if wrong:
        raise TraceBenchError(f"--metric {wrong[0]} is unknown: use some of {', '.join(names)}.")
    a, b = read_side(first, root, metrics), read_side(second, root, metrics)
    found = matches(a, b)
    numbers = pd.concat(
        [_numbers(match, quantity) for match in found for quantity in _quantities(match, metrics, wanted)]
        or [pd.DataFrame()]
    )
    if numbers.empty:
        why = [reason for match in found for reason in _no_score(a, b, match, metrics)]
        raise TraceBenchError(
            f"{first} and {second} have no score to compare. {' '.join(dict.fromkeys(why))}".strip()
        )
    for most in (MOST_SETTINGS, None):
        sections = [f"# {first} against {second}"]
        sections += [part for match in found for part in _sections(a, b, match, metrics, wanted, most)]
        text = "\n\n".join(sections) + "\n"
        if most is not None:
            print(text)
    folder = (root if root.is_dir() else a.root) / "compare"
    folder.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"[^\w.=,-]+", "-", f"{first}-{second}").strip("-")[:120]
    for suffix, content in (("md", text), ("csv", numbers.to_csv(index=False, lineterminator="\n"))):
        (folder / f"{name}.{suffix}").write_text(content, encoding="utf-8")
        print(f"Written: {folder / name}.{suffix}")
    return 0


def _quantities(
    match: Match, metrics: Mapping[str, Metric], wanted: Sequence[str] | None
) -> Iterator[Quantity]:
    """The numbers that both sides have from one judge."""
    for metric in metrics.values():
        judges = {*match.a[f"{metric.name}_judge"].dropna(), *match.b[f"{metric.name}_judge"].dropna()}
        for quantity in metric.quantities if len(judges) == 1 else ():
            if (wanted is None or quantity.name in wanted) and len(paired(match, quantity.name)):
                yield quantity


def _numbers(match: Match, quantity: Quantity) -> pd.DataFrame:
    return paired(match, quantity.name).assign(rows=match.title, metric=quantity.name)


def _sections(
    a: Side, b: Side, match: Match, metrics: Mapping[str, Metric], wanted: Sequence[str] | None,
    most: int | None,
) -> list[str]:  # fmt: skip
    quantities = list(_quantities(match, metrics, wanted))
    parts = [f"## {match.title}"]
    for what, lines in (
        ("settings", settings_apart(a, b, match)),
        ("versions and machines", versions_apart(a, b, match)),
    ):
        parts.append(_apart(what, lines, most))
    several = [m.name for m in metrics.values() if _judges_differ(match, m)]
    parts += [f"{name}: the two sides were scored by different models or settings, so it is not compared; "
              f"score both with the same settings: {a.results.command(f'evaluation.score metric=[{name}]')}"
              + ("." if a.root == b.root else
                 f" and {b.results.command(f'evaluation.score metric=[{name}]')}.")
              for name in several]  # fmt: skip
    only = [len(set(x["prompt"]) - set(y["prompt"])) for x, y in ((match.a, match.b), (match.b, match.a))]
    if any(only):
        parts.append(f"Only common prompts are compared: {only[0]} are only in A, {only[1]} only in B.")
    if not quantities:
        return [*parts, " ".join(["No score to compare.", *_no_score(a, b, match, metrics)])]
    parts.append(_tests(match, quantities))
    return [*parts, *(_prompts(match, quantity) for quantity in quantities)]


def _no_score(a: Side, b: Side, match: Match, metrics: Mapping[str, Metric]) -> Iterator[str]:
    """Why nothing can be compared."""
    if not set(match.a["prompt_id"]) & set(match.b["prompt_id"]):
        yield f"{match.title}: the two sides have no prompt in common; make runs of the same prompts."
        return
    for side, frame in ((a, match.a), (b, match.b)):
        for note in notes_on_scores(frame, metrics, side.results, str(frame["prior"].iloc[0])):
            yield f"{side.text}: {note}"


def _judges_differ(match: Match, metric: Metric) -> bool:
    column = f"{metric.name}_judge"
    return len({*match.a[column].dropna(), *match.b[column].dropna()}) > 1


def _apart(what: str, lines: Sequence[tuple[str, str, str]], most: int | None) -> str:
    if not lines:
        return f"No difference in {what}."
    shown = lines if most is None else lines[:most]
    body = [[Entry(text) for text in line] for line in shown]
    more = [f"{len(lines) - len(shown)} more are in the file."] if len(shown) < len(lines) else []
    head = [Heading(what.capitalize()), Heading("A"), Heading("B")]
    return markdown(Grid("", f"Differences in {what}:", head, body, 3, [], more)).strip()


def _tests(match: Match, quantities: Sequence[Quantity]) -> str:
    """One line per metric: means, difference, interval, p."""
    found = []
    for quantity in quantities:
        values = paired(match, quantity.name)
        found.append((quantity, values, paired_difference(values["a"].to_numpy(), values["b"].to_numpy())))
    own = {q.name: _maximises(match, q) for q in quantities}
    compared = [(q.name, difference.p) for q, _, difference in found if not own[q.name]]
    adjusted = dict(zip((name for name, _ in compared), holm([p for _, p in compared]), strict=True))
    body = []
    for quantity, values, difference in found:
        digits = _digits(quantity)
        means = [f"{values[side].mean():.{digits}f}" for side in ("a", "b")]
        if own[quantity.name]:
            corrected, verdict = "—", f"{own[quantity.name]} maximised it"
        else:
            p = adjusted[quantity.name]
            corrected, verdict = p_text(p), _verdict(quantity, difference, p)
        texts = [
            heading(quantity),
            *means,
            difference.text(digits),
            str(difference.prompts),
            p_text(difference.p),
        ]
        body.append([Entry(text) for text in [*texts, corrected, verdict]])
    texts = ["Metric", "mean A", "mean B", "A − B [95 %]", "Prompts", "p", "p (Holm)", "Decided"]
    some = f"{len(compared)} metric{'s'[: len(compared) > 1]}"
    notes = [f"p (Holm) corrects for {some}; decided: it is at most {ALPHA:g}."]
    if any(difference.prompts < FEWEST for *_, difference in found):
        notes.append(f"Fewer than {FEWEST} prompts decide nothing and have no interval.")
    return markdown(
        Grid("", "Differences, means over prompts:", [Heading(t) for t in texts], body, 1, [], notes)
    ).strip()


def _maximises(match: Match, quantity: Quantity) -> str:
    """The sides whose method maximised the quantity: it decides nothing. Empty if none did."""

    def has(frame: pd.DataFrame) -> bool:
        texts = frame["optimised"].dropna() if "optimised" in frame else ()
        return any(quantity.name in str(text).split() for text in texts)

    return " and ".join(side for side, frame in (("A", match.a), ("B", match.b)) if has(frame))


def _verdict(quantity: Quantity, difference: Difference, p: float) -> str:
    if difference.prompts < FEWEST or not p <= ALPHA:
        return "no"
    if quantity.higher_is_better is None:
        return "A is larger" if difference.mean > 0 else "B is larger"
    return "A is better" if (difference.mean > 0) == quantity.higher_is_better else "B is better"


def _digits(quantity: Quantity) -> int:
    return 2 if quantity.kind == "count" else quantity.decimals


def _prompts(match: Match, quantity: Quantity) -> str:
    """The prompts that moved, the largest difference first."""
    digits = _digits(quantity)
    values = paired(match, quantity.name).assign(difference=lambda x: x["a"] - x["b"])
    moved = values[values["difference"].round(digits) != 0]
    moved = moved.reindex(moved["difference"].abs().sort_values(ascending=False, kind="stable").index)
    body = [
        [
            Entry(row.prompt),
            *(Entry(f"{v:.{digits}f}") for v in (row.a, row.b)),
            Entry(signed(row.difference, digits)),
        ]
        for row in moved.itertuples()
    ]
    higher = int((moved["difference"] > 0).sum())
    caption = (
        f"{heading(quantity)}: {len(moved)} of {len(values)} prompts moved, {higher} higher in A, "
        f"{len(moved) - higher} higher in B."
    )
    if not body:
        return caption
    head = [Heading("Prompt"), Heading("A"), Heading("B"), Heading("A − B")]
    return markdown(Grid("", caption, head, body, 1, [])).strip()


if __name__ == "__main__":
    sys.exit(main())
