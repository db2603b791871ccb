"""elo.json (format: docs/gpteval3d.md) and the tables on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.gpteval3d.criteria import CRITERIA, LABELS
from evaluation.results.markdown import plain, sentence
from trace_bench.run_folder.reading import read_json
from trace_bench.system.errors import TraceBenchError
from trace_bench.system.files import write_json

SCHEMA_VERSION = 1
ELO = "elo.json"
OPTIMISED = "{}: the method maximises what this judge compares, so it comes last and has no rank"
_REMAKE = "remove it and run its tournaments again; their answers are kept in answers.jsonl"


def save(folder: Path, judge: Mapping[str, Any], tournament: Mapping[str, Any]) -> Path:
    """Write a tournament to the judge's elo.json; it replaces an earlier one of the same name."""
    path = folder / ELO
    name, others = read(folder)
    if name is not None and name != judge["name"]:
        others = []  # another model's answers count now
    others = [entry for entry in others if entry["name"] != tournament["name"]]
    entries = sorted([*others, tournament], key=lambda entry: entry["name"])
    write_json(path, {"schema_version": SCHEMA_VERSION, "judge": dict(judge), "tournaments": entries})
    return path


def read(folder: Path) -> tuple[str | None, list[dict[str, Any]]]:
    """The judge's name and the tournaments in its elo.json; (None, []) if there is none.

    Raises:
        TraceBenchError: it is damaged, or of another judge or version.
    """
    path = folder / ELO
    if not path.exists():
        return None, []
    content = read_json(path, _REMAKE)
    try:
        if content["schema_version"] != SCHEMA_VERSION or content["judge"]["id"] != folder.name:
            raise TraceBenchError(f"{path} belongs to another judge or version: move it elsewhere.")
        name, tournaments = str(content["judge"]["name"]), list(content["tournaments"])
        if not all(isinstance(entry["name"], str) for entry in tournaments):
            raise TypeError("a tournament without a name")
    except (KeyError, TypeError, AttributeError) as error:
        raise TraceBenchError(f"{path} is damaged ({type(error).__name__}: {error}): {_REMAKE}.") from error
    return name, tournaments


def markdown(tournament: Mapping[str, Any]) -> str:
    """Contestants x criteria: Elo with interval, sorted by the first criterion; last those whose method
    maximises what the judge compares."""
    rows = tournament["rows"]
    criteria = [name for name in CRITERIA if any(row["criterion"] == name for row in rows)]
    cells = {(row["contestant"], row["criterion"]): row for row in rows}
    names = list(dict.fromkeys(row["contestant"] for row in rows))

    def score(name: str) -> tuple[bool, float]:
        row = cells[name, criteria[0]]
        return not row.get("optimised"), float("-inf") if row["elo"] is None else row["elo"]

    names.sort(key=score, reverse=True)
    head = ["Contestant", *(LABELS[name] for name in criteria)]
    body = [[plain(name), *(_cell(cells.get((name, c))) for c in criteria)] for name in names]
    table = _aligned(head, body)
    remarks = [*tournament["notes"], *dict.fromkeys(row["note"] for row in rows if row["note"])]
    return "\n".join(
        [
            sentence(tournament["caption"]),
            "",
            *table,
            *([""] if remarks else []),
            *(f"- {sentence(r)}." for r in remarks),
        ]
    )


def _cell(row: Mapping[str, Any] | None) -> str:
    """For example 1067.5 [988, 1156]; = frozen, * regularised, ≥ never lost, ≤ never won, — undefined."""
    if row is None or row["elo"] is None:
        return "—"
    if row["frozen"]:
        return f"= {row['elo']:.1f}"
    mark = " *" if row["regularised"] else ""
    low, high = row["ci_low"], row["ci_high"]
    if (low is None) != (high is None):
        return f"≤ {high:.0f}{mark}" if low is None else f"≥ {low:.0f}{mark}"
    interval = "" if low is None else f" [{low:.0f}, {high:.0f}]"
    return f"{row['elo']:.1f}{interval}{mark}"


def _aligned(head: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in [head, *body]) for i in range(len(head))]
    lines = [
        "| "
        + " | ".join(
            t.rjust(w) if i else t.ljust(w) for i, (t, w) in enumerate(zip(row, widths, strict=True))
        )
        + " |"
        for row in [head, *body]
    ]
    rule = "| " + " | ".join("-" * (w - 1) + ":" if i else "-" * w for i, w in enumerate(widths)) + " |"
    return [lines[0], rule, *lines[1:]]


def of_answers(counts: Mapping[str, Any]) -> str:
    """Statistics of the answers in one line."""

    def share(value: float | None) -> str:
        return "—" if value is None else f"{value:.0%}"

    interval = counts["left_share_ci"]
    spread = f" [{share(interval[0])}, {share(interval[1])}]" if interval else ""
    unusable = (
        f"{counts['unparsable']} unparsable, {counts['refused']} refused, {counts['truncated']} cut off"
    )
    parts = [
        f"{counts['answered']} of {counts['questions']} questions answered",
        f"{counts['valid']} of {counts['choices']} choices valid ({unusable})",
        f"draws {share(counts['draw_share'])}",
        f"position bias: left wins {share(counts['left_share'])}{spread} of decided answers",
        f"both orders agree {share(counts['order_agreement'])}",
        f"choices agree {share(counts['choice_agreement'])}",
    ]
    return "; ".join(parts)
