"""Attention checks: extra screens that show whether a rater reads and looks.

- *instructed*: the screen says which side to choose in all three questions; any other choice fails.
- *scrambled*: a turntable next to a shuffled copy of itself; choosing the copy in any question fails.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evaluation.user_study.assignment import Comparison, places_of_checks
from evaluation.user_study.ordering import coin, digest, shuffled
from evaluation.user_study.study import COMPARISON, INSTRUCTED, SCRAMBLED, Trial

PASSED, FAILED, EMPTY = "passed", "failed", ""


def screens(
    comparisons: Sequence[Comparison],
    methods: Sequence[str],  # our method first
    scrambled: Sequence[tuple[int, str]],  # (prompt, method) of the scrambled clips
    counts: Mapping[str, int],  # checks per rater: instructed, scrambled
    key: str,
    rater: int,
) -> list[Trial]:
    """A rater's session: the comparisons in order, with the checks inserted."""
    ours, *baselines = methods
    trials = []
    for comparison in comparisons:
        pair = (ours, baselines[comparison.baseline])
        left, right = pair if comparison.ours_left else pair[::-1]
        trials.append(Trial(COMPARISON, comparison.prompt, left, right))
    checks = [_instructed(trials, key, rater, i) for i in range(counts["instructed"])]
    sources = shuffled(scrambled, key, "sources", rater)
    checks += [
        _scrambled(*sources[i % len(sources)], key, rater, i) for i in range(counts["scrambled"]) if sources
    ]
    checks = shuffled(checks, key, "checks", rater)
    places = places_of_checks(len(trials), len(checks), key, rater)
    for place, check in sorted(zip(places, checks, strict=True), key=lambda pair: -pair[0]):
        trials.insert(place, check)
    return trials


def _instructed(trials: Sequence[Trial], key: str, rater: int, i: int) -> Trial:
    """A pair that the rater also judges, with sides swapped."""
    model = trials[int(digest(key, "instructed", rater, i), 16) % len(trials)]
    side = ("left", "right")[(coin(key, "side", rater) + i) % 2]
    return Trial(INSTRUCTED, model.prompt, model.right, model.left, side)


def _scrambled(prompt: int, method: str, key: str, rater: int, i: int) -> Trial:
    side = ("left", "right")[(coin(key, "whole", rater) + i) % 2]
    pair = (method, SCRAMBLED) if side == "left" else (SCRAMBLED, method)
    return Trial(SCRAMBLED, prompt, *pair, side)


def failed(trial: Trial, choices: Mapping[str, str]) -> bool:
    """Whether the answers fail the check."""
    if trial.kind == INSTRUCTED:
        return any(choice != trial.expected for choice in choices.values())
    wrong = "right" if trial.expected == "left" else "left"
    return any(choice == wrong for choice in choices.values())


def verdict(
    trials: Sequence[Trial], answers: Mapping[int, Mapping[str, str]], max_failed: int
) -> tuple[str, int, int]:
    """(passed, failed or empty; checks failed; checks seen) of a session; empty if no check was seen."""
    met = [i for i in answers if trials[i].kind != COMPARISON]
    count = sum(failed(trials[i], answers[i]) for i in met)
    return (EMPTY if not met else FAILED if count > max_failed else PASSED), count, len(met)
