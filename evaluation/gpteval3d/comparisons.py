"""Files of comparisons and scores, in the formats of GPTEval3D and of this package.

Comparisons: {criterion: [{"m1": left, "m2": right, "result": -1, 0 or 1}, ...]} (-1: m1 won, 1: m2 won,
0: draw), or a list of such lists by criterion index. Optional keys: "prompt_id" or "prompt" (games of
one prompt are not independent), "weight", "judge".
Scores: {"scores": [{method: Elo}, ...]} by criterion index (the published config.json), {criterion: {method:
Elo}}, or {method: Elo} for a single criterion.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.gpteval3d.criteria import criterion_name
from trace_bench.system.errors import UNREADABLE, TraceBenchError


@dataclass(frozen=True)
class Game:
    """One verdict of the judge."""

    left: str
    right: str
    result: int  # -1 left won, 1 right won, 0 draw
    cluster: str | None = None  # prompt; games of one prompt are not independent
    weight: float = 1.0

    def record(self) -> dict[str, Any]:
        """The entry in comparisons.json."""
        return {"m1": self.left, "m2": self.right, "result": self.result}


Games = dict[str, list[Game]]  # by criterion
Scores = dict[str, dict[str, float]]  # criterion -> method -> Elo


def read_comparisons(path: Path) -> Games:
    """The games of a file by its own criterion names; raises if the file mixes judges."""
    content = _read(path)
    if isinstance(content, Mapping) and set(content) >= {"m1", "m2", "result"}:
        content = [content]
    if isinstance(content, Sequence) and content and all(_is_game(item) for item in content):
        content = {"0": content}
    lists = dict(enumerate(content)) if isinstance(content, list) else content
    if not isinstance(lists, Mapping) or not lists:
        raise TraceBenchError(f"{path} holds no comparisons: it needs one list per criterion.")
    _each_once(lists, path)
    games, judges = {}, set()
    for key, items in lists.items():
        rows = list(items.values()) if isinstance(items, Mapping) else items
        if not isinstance(rows, list):
            raise TraceBenchError(f"{path}: criterion {key!r} is not a list of comparisons.")
        games[str(key)] = [_game(row, f"{path}: criterion {key!r}, entry {i}") for i, row in enumerate(rows)]
        judges |= {str(row["judge"]) for row in rows if row.get("judge")}
    if len(judges) > 1:
        raise TraceBenchError(
            f"{path} mixes the answers of {len(judges)} judges ({', '.join(sorted(judges))}), but one Elo "
            "needs one judge: split the file by its key 'judge'."
        )
    return games


def _each_once(keys: Iterable[str | int], path: Path) -> None:
    """Raise if two keys name one criterion."""
    known: dict[str, str | int] = {}
    for key in keys:
        name = criterion_name(key)
        if name in known:
            raise TraceBenchError(
                f"{path} has the criterion {name} twice, as {str(known[name])!r} and {str(key)!r}: keep "
                "one of them."
            )
        known[name] = key


def _is_game(item: Any) -> bool:
    return isinstance(item, Mapping) and "m1" in item


def _game(row: Any, where: str) -> Game:
    """Check and read one entry."""
    if not isinstance(row, Mapping) or not {"m1", "m2", "result"} <= set(row):
        raise TraceBenchError(f"{where} is not a comparison: it needs m1, m2 and result.")
    left, right, result = row["m1"], row["m2"], row["result"]
    if isinstance(result, bool) or result not in (-1, 0, 1):
        raise TraceBenchError(
            f"{where} has result {result!r}; it must be -1 (m1 won), 1 (m2 won) or 0 (draw)."
        )
    if left == right:
        raise TraceBenchError(f"{where} compares {left!r} with itself.")
    weight = row.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < math.inf:
        raise TraceBenchError(f"{where} has weight {weight!r}; it must be a positive number.")
    cluster = row.get("prompt_id", row.get("prompt"))
    return Game(str(left), str(right), int(result), None if cluster is None else str(cluster), float(weight))


def read_scores(path: Path) -> Scores:
    """Frozen scores by criterion and method; a single {method: Elo} gets the criterion ""."""
    content = _read(path)
    if isinstance(content, Mapping) and "scores" in content:
        content = content["scores"]
    if isinstance(content, Mapping) and content and not any(isinstance(v, Mapping) for v in content.values()):
        return {"": _elos(content, str(path))}
    tables = dict(enumerate(content)) if isinstance(content, list) else content
    if not isinstance(tables, Mapping) or not tables:
        raise TraceBenchError(f"{path} holds no scores: it needs one {{method: Elo}} per criterion.")
    _each_once(tables, path)
    return {criterion_name(key): _elos(table, f"{path}: criterion {key!r}") for key, table in tables.items()}


def _elos(table: Any, where: str) -> dict[str, float]:
    if not isinstance(table, Mapping):
        raise TraceBenchError(f"{where} is not a table {{method: Elo}}.")
    elos = {}
    for method, elo in table.items():
        if elo is None:  # mode=elo writes null for an undefined score
            continue
        if isinstance(elo, bool) or not isinstance(elo, int | float) or not math.isfinite(elo):
            raise TraceBenchError(f"{where}: the score of {method!r} is {elo!r}, not a number.")
        elos[str(method)] = float(elo)
    return elos


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_object)
    except FileNotFoundError:
        raise TraceBenchError(f"There is no file {path}.") from None
    except (OSError, *UNREADABLE) as error:
        raise TraceBenchError(
            f"{path} cannot be read as JSON ({str(error) or type(error).__name__})."
        ) from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object whose keys are there once."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key in found if sum(key == other for other, _ in pairs) > 1)
        raise ValueError(f"the key {twice!r} is there twice in one object")
    return found
