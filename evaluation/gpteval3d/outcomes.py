"""Turns the judge's answers into games, and reports statistics of the answers.

Aggregation: `choices`, every valid choice is a game, as published; `fractional`, the valid choices of a
question share the weight of one game; `majority`, all valid choices of a comparison, in both orders, make one
game, won with more than half of them, else a draw.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluation.gpteval3d.comparisons import Game
from evaluation.gpteval3d.criteria import CRITERIA
from evaluation.gpteval3d.questions import Question
from evaluation.gpteval3d.server.store import Reading
from evaluation.statistics.paired import FEWEST, of_differences
from trace_bench.system.errors import TraceBenchError

MISSING = 0.05  # share of unusable choices above which a result is marked


@dataclass(frozen=True)
class Answered:
    """A question with its parsed choices so far, and the number still missing."""

    question: Question
    readings: list[Reading]
    missing: int

    @property
    def valid(self) -> list[tuple[int, ...]]:
        return [results for _, results in self.readings if results is not None]


@dataclass(frozen=True)
class Verdict:
    """One game of one criterion, and its origin."""

    criterion: str
    game: Game
    question: Question
    order: int | None = None  # index of the order in its comparison; None: both together


def verdicts(answered: Sequence[Answered], how: str) -> list[Verdict]:
    """The games of all answers."""
    makers: dict[str, Callable[[Sequence[Answered]], list[Verdict]]] = {
        "choices": lambda found: _each(found, shared=False),
        "fractional": lambda found: _each(found, shared=True),
        "majority": _majority,
    }
    if how not in makers:
        raise TraceBenchError(f"aggregate={how} is unknown: use one of {', '.join(makers)}.")
    return makers[how](answered)


def _each(answered: Sequence[Answered], shared: bool) -> list[Verdict]:
    seen: Counter[int] = Counter()
    found = []
    for item in answered:
        question, valid = item.question, item.valid
        order = seen[question.comparison]
        seen[question.comparison] += 1
        weight = 1.0 / len(valid) if shared and valid else 1.0
        found += [
            Verdict(
                criterion,
                Game(question.left, question.right, result, question.prompt_id, weight),
                question,
                order,
            )
            for results in valid
            for criterion, result in zip(question.ensemble.criteria, results, strict=True)
        ]
    return found


def _majority(answered: Sequence[Answered]) -> list[Verdict]:
    found = []
    for _, group in itertools.groupby(answered, key=lambda item: item.question.comparison):
        items = list(group)
        first = items[0].question
        for i, criterion in enumerate(first.ensemble.criteria):
            votes = [
                results[i] * (1 if item.question.left == first.left else -1)
                for item in items
                for results in item.valid
            ]
            if votes:
                game = Game(first.left, first.right, _winner(votes), first.prompt_id)
                found.append(Verdict(criterion, game, first))
    return found


def _winner(votes: Sequence[int]) -> int:
    """-1 or 1 if it has more than half of the votes, else 0."""
    return next((side for side in (-1, 1) if 2 * votes.count(side) > len(votes)), 0)


def games(found: Sequence[Verdict]) -> dict[str, list[Game]]:
    """Games by criterion, in the published order, without empty criteria."""
    by_criterion = {name: [v.game for v in found if v.criterion == name] for name in CRITERIA}
    return {name: items for name, items in by_criterion.items() if items}


def records(found: Sequence[Verdict], judge: str) -> dict[str, list[dict[str, Any]]]:
    """The published format, extended so that each game can be traced."""
    lists: dict[str, list[dict[str, Any]]] = {name: [] for name in CRITERIA}
    for v in found:
        more = {"prompt_id": v.question.prompt_id, "comparison": v.question.comparison, "key": v.question.key}
        weight = {} if v.game.weight == 1.0 else {"weight": v.game.weight}
        lists[v.criterion].append(v.game.record() | more | weight | {"judge": judge})
    return {name: items for name, items in lists.items() if items}


def statistics(answered: Sequence[Answered]) -> dict[str, Any]:
    """Statistics of the answers: unusable choices, draws, position bias, agreement."""
    status = Counter(status for item in answered for status, _ in item.readings)
    found = _each(answered, shared=False)
    choices, decided = sum(status.values()), [v for v in found if v.game.result]
    unanswered = sum(not item.valid for item in answered)
    share, interval = _left_share(decided)
    return {
        "questions": len(answered),
        "answered": len(answered) - unanswered,
        "unanswered": unanswered,
        "choices": choices,
        **{name: status[name] for name in ("valid", "unparsable", "refused", "truncated")},
        "draw_share": _share(len(found) - len(decided), len(found)),
        "left_share": share,
        "left_share_ci": interval,
        "order_agreement": _order_agreement(answered),
        "choice_agreement": _choice_agreement(answered),
        "invalid_by_contestant": _invalid(answered),
    }


def _share(part: float, whole: float) -> float | None:
    return round(part / whole, 4) if whole else None


def _left_share(decided: Sequence[Verdict]) -> tuple[float | None, list[float] | None]:
    """Share of decided answers won by the left side, with its interval over comparisons (none below six).

    Both orders and all choices of a comparison move together; the interval is that of the jackknife's
    pseudo-values (Tukey 1958), one per comparison.
    """
    if not decided:
        return None, None
    counts: dict[Any, list[int]] = defaultdict(lambda: [0, 0])
    for v in decided:
        counts[v.question.comparison][0] += v.game.result < 0
        counts[v.question.comparison][1] += 1
    table = np.array(list(counts.values()), float)  # [C, (left, decided)]
    left, every = table.sum(axis=0)
    if len(table) < FEWEST:
        return _share(left, every), None
    others = table.sum(axis=0) - table
    found = of_differences(len(table) * left / every - (len(table) - 1) * others[:, 0] / others[:, 1])
    return _share(left, every), [round(max(0.0, found.low), 4), round(min(1.0, found.high), 4)]


def _order_agreement(answered: Sequence[Answered]) -> float | None:
    """Share of comparisons and criteria in which both orders give the same result."""
    agree = total = 0
    for _, group in itertools.groupby(answered, key=lambda item: item.question.comparison):
        items = [item for item in group if item.valid]
        if len(items) < 2:
            continue
        for i in range(len(items[0].question.ensemble.criteria)):
            one, other = (_winner([results[i] for results in item.valid]) for item in items[:2])
            agree += one == -other
            total += 1
    return _share(agree, total)


def _choice_agreement(answered: Sequence[Answered]) -> float | None:
    """Share of pairs of valid choices of one question that agree on a criterion."""
    agree = total = 0
    for item in answered:
        for one, other in itertools.combinations(item.valid, 2):
            agree += sum(a == b for a, b in zip(one, other, strict=True))
            total += len(one)
    return _share(agree, total)


def _invalid(answered: Sequence[Answered]) -> dict[str, float | None]:
    """Share of unusable choices per contestant."""
    bad: Counter[str] = Counter()
    every: Counter[str] = Counter()
    for item in answered:
        for name in (item.question.left, item.question.right):
            every[name] += len(item.readings)
            bad[name] += len(item.readings) - len(item.valid)
    return {name: _share(bad[name], every[name]) for name in sorted(every)}


def notes(counts: Mapping[str, Any], complete: bool) -> list[str]:
    """Notes about the answers for readers of the scores."""
    found = []
    if not complete:
        found.append("some planned questions are still open: run the command again to continue")
    invalid = counts["choices"] - counts["valid"]
    if counts["choices"] and invalid > MISSING * counts["choices"]:
        found.append(
            f"{invalid} of {counts['choices']} choices were unusable ({counts['unparsable']} unparsable, "
            f"{counts['refused']} refused, {counts['truncated']} cut off)"
        )
    interval = counts["left_share_ci"]
    if interval and not interval[0] <= 0.5 <= interval[1]:
        found.append(
            f"the judge has a position bias: the left asset won {counts['left_share']:.0%} of its decisions "
            f"(95 % {interval[0]:.0%} to {interval[1]:.0%})"
        )
    return found
