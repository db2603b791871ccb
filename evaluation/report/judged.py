"""The judges' answers about each run, in words.

Reads `gpteval3d/<judge>/<tournament>/comparisons.json`, and for judges that write, `answers.jsonl` beside it
(docs/gpteval3d.md).
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from evaluation.gpteval3d.criteria import CRITERIA, LABELS
from trace_bench.run_folder.reading import read_json
from trace_bench.system.errors import UNREADABLE, TraceBenchError

_MOST_TEXTS = 6  # of one run and judge
_LONGEST = 4000  # characters of one answer
Answers = dict[str, list[dict[str, Any]]]  # folder of the run -> what judges said of it


def judged(root: Path, frame: pd.DataFrame, problems: list[str]) -> Answers:
    """What every judge decided about every run; a file that cannot be used is told in `problems`."""
    found: Answers = defaultdict(list)
    if frame.empty:
        return found
    for path in sorted(root.glob("gpteval3d/*/elo.json")):
        try:
            content = read_json(path)
            name, tournaments = str(content["judge"]["name"]), list(content["tournaments"])
            texts = _texts(path.parent / "answers.jsonl")
            for tournament in tournaments:
                games = read_json(path.parent / tournament["name"] / "comparisons.json")
                _add(found, frame, name, tournament, games, texts)
        except TraceBenchError as error:
            problems.append(str(error))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            problems.append(f"{path.parent} cannot be shown ({type(error).__name__}: {error}).")
    return found


def _add(
    found: Answers,
    frame: pd.DataFrame,
    judge: str,
    tournament: Mapping[str, Any],
    games: Mapping[str, Any],
    texts: Mapping[str, list[str]],
) -> None:
    """Count wins, draws and losses of each run by opponent and criterion."""
    folders = _Folders(frame, tournament)
    counts: dict[str, dict[tuple[str, str], list[int]]] = defaultdict(lambda: defaultdict(lambda: [0, 0, 0]))
    said: dict[str, dict[str, None]] = defaultdict(dict)
    for criterion in [name for name in CRITERIA if name in games]:
        for game in games[criterion]:
            for me, other, sign in ((game["m1"], game["m2"], 1), (game["m2"], game["m1"], -1)):
                folder = folders.of(str(me), str(game["prompt_id"]))
                if folder is None:
                    continue
                result = _sign(game["result"]) * sign  # -1: m1 is better
                counts[folder][str(other), criterion][result + 1] += 1
                said[folder][str(game.get("key"))] = None
    for folder, games_of in counts.items():
        opponents = list(dict.fromkeys(other for other, _ in games_of))
        used = [c for c in CRITERIA if any(criterion == c for _, criterion in games_of)]
        found[folder].append({
            "judge": judge,
            "tournament": str(tournament["name"]),
            "criteria": [LABELS[criterion] for criterion in used],
            "rows": [[other, [games_of.get((other, c)) for c in used]] for other in opponents],
            "texts": [text[:_LONGEST] for key in said[folder] for text in texts.get(key, ())][:_MOST_TEXTS],
        })  # fmt: skip


def _sign(result: Any) -> int:
    return (int(result) > 0) - (int(result) < 0)


class _Folders:
    """Which run a contestant is on a prompt: that with its method, representation, settings, lowest seed."""

    def __init__(self, frame: pd.DataFrame, tournament: Mapping[str, Any]) -> None:
        rows = {str(row["contestant"]): row for row in tournament["rows"]}
        same = frame[
            (frame["prompt_set"] == tournament["prompt_set"]) & (frame["prior"] == tournament["prior"])
        ]
        self._found: dict[tuple[str, str], str] = {}
        for name, row in rows.items():
            mine = same[same["method"] == row["method"]]
            if row["representation"] is not None:
                mine = mine[mine["representation"] == row["representation"]]
            for key, value in row["settings"].items():
                if key in mine:
                    mine = mine[mine[key].astype(str) == str(value)]
            for run in mine.sort_values("seed").to_dict("records"):
                self._found.setdefault((name, str(run["prompt_id"])), str(run["folder"]))

    def of(self, contestant: str, prompt_id: str) -> str | None:
        return self._found.get((contestant, prompt_id))


def _texts(path: Path) -> dict[str, list[str]]:
    """Question -> the texts of the judge's answers."""
    found: dict[str, list[str]] = defaultdict(list)
    for event in _events(path):
        if event.get("event") == "answer":
            choices = [str(choice.get("text") or "") for choice in event.get("choices") or []]
            found[str(event.get("key"))] += [text for text in choices if text.strip()]
    return found


def _events(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                try:
                    event = json.loads(line)
                except UNREADABLE:  # the unfinished last line of a killed program
                    continue
                if isinstance(event, dict):
                    yield event
    except OSError:  # a judge by scores writes no answers
        return
