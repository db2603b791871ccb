"""The judges' answers about each run, in words.

Reads `gpteval3d/<judge>/<tournament>/comparisons.json`, and for judges that write, `answers.jsonl` beside it
(docs/gpteval3d.md).
"""

from __future__ import annotations

import json
import shlex
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from evaluation.gpteval3d.criteria import CRITERIA, LABELS
from evaluation.report.paths import shareable, without_paths
from trace_bench.run_folder.reading import read_json
from trace_bench.system.errors import UNREADABLE, TraceBenchError

_MOST_TEXTS = 6  # of one run and judge
_LONGEST = 4000  # characters of one answer
_OPENAI = "api.openai.com"
Answers = dict[str, list[dict[str, Any]]]  # folder of the run -> what judges said of it


@dataclass
class Judged:
    """What every judge decided about every run, and the commands that asked them."""

    answers: Answers = field(default_factory=lambda: defaultdict(list))
    commands: list[str] = field(default_factory=list)


def judged(root: Path, frame: pd.DataFrame, problems: list[str]) -> Judged:
    """What every judge decided; a file that cannot be used is told in `problems`."""
    found = Judged()
    if frame.empty:
        return found
    for path in sorted(root.glob("gpteval3d/*/elo.json")):
        try:
            content = read_json(path)
            judge, tournaments = content["judge"], list(content["tournaments"])
            name = without_paths(str(judge["name"]))
            texts = _texts(path.parent / "answers.jsonl")
            for tournament in tournaments:
                games = read_json(path.parent / tournament["name"] / "comparisons.json")
                _add(found.answers, frame, name, tournament, games, texts)
                found.commands.append(_command(judge, tournament))
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
    asked: dict[str, dict[str, _Asked]] = defaultdict(dict)
    for criterion in [name for name in CRITERIA if name in games]:
        for game in games[criterion]:
            both = ((game["m1"], game["m2"], 1), (game["m2"], game["m1"], -1))  # m1 was on the left
            for me, other, sign in both:
                folder = folders.of(str(me), str(game["prompt_id"]))
                if folder is None:
                    continue
                result = _sign(game["result"]) * sign  # -1: m1 is better
                counts[folder][str(other), criterion][result + 1] += 1
                question = asked[folder].setdefault(str(game.get("key")), _Asked(str(other), sign > 0))
                question.criteria[LABELS[criterion]] = None
    for folder, games_of in counts.items():
        quotes = [q.quote(text) for key, q in asked[folder].items() for text in texts.get(key, ())]
        opponents = list(dict.fromkeys(other for other, _ in games_of))
        used = [c for c in CRITERIA if any(criterion == c for _, criterion in games_of)]
        found[folder].append({
            "judge": judge,
            "tournament": str(tournament["name"]),
            "criteria": [LABELS[criterion] for criterion in used],
            "rows": [[other, [games_of.get((other, c)) for c in used]] for other in opponents],
            "texts": quotes[:_MOST_TEXTS],
            "all": len(quotes),
        })  # fmt: skip


@dataclass
class _Asked:
    """A question about a run."""

    against: str
    on_the_left: bool
    criteria: dict[str, None] = field(default_factory=dict)  # labels, in order

    def quote(self, text: str) -> dict[str, Any]:
        """An answer to it, with what one must know to understand "the left one"."""
        return {
            "against": self.against,
            "left": self.on_the_left,
            "criteria": list(self.criteria),
            "text": text[:_LONGEST],
            "cut": len(text) - _LONGEST if len(text) > _LONGEST else 0,
        }


def _command(judge: Mapping[str, Any], tournament: Mapping[str, Any]) -> str:
    """The command that asked the judge."""
    words = ["python", "-m", "evaluation.gpteval3d", f"judge={judge['kind']}"]
    words += [f"judge.model={judge['model']}"] if judge.get("model") else []
    words += ["judge.base_url=SERVER"] if judge.get("server") not in (None, _OPENAI) else []
    words += ["mode=new_method"] if tournament["mode"] == "new_method" else []
    words += [f"runs.prompt_set={tournament['prompt_set']}", f"runs.prior={tournament['prior']}"]
    return shareable(shlex.join(words))


def _sign(result: Any) -> int:
    return (int(result) > 0) - (int(result) < 0)


class _Folders:
    """Which run a contestant is on a prompt: that with its method, representation and settings, and with the
    seed of the tournament, or the lowest one."""

    def __init__(self, frame: pd.DataFrame, tournament: Mapping[str, Any]) -> None:
        rows = {str(row["contestant"]): row for row in tournament["rows"]}
        same = frame[
            (frame["prompt_set"] == tournament["prompt_set"]) & (frame["prior"] == tournament["prior"])
        ]
        if tournament.get("seed") is not None:
            same = same[same["seed"] == tournament["seed"]]
        self._found: dict[tuple[str, str], str] = {}
        for name, row in rows.items():
            mine = same[same["method"] == row["method"]]
            if row["representation"] is not None:
                mine = mine[mine["representation"] == row["representation"]]
            for key, value in row["settings"].items():
                if key in mine:
                    mine = mine[mine[key].isna() if value is None else mine[key].astype(str) == str(value)]
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
