"""mode=elo: Elo from a file of comparisons, without a judge or runs."""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evaluation.gpteval3d.comparisons import Games, Scores, read_comparisons, read_scores
from evaluation.gpteval3d.criteria import criterion_name
from evaluation.gpteval3d.elo import START
from evaluation.gpteval3d.rating import Rating, Rules, pick_anchor, rate
from trace_bench.system.errors import TraceBenchError

SCHEMA_VERSION = 1
_ALIKE = 0.8  # of difflib's ratio


def recompute(
    comparisons: Path,
    anchors: Path | None,
    anchor: str | None,
    anchor_elo: float = START,
    rules: Rules | None = None,
) -> dict[str, Any]:
    """Scores by criterion, as JSON. `anchors` is a file of frozen scores; None fixes one contestant."""
    games = read_comparisons(comparisons)
    rules = rules or Rules()
    if anchors is not None:
        frozen = _frozen(games, read_scores(anchors), anchors)
    else:
        name = pick_anchor(_names(games), anchor)
        frozen = {criterion: {name: anchor_elo} for criterion in games}
    ratings = [
        rating
        for criterion, held in frozen.items()
        if games[criterion] or anchors is not None
        for rating in rate(games[criterion], held, criterion, [], rules)
    ]
    rows = [rating.row() | {"criterion": criterion_name(rating.criterion)} for rating in ratings]
    return {
        "schema_version": SCHEMA_VERSION,
        "mode": "elo",
        "comparisons": _describe(comparisons),
        "anchors": None if anchors is None else _describe(anchors),
        "anchor": None if anchors is not None else {"contestant": name, "elo": anchor_elo},
        "draw": rules.draw,
        "scores": _table(ratings),
        "rows": rows,
    }


def _names(games: Games) -> list[str]:
    return list(dict.fromkeys(name for items in games.values() for g in items for name in (g.left, g.right)))


def _frozen(games: Games, scores: Scores, path: Path) -> Scores:
    """The frozen scores of every judged criterion, under the names in the comparisons file."""
    if set(scores) == {""}:
        if len(games) > 1:
            raise TraceBenchError(
                f"{path} holds one table of scores, but the comparisons have {len(games)} criteria: give one "
                "{method: Elo} per criterion."
            )
        scores = {criterion_name(next(iter(games))): scores[""]}
    held = {criterion: scores.get(criterion_name(criterion), {}) for criterion in games}
    missing = [criterion for criterion, items in games.items() if items and not held[criterion]]
    if missing:
        raise TraceBenchError(f"{path} has no scores for the criterion {', '.join(missing)}.")
    if all({g.left, g.right} <= set(held[criterion]) for criterion, items in games.items() for g in items):
        raise TraceBenchError(
            f"{path} already has a score for every compared method: remove the ones to compute."
        )
    _check_names(games, scores, path)
    return {criterion: table for criterion, table in held.items() if table}


def _check_names(games: Games, scores: Scores, path: Path) -> None:
    """Raise if a contestant without a frozen score is probably a misspelt one with a score.

    It is one if the two names differ only in case and punctuation; or if they are similar, and it either
    meets no contestant with a score, as only an opponent does, or is not just the other name with something
    added.
    """
    known = list(dict.fromkeys(name for table in scores.values() for name in table))
    rivals: dict[str, set[str]] = {name: set() for name in _names(games)}
    for game in (game for items in games.values() for game in items):
        rivals[game.left].add(game.right)
        rivals[game.right].add(game.left)
    for name in sorted(set(rivals) - set(known)):
        alike = [other for other in known if _letters(other) == _letters(name)]
        for near in difflib.get_close_matches(name, known, n=3, cutoff=_ALIKE):
            extends = near in name or name in near
            if near not in alike and not (extends and rivals[name] & set(known)):
                alike.append(near)
        if alike:
            raise TraceBenchError(
                f"{path} has no score of {name!r}; did you mean {' or '.join(map(repr, alike))}? Write the "
                "same name in "
                "both files, or, if it is a new contestant, give it a name that is less similar."
            )


def _letters(name: str) -> str:
    """A name without case and punctuation."""
    return re.sub(r"[\W_]+", "", name.casefold())


def _describe(path: Path) -> dict[str, str]:
    return {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def _table(ratings: list[Rating]) -> Mapping[str, dict[str, float | None]]:
    """{criterion: {method: Elo}}, best first; such a file can be used as anchors."""
    table: dict[str, dict[str, float | None]] = {}
    for rating in sorted(ratings, key=lambda r: -(r.elo if r.elo is not None else float("-inf"))):
        table.setdefault(rating.criterion, {})[rating.contestant] = rating.elo
    return table
