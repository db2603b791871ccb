"""Plans the comparisons of a tournament: ensembles of questions, spread evenly over pairs and prompts.

Pairs come from a shuffled deck that is redealt when empty, as published. A comparison gets the least used
prompt that the pair has not yet had in the same kind of question. (The published program takes a random
prompt, gives no pair a prompt twice, and drops what does not fit.)
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

from evaluation.gpteval3d.criteria import CRITERIA
from trace_bench.system.errors import TraceBenchError

Pair = tuple[str, str]
Kind = tuple[Any, ...]


@dataclass(frozen=True)
class Ensemble:
    """One kind of question, and its number of comparisons."""

    instruction: str | None  # name of a published text
    views: int
    rgb: bool
    normal: bool
    criteria: tuple[str, ...]  # in the order of the answer
    comparisons: int | None  # None: every pair on every prompt

    @property
    def kind(self) -> Kind:
        """Ensembles of one kind ask the same question; a pair is asked once per prompt and kind."""
        return self.instruction, self.views, self.rgb, self.normal, self.criteria


@dataclass(frozen=True)
class Comparison:
    """Two contestants on one prompt; `left` is on the left in the first order."""

    ensemble: int
    left: str
    right: str
    prompt_id: str

    def seen(self, ensembles: Sequence[Ensemble]) -> tuple[Kind, frozenset[str], str]:
        """The key that must not repeat."""
        return ensembles[self.ensemble].kind, frozenset((self.left, self.right)), self.prompt_id


@dataclass(frozen=True)
class Plan:
    comparisons: list[Comparison]
    notes: list[str] = field(default_factory=list)


def read_ensembles(entries: Sequence[Mapping[str, Any]]) -> list[Ensemble]:
    """Read and check the ensembles of the config."""
    ensembles = []
    for i, entry in enumerate(entries):
        where = f"ensembles[{i}]"
        try:
            ensemble = Ensemble(
                entry.get("instruction"), int(entry["views"]), bool(entry["rgb"]), bool(entry["normal"]),
                tuple(CRITERIA[index] for index in entry["criteria"]),
                None if entry["comparisons"] == "all" else int(entry["comparisons"]),
            )  # fmt: skip
        except (KeyError, ValueError, TypeError, IndexError) as error:
            raise TraceBenchError(
                f"{where} needs views, rgb, normal, criteria (indices 0 to 5) and comparisons (a number or "
                f"'all'): {type(error).__name__} {error}."
            ) from error
        if ensemble.views < 1 or int(ensemble.views**0.5) ** 2 != ensemble.views:
            raise TraceBenchError(f"{where}.views={ensemble.views} must be a square number.")
        if not (ensemble.rgb or ensemble.normal) or not ensemble.criteria:
            raise TraceBenchError(f"{where} shows or asks nothing: set rgb or normal, and criteria.")
        ensembles.append(ensemble)
    if not ensembles:
        raise TraceBenchError("ensembles is empty: add at least one.")
    return ensembles


def make_plan(
    ensembles: Sequence[Ensemble],
    prompts: Mapping[Pair, Sequence[str]],
    seed: int,
    prefer: AbstractSet[tuple[Kind, frozenset[str], str]] = frozenset(),
) -> Plan:
    """Plan comparisons from the prompts that each pair shares; `prefer` breaks ties.

    If the ensembles ask for more comparisons than possible, all shrink by one factor, and a note says so.
    """
    rng = random.Random(seed)
    capacity = sum(len(ids) for ids in prompts.values())
    numbers, notes = _fit(ensembles, capacity)
    deck: list[Pair] = []
    used: dict[Kind, dict[Pair, set[str]]] = {}
    over_all: Counter[str] = Counter()
    turns: Counter[Pair] = Counter({pair: rng.randrange(2) for pair in prompts})
    comparisons = []
    for e, (ensemble, number) in enumerate(zip(ensembles, numbers, strict=True)):
        met = used.setdefault(ensemble.kind, {pair: set() for pair in prompts})
        in_ensemble: Counter[str] = Counter()
        for _ in range(number):
            pair = _deal(deck, prompts, met, rng)
            known = {id_ for id_ in prompts[pair] if (ensemble.kind, frozenset(pair), id_) in prefer}
            ranks = {
                id_: (in_ensemble[id_], over_all[id_], id_ not in known, rng.random())
                for id_ in prompts[pair]
                if id_ not in met[pair]
            }
            chosen = min(ranks, key=ranks.__getitem__)
            met[pair].add(chosen)
            in_ensemble[chosen] += 1
            over_all[chosen] += 1
            sides = pair if turns[pair] % 2 else pair[::-1]
            turns[pair] += 1
            comparisons.append(Comparison(e, *sides, chosen))
    return Plan(comparisons, notes)


def _deal(
    deck: list[Pair], prompts: Mapping[Pair, Sequence[str]], met: Mapping[Pair, set[str]], rng: random.Random
) -> Pair:
    """Deal the next pair that has a prompt left; skipped pairs stay in the deck."""
    for _ in range(2):
        for i in reversed(range(len(deck))):
            if len(met[deck[i]]) < len(prompts[deck[i]]):
                return deck.pop(i)
        fresh = list(prompts)
        rng.shuffle(fresh)
        deck[:] = fresh + [pair for pair in deck if len(met[pair]) < len(prompts[pair])]
    raise AssertionError("more comparisons than pairs have prompts")


def _fit(ensembles: Sequence[Ensemble], capacity: int) -> tuple[list[int], list[str]]:
    """Number of comparisons per ensemble, and notes about reductions."""
    wanted = [capacity if e.comparisons is None else e.comparisons for e in ensembles]
    by_kind: Counter[Kind] = Counter()
    for ensemble, number in zip(ensembles, wanted, strict=True):
        by_kind[ensemble.kind] += number
    most = max(by_kind.values(), default=0)
    if most <= capacity:
        return wanted, []
    numbers = [number * capacity // most for number in wanted]
    note = (
        f"{sum(numbers)} comparisons instead of the {sum(wanted)} requested by the ensembles: pairs and "
        f"prompts allow {capacity} of one kind, and no question is asked twice"
    )
    return numbers, [note]
