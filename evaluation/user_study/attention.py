"""Attention checks: screens among the others that show whether a rater reads and looks.

- *instructed*: a line says which side to choose in all three questions; anything else fails.
- *scrambled*: a turntable beside itself cut into squares and shuffled; that side in any question fails.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evaluation.user_study.assignment import Comparison, places_of_checks
from evaluation.user_study.ordering import coin, digest, shuffled
from evaluation.user_study.study import COMPARISON, INSTRUCTED, SCRAMBLED, Trial

PASSED, FAILED, EMPTY = "passed", "failed", ""


def screens(
    comparisons: Sequence[Comparison],
    methods: Sequence[str],  # own method first
    scrambled: Sequence[tuple[int, str]],  # (prompt, method) of the clips that there are scrambled
    counts: Mapping[str, int],  # checks a rater: instructed, scrambled
    key: str,
    rater: int,
) -> list[Trial]:
    """A rater's session: the comparisons in their order, the checks among them."""
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
    """A pair that the rater also judges, the other way round."""
    model = trials[int(digest(key, "instructed", rater, i), 16) % len(trials)]
    side = ("left", "right")[(coin(key, "side", rater) + i) % 2]
    return Trial(INSTRUCTED, model.prompt, model.right, model.left, side)


def _scrambled(prompt: int, method: str, key: str, rater: int, i: int) -> Trial:
    side = ("left", "right")[(coin(key, "whole", rater) + i) % 2]
    pair = (method, SCRAMBLED) if side == "left" else (SCRAMBLED, method)
    return Trial(SCRAMBLED, prompt, *pair, side)


def failed(trial: Trial, choices: Mapping[str, str]) -> bool:
    """Whether the answers to a check's questions fail it."""
    if trial.kind == INSTRUCTED:
        return any(choice != trial.expected for choice in choices.values())
    wrong = "right" if trial.expected == "left" else "left"
    return any(choice == wrong for choice in choices.values())


def verdict(
    trials: Sequence[Trial], answers: Mapping[int, Mapping[str, str]], max_failed: int
) -> tuple[str, int, int]:
    """(passed, failed or empty; checks failed; checks met) of a session; empty where no check was met."""
    met = [i for i in answers if trials[i].kind != COMPARISON]
    count = sum(failed(trials[i], answers[i]) for i in met)
    return (EMPTY if not met else FAILED if count > max_failed else PASSED), count, len(met)
