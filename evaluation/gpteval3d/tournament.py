"""Assembles a tournament from the config and the run folders."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from evaluation.gpteval3d.comparisons import Scores
from evaluation.gpteval3d.contestants import Contestant, Field, find_field, published_contestant
from evaluation.gpteval3d.instructions import VERSION, own_instruction
from evaluation.gpteval3d.plan import Comparison, Ensemble, Pair, Plan, make_plan, read_ensembles
from evaluation.gpteval3d.published import Published
from evaluation.gpteval3d.rating import pick_anchor
from trace_bench.run_folder.reading import Run, read_json
from trace_bench.system.errors import TraceBenchError
from trace_bench.system.files import write_json

PUBLISHED = "tournament-v0"  # also the name of its instructions in our request, the text prompt as data
VERBATIM = "tournament-v0 verbatim"  # its instructions in its own request
_PLAN_VERSION = 1


@dataclass(frozen=True)
class Tournament:
    """A tournament without its judge."""

    name: str  # its folder in the judge's folder
    mode: str
    field: Field
    contestants: dict[str, Contestant]  # all with assets
    new: list[str]  # rated against frozen scores; empty in mode=tournament
    prompts: dict[Pair, list[str]]  # the prompts that each pair shares
    ensembles: list[Ensemble]
    published: Scores  # frozen scores; empty in mode=tournament
    anchor: str | None


def assemble(config: Mapping[str, Any], runs: Sequence[Run], root: Path, published: Published) -> Tournament:
    """Find the contestants; raises TraceBenchError for mistakes in the config."""
    field = find_field(runs, root, config["runs"])
    ours = {contestant.name: contestant for contestant in field.contestants}
    ensembles = read_ensembles(config["ensembles"])
    name = str(config.get("name") or field.name)
    if config["mode"] == "new_method":
        return _against_published(config, field, ours, ensembles, published, name)
    if len(ours) < 2:
        raise TraceBenchError(
            f"A tournament needs two contestants, but there is only {', '.join(ours)} with prompt set "
            f"{field.prompt_set}: run another method, or use mode=new_method."
        )
    pairs = {(a, b): _common(ours[a], ours[b], field.prompts) for a, b in itertools.combinations(ours, 2)}
    anchor = pick_anchor(list(ours), config.get("anchor"))
    return Tournament(name, "tournament", field, ours, [], _nonempty(pairs), ensembles, {}, anchor)


def _against_published(
    config: Mapping[str, Any], field: Field, ours: dict[str, Contestant], ensembles: list[Ensemble],
    published: Published, name: str,
) -> Tournament:  # fmt: skip
    """Each of our contestants against the published methods."""
    texts = published.prompts()
    wrong = [id_ for id_, text in field.prompts.items() if int(id_) >= len(texts) or texts[int(id_)] != text]
    if wrong:
        raise TraceBenchError(
            "mode=new_method needs runs of the published prompts (runs.prompt_set=gpteval3d), but prompt "
            f"{wrong[0]} of {field.prompt_set} has a different text."
        )
    scores = published.scores()
    known = list(next(iter(scores.values())))
    taken = [contestant for contestant in ours if contestant in known]
    if taken:
        raise TraceBenchError(
            f"{', '.join(taken)} is also the name of a published method: rename your method's config."
        )
    opponents = list(config.get("opponents") or known)
    unknown = [opponent for opponent in opponents if opponent not in known]
    if unknown:
        raise TraceBenchError(f"opponents={unknown[0]} has no published score; there are {', '.join(known)}.")
    folders = published.method_folders(opponents)
    theirs = {n: published_contestant(n, folder, field.prompts) for n, folder in folders.items()}
    pairs = {(a, b): _common(ours[a], theirs[b], field.prompts) for a in ours for b in theirs}
    return Tournament(
        f"{name}-vs-{PUBLISHED}", "new_method", field, ours | theirs, list(ours), _nonempty(pairs),
        ensembles, scores, None,
    )  # fmt: skip


def _common(one: Contestant, other: Contestant, prompts: Mapping[str, str]) -> list[str]:
    return [id_ for id_ in prompts if id_ in one.assets and id_ in other.assets]


def _nonempty(pairs: dict[Pair, list[str]]) -> dict[Pair, list[str]]:
    found = {pair: ids for pair, ids in pairs.items() if ids}
    if not found:
        raise TraceBenchError("No two contestants share a prompt, so there is nothing to compare.")
    return found


def instruction_texts(
    config: Mapping[str, Any], tournament: Tournament, published: Published
) -> tuple[str, dict[Ensemble, str]]:
    """(name of the instruction set, text of each kind of question), published or our own.

    `published` sends the published request to the letter: the text prompt is part of the instruction.
    `published_safe` sends the published texts with the text prompt marked as data.
    """
    choice = config["instructions"]
    if choice == "auto":
        there = published.folder is not None and (published.folder / "gpt_prompts").is_dir()
        choice = "published_safe" if there or tournament.mode == "new_method" else "own"
    if choice == "own":
        return VERSION, {
            e: own_instruction(e.criteria, e.views, e.rgb, e.normal) for e in tournament.ensembles
        }
    if choice not in ("published", "published_safe"):
        raise TraceBenchError(
            f"instructions={choice} is unknown: use auto, own, published or published_safe."
        )
    nameless = [i for i, e in enumerate(tournament.ensembles) if not e.instruction]
    if nameless:
        raise TraceBenchError(
            f"ensembles[{nameless[0]}] has no published instruction text; use instructions=own."
        )
    name = VERBATIM if choice == "published" else PUBLISHED
    return name, {e: published.instruction(str(e.instruction)) for e in tournament.ensembles}


def plan(tournament: Tournament, seed: int, folder: Path, write: bool = True) -> Plan:
    """The plan in `folder`; a new one if there is none for these contestants and prompts.

    A new plan keeps as much as possible of an old one, whose answers are already paid for.
    """
    path = folder / "plan.json"
    asked = _inputs(tournament, seed)
    inputs, comparisons, notes = _stored_plan(path)
    if inputs == asked and all(_is_known(comparison, tournament) for comparison in comparisons):
        return Plan(comparisons, notes)
    known = {c.seen(tournament.ensembles) for c in comparisons if c.ensemble < len(tournament.ensembles)}
    parts = [tournament.prompts]
    if tournament.new:  # the published counts are per new method
        parts = [{p: ids for p, ids in tournament.prompts.items() if p[0] == name} for name in tournament.new]
    plans = [make_plan(tournament.ensembles, part, seed, known) for part in parts if part]
    notes = list(dict.fromkeys(note for made in plans for note in made.notes))
    made = Plan([comparison for part in plans for comparison in part.comparisons], notes)
    if write:
        folder.mkdir(parents=True, exist_ok=True)
        content = {"comparisons": [asdict(c) for c in made.comparisons], "notes": notes}
        write_json(path, {"schema_version": _PLAN_VERSION, "inputs": asked} | content)
    return made


def _stored_plan(path: Path) -> tuple[str | None, list[Comparison], list[str]]:
    """The inputs, comparisons and notes of plan.json; nothing if it is not there.

    Raises:
        TraceBenchError: it is damaged.
    """
    if not path.exists():
        return None, [], []
    advice = (
        "restore it, or remove it and run the command again; that makes a new plan, in which paid answers "
        "count "
        "where it asks the same"
    )
    old = read_json(path, advice)
    try:
        comparisons = [Comparison(**entry) for entry in old["comparisons"]]
        texts = [text for c in comparisons for text in (c.left, c.right, c.prompt_id)] + list(old["notes"])
        numbers = [c.ensemble for c in comparisons]
        if not all(isinstance(text, str) for text in texts) or not all(
            type(n) is int and n >= 0 for n in numbers
        ):
            raise TypeError("a field of the wrong type")
        inputs = old["inputs"] if old["schema_version"] == _PLAN_VERSION else None
        return inputs, comparisons, list(old["notes"])
    except (KeyError, TypeError, AttributeError) as error:
        raise TraceBenchError(f"{path} is damaged ({type(error).__name__}: {error}): {advice}.") from error


def _is_known(comparison: Comparison, tournament: Tournament) -> bool:
    sides = [tournament.contestants.get(name) for name in (comparison.left, comparison.right)]
    known = all(side is not None and comparison.prompt_id in side.assets for side in sides)
    return known and comparison.ensemble < len(tournament.ensembles)


def _inputs(tournament: Tournament, seed: int) -> str:
    """Hash of everything a plan depends on."""
    pairs = sorted([*pair, *ids] for pair, ids in tournament.prompts.items())
    content = [seed, pairs, [asdict(ensemble) for ensemble in tournament.ensembles]]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
