"""What ran, as the overview says it: parts, tables, cost against quality, what is missing."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.metrics.base import Metric, Quantity
from evaluation.report.bibliography import bibtex, keys_of, links, software
from evaluation.report.paths import shareable
from evaluation.results.aggregate import MORE_COST, ONCE, SPEED, Panel, Row, costs, method_table, one_judge
from evaluation.results.variants import flat_config
from evaluation.tables.formats import ARROWS, Entry, Grid
from evaluation.tables.method_tables import headlines, what
from trace_bench.run_folder.index import Index, failure
from trace_bench.run_folder.reading import Run, read_json
from trace_bench.run_folder.states import state_of
from trace_bench.system.errors import TraceBenchError

Names = Mapping[str, Mapping[str, str]]
_WHY = {
    "killed": "its process ended without a word; the same command continues it",
    "preempted": "interrupted; the same command continues it",
    "running": "a process is working on it",
}
_LONG = 60  # rows from which on a table is closed at first


def priors(runs: Iterable[Run]) -> list[dict[str, Any]]:
    """Each prior that made a run: repository, revision, hash of the weights."""
    found: dict[str, dict[str, Any]] = {}
    for run in runs:
        prior = run.manifest.prior
        adapter = prior.get("adapter_repo")  # None: the method trains no LoRA
        entry = {
            "name": run.identity.prior,
            "repo": prior.get("repo"),
            "revision": prior.get("revision"),
            "sha256": prior.get("sha256"),
            "adapter": "the same" if adapter and adapter == prior.get("repo") else adapter,
            "adapter_revision": prior.get("adapter_revision"),
            "links": links(keys_of(None, f"prior/{run.identity.prior}")),
        }
        found.setdefault(repr(entry), entry)
    return list(found.values())


def parts(runs: Sequence[Run], names: Names) -> dict[str, list[dict[str, Any]]]:
    """Methods, representations and inits with name, citation, links and number of runs.

    What they cite stands in the runs' config.yaml, so also for parts of your own.
    """
    groups: dict[str, list[dict[str, Any]]] = {}
    for group in ("method", "representation", "init"):
        counts = Counter(getattr(run.identity, group) for run in runs)
        examples = {getattr(run.identity, group): run for run in runs}
        groups[group] = []
        for name, count in sorted(counts.items()):
            found = flat_config(examples[name].folder / "config.yaml").get(f"{group}.citation", "None")
            citation = None if found == "None" else found
            groups[group].append({
                "name": names.get(group, {}).get(name, name),
                "citation": citation,
                "links": links(keys_of(citation, f"{group}/{name}")),
                "runs": count,
            })  # fmt: skip
    return groups


def facts(runs: Sequence[Run]) -> dict[str, Any]:
    """Prompts, seeds, devices, versions and hours of finished runs."""
    environments = [run.manifest.environment for run in runs]
    finished = sorted(run.manifest.finished for run in runs if run.manifest.finished)
    return {
        "runs": len(runs),
        "prompts": len({(run.identity.prompt_set, run.identity.prompt_id, run.prompt) for run in runs}),
        "sets": _counts(run.identity.prompt_set for run in runs),
        "seeds": sorted({run.identity.seed for run in runs}),
        "devices": _counts(str(e.get("gpu") or e.get("cpu") or "unknown") for e in environments),
        "versions": _counts(str(e.get("trace_bench") or "unknown") for e in environments),
        "commits": _counts(
            f"{str(e['commit'])[:10]}{' with changes' if e.get('dirty') else ''}"
            for e in environments
            if e.get("commit")
        ),
        "hours": round(sum(run.manifest.seconds.get("total", 0.0) for run in runs) / 3600, 3),
        "tflop": round(sum(run.manifest.cost.get("tflop") or 0.0 for run in runs), 3),
        "from": finished[0] if finished else None,
        "to": finished[-1] if finished else None,
    }


def _counts(values: Iterable[str]) -> list[list[Any]]:
    return [[value, count] for value, count in sorted(Counter(values).items())]


def table(grid: Grid) -> dict[str, Any]:
    """A table as the page draws it; `rank` 1 is the decided best, 2 the best number that is not decided."""
    return {
        "name": grid.name,
        "caption": grid.caption,
        "head": [[head.text, head.group, head.marks] for head in grid.head],
        "labels": grid.labels,
        "body": [[_entry(entry) for entry in row] for row in grid.body],
        "notes": list(grid.notes),
        "paper": not grid.name.startswith(("methods-", "prompts-", "cost-", "pairs-")),
        "long": len(grid.body) > _LONG or grid.name.startswith(("prompts-", "pairs-")),
    }


def _entry(entry: Entry) -> list[Any]:
    """Text, rank and marks; and whether the text is only shown once the rows are sorted."""
    shown = [entry.text or entry.repeated, entry.rank, entry.marks]
    return [*shown, True] if entry.repeated else shown


def columns(
    tables: Iterable[Mapping[str, Any]], metrics: Mapping[str, Metric], runs: Sequence[Quantity]
) -> list[dict[str, Any]]:
    """The numbers that tables have, but no run; those of `runs` are left out."""
    heads = {text for one in tables for text, *_ in one["head"]}
    every = [q for metric in metrics.values() for q in metric.quantities]
    known = {quantity.name for quantity in runs}
    found = [quantity_of(q) for q in (*every, ONCE, *MORE_COST, *SPEED) if q.name not in known]
    return [one for one in found if f"{one['label']} {one['arrow']}".strip() in heads]


def tradeoffs(panels: Sequence[Panel], metrics: Mapping[str, Metric], names: Names) -> list[dict[str, Any]]:
    """Mean cost and quality of each row with complete numbers, for every pair of a cost and a quality."""
    found = []
    for one in panels:
        panel, _ = one_judge(one, metrics)
        qualities, spent = headlines(panel, metrics), [*costs(panel.frame), *MORE_COST]
        rows = method_table(panel, [*qualities, *spent], names)
        known = [row for row in rows.rows if any(c.complete for c in row.cells[: len(qualities)])]
        several = [c for c in rows.label_columns if len({row.labels[c] for row in known}) > 1]
        more = [c for c in several if c != "method"]
        found.append({
            "title": what(panel),
            "qualities": [quantity_of(quantity) for quantity in qualities],
            "costs": [quantity_of(quantity) for quantity in spent],
            "rows": [{"name": _named(row, more), "values": _means(row), "own": _own(row)} for row in known],
        })  # fmt: skip
    return [entry for entry in found if entry["qualities"] and len(entry["rows"]) > 1]


def _named(row: Row, more: Sequence[str]) -> str:
    return " ".join([row.labels["method"], *(row.labels[column] for column in more)])


def _own(row: Row) -> list[str]:
    """The numbers that the row's method maximised: they are shown, but on no front."""
    return [cell.quantity.name for cell in row.cells if cell.optimised]


def _means(row: Row) -> dict[str, float]:
    return {c.quantity.name: c.mean for c in row.cells if c.complete and math.isfinite(c.mean)}


def quantity_of(quantity: Quantity) -> dict[str, Any]:
    """A number's name, label, definition and direction; a headline stands below pictures."""
    return {
        "headline": quantity.kind == "mean" and not quantity.partial,
        "name": quantity.name,
        "label": quantity.label,
        "arrow": ARROWS[quantity.higher_is_better].strip(),
        "note": quantity.note,
        "better": quantity.higher_is_better,
        "decimals": quantity.decimals,
        "count": quantity.kind == "count",
    }


def unfinished(index: Index, planned: Iterable[str]) -> list[dict[str, Any]]:
    """Runs that are not done: failed, interrupted, running, unreadable, or planned and never begun."""
    found: list[dict[str, Any]] = []
    for name, run in index.runs.items():
        if run.manifest.status == "done":
            continue
        state = state_of(run.folder, run.manifest)
        why = failure(run.folder) if state == "failed" else _WHY.get(state, "")
        one = run.identity
        about = {"method": one.method, "representation": one.representation, "seed": one.seed}
        found.append({"state": state, "prompt": run.prompt, **about, "folder": name, "why": why})
    for name, reason in index.unreadable.items():
        found.append({"state": "unreadable", "folder": name, "why": reason})
    missing = [n for n in dict.fromkeys(planned) if n not in index.runs and n not in index.unreadable]
    for name in missing:
        _, method, representation, *_ = [*name.split("/"), "", ""]
        about = {"method": method, "representation": representation, "folder": name}
        found.append(
            {"state": "missing", **about, "why": "planned, but never begun; the same command makes it"}
        )
    return found


def sweeps(root: Path, problems: list[str]) -> tuple[list[str], list[str]]:
    """The commands of sweeps/*/plan.json, latest last, and all runs that they planned."""
    found = []
    for path in root.glob("sweeps/*/plan.json"):
        try:
            plan = read_json(path)
            command = shareable(str(plan["command"]))
            found.append((str(plan["issued"]), command, [str(name) for name in plan["runs"]]))
        except TraceBenchError as error:
            problems.append(str(error))
        except (KeyError, TypeError) as error:
            problems.append(f"{path} is not a plan ({type(error).__name__}: {error}).")
    found.sort()
    return list(dict.fromkeys(command for _, command, _ in found)), [n for *_, runs in found for n in runs]


def citations(
    about: Mapping[str, Sequence[Mapping[str, Any]]],
    runs: Sequence[Run],
    metrics: Iterable[Metric],
    judged: bool,
    version: str,
) -> str:
    """BibTeX of trace_bench and of everything that the report uses."""
    texts = [str(part["citation"]) for group in about.values() for part in group if part["citation"]]
    texts += [str(metric.citation) for metric in metrics]
    keys = [key for text in texts for key in keys_of(text)]
    keys += [
        key for name in sorted({run.identity.prior for run in runs}) for key in keys_of(None, f"prior/{name}")
    ]
    keys += keys_of(None, "judge") if judged else []
    known = [text for text in texts if not keys_of(text)]
    return f"{software(version)}\n\n{bibtex(keys, known)}"
