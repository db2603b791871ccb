"""The runs as the gallery shows them: a column per method and settings, an entry per run, the truth."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from evaluation.figures.contact_sheet import SETTINGS_SHORT, TURN
from evaluation.metrics.base import Metric, Quantity
from evaluation.report.media import Media, forget_others, media_of, true_media
from evaluation.results.aggregate import COST, ROW, SHARED, Panel, groups, row_labels, split_settings
from evaluation.tables.method_tables import what
from trace_bench.run_folder.manifest import RunIdentity
from trace_bench.run_folder.reading import Run, natural, of_asset
from trace_bench.system.errors import TraceBenchError
from trace_bench.system.tracked import tracked

ALL, CHOSEN, NONE = "all", "chosen", "none"
_PICTURES, _REST = "p", "fvgsmo"
_THREADS = 2  # a picture decoder holds no lock; more only fill the memory


@dataclass
class Gallery:
    """What the page's gallery is made from."""

    prompts: list[str] = field(default_factory=list)
    panels: list[dict[str, Any]] = field(default_factory=list)  # one prompt set and prior each
    runs: list[dict[str, Any]] = field(default_factory=list)
    folders: dict[str, str] = field(default_factory=dict)  # folder of a run -> its id in the page
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Travels:
    """How much of each run travels along with the page."""

    assets: str = (
        ALL  # all; chosen: pictures of all, everything of the lowest seed of the first prompts; none
    )
    prompts: int = 24

    def kinds(self, lowest: bool, place: int) -> str:
        """Which kinds of media of a run, as in `Media.has`; `place` is that of its prompt in its set."""
        if self.assets == NONE:
            return ""
        is_chosen = self.assets == ALL or (lowest and place < self.prompts)
        return _PICTURES + (_REST if is_chosen else "")


def make_gallery(
    panels: Sequence[Panel], runs: Mapping[str, Run], metrics: Mapping[str, Metric],
    names: Mapping[str, Mapping[str, str]], folder: Path, travels: Travels,
) -> Gallery:  # fmt: skip
    """Write the media of all runs into the report's folder, and list the runs."""
    gallery = Gallery()
    quantities = shown(panels, metrics)
    over = assets_over_the_run(runs.values())
    jobs: list[tuple[dict[str, Any], Run, float, str]] = []
    rigs: dict[tuple[int, int], list[Run]] = {}
    places: dict[str, int] = {}
    ids = _ids(runs[folder] for panel in panels for folder in panel.frame["folder"].astype(str))
    for number, panel in enumerate(panels):
        frame = panel.frame
        order = sorted(frame["prompt_id"].unique(), key=natural)
        place = {prompt_id: i for i, prompt_id in enumerate(order)}
        columns = []
        for key, part in groups(frame, split_settings(frame)):
            columns.append(_column(key, frame, names))
            lowest = part.groupby("prompt_id")["seed"].min()
            for row in part.to_dict("records"):
                run = runs[str(row["folder"])]
                prompt = places.setdefault(run.prompt, len(places))
                entry: dict[str, Any] = {
                    "id": ids[run.folder],
                    "panel": number,
                    "column": len(columns) - 1,
                    "prompt": prompt,
                    "place": place[row["prompt_id"]],
                    "seed": run.identity.seed,
                    "minutes": _number(row["minutes"], 3),
                    "scores": [  # the page rounds them
                        _number(row.get(quantity.name), quantity.decimals + 6) for quantity in quantities
                    ],
                }
                if own := str(row.get("optimised") or "").split():
                    entry["own"] = [i for i, quantity in enumerate(quantities) if quantity.name in own]
                gallery.runs.append(entry)
                gallery.folders[str(row["folder"])] = entry["id"]
                turn = _number(row.get(TURN), 2) or 0.0
                is_lowest = bool(row["seed"] == lowest[row["prompt_id"]])
                jobs.append((entry, run, turn, travels.kinds(is_lowest, entry["place"])))
                rigs.setdefault((number, prompt), []).append(run)
        gallery.panels.append({"title": what(panel), "columns": columns, "truth": {}})
    gallery.prompts = list(places)
    keys = _add_media(gallery, jobs, folder, over)
    keys |= _add_truth(gallery, rigs, folder, travels)
    forget_others(folder, keys)
    return gallery


#: Asset -> number of steps -> the asset after them, with the last.
Over = Mapping[tuple[RunIdentity, str], Mapping[int, Run]]


def assets_over_the_run(runs: Iterable[Run]) -> Over:
    """The assets with renders of single steps (`renders_at`), maybe of another run that made the same."""
    found: dict[tuple[RunIdentity, str], dict[int, Run]] = {}
    for run in runs:
        steps = run.steps_rendered if run.manifest.status == "done" else {}
        if steps and len(steps) >= len(found.get(of_asset(run), ())):
            found[of_asset(run)] = steps | {run.identity.steps: run}
    return found


def shown(panels: Sequence[Panel], metrics: Mapping[str, Metric]) -> list[Quantity]:
    """The numbers that any run has: scores, then cost."""
    found = [quantity for metric in metrics.values() for quantity in metric.quantities]
    return [
        q
        for q in (*found, *COST, SHARED)
        if any(q.name in p.frame and p.frame[q.name].notna().any() for p in panels)
    ]


def _column(
    key: Sequence[Any], frame: pd.DataFrame, names: Mapping[str, Mapping[str, str]]
) -> dict[str, str]:
    settings = split_settings(frame)
    labels = row_labels(key, [*ROW, *settings], names)
    details = [labels["representation"]]
    details += [f"{SETTINGS_SHORT.get(name, name)} {labels[name]}".strip() for name in settings]
    return {
        "method": labels["method"],
        "representation": labels["representation"],
        "details": ", ".join(details),
    }


def _ids(runs: Any) -> dict[Path, str]:
    """A short name for links to each run, the same as long as the run is: the start of its fingerprint."""
    found: dict[Path, str] = {}
    used: set[str] = set()
    for run in runs:
        fingerprint, length = run.manifest.fingerprint, 8
        if not re.fullmatch("[0-9a-f]{64}", fingerprint):  # it names a file
            fingerprint = hashlib.sha256(fingerprint.encode(errors="replace")).hexdigest()
        while fingerprint[:length] in used and length < len(fingerprint):
            length += 4
        name = fingerprint[:length]
        while name in used:
            name += "x"
        used.add(name)
        found[run.folder] = name
    return found


def _add_media(
    gallery: Gallery, jobs: Sequence[tuple[dict[str, Any], Run, float, str]], folder: Path, over: Over
) -> set[str]:
    """Write the media of the runs and note them in their entries; what cannot be read is told."""

    def make(job: tuple[dict[str, Any], Run, float, str]) -> Media | str:
        _, run, turn, kinds = job
        try:
            return media_of(run, turn, folder, kinds, over.get(of_asset(run))) if kinds else Media("")
        except TraceBenchError as error:
            return str(error)
        except OSError as error:
            if error.filename is not None and not str(error.filename).startswith(str(run.folder)):
                raise  # the report's folder cannot be written
            return f"{error.filename} cannot be read ({error.strerror})."

    keys = set()
    with ThreadPoolExecutor(_THREADS) as pool:
        made = zip(jobs, pool.map(make, jobs), strict=True)
        for (entry, *_), media in tracked(made, "pictures of the runs", len(jobs)):
            if isinstance(media, str):
                gallery.problems.append(media)
                continue
            entry["media"] = _short(media)
            keys.add(media.key)
    return keys - {""}


def _add_truth(
    gallery: Gallery, rigs: Mapping[tuple[int, int], Sequence[Run]], folder: Path, travels: Travels
) -> set[str]:
    """Pictures and films of the true objects, by panel and prompt, from the cameras of one of its runs."""
    keys: set[str] = set()
    if travels.assets == NONE:
        return keys
    for (panel, prompt), found in rigs.items():
        for rig in found:
            try:
                media = true_media(rig.prompt, rig, folder, "pfv")
            except TraceBenchError:  # told where its own media are made
                continue
            if media is not None:
                gallery.panels[panel]["truth"][str(prompt)] = _short(media)
                keys.add(media.key)
                break
    return keys


def _short(media: Media) -> dict[str, Any]:
    return {key: value for key, value in asdict(media).items() if value not in ("", None, ()) and value != []}


def _number(value: Any, decimals: int) -> float | None:
    if value is None or pd.isna(value) or not math.isfinite(float(value)):
        return None
    return round(float(value), decimals)
