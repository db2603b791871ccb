"""The stored verdicts of all judges on toy prompts: games of tournaments, and votes of user studies."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evaluation.gpteval3d.contestants import Contestant, find_field
from evaluation.gpteval3d.criteria import criterion_name
from evaluation.gpteval3d.report import ELO
from evaluation.gpteval3d.session import FOLDER
from evaluation.gpteval3d.truth_judge import TruthJudge
from evaluation.user_study.results import PREFERENCES
from evaluation.user_study.votes import VOTES, read_votes
from trace_bench.run_folder.reading import Run, read_json
from trace_bench.system.errors import TraceBenchError

#: The criterion of the truth that answers the question of a user study.
ASPECTS: Mapping[str, str] = {
    "consistency": "plausibility",
    "fidelity": "text_asset_alignment",
    "photorealism": "texture_details",
}

Row = tuple[str, str, str, str, int]  # criterion, left, right, prompt id, result


@dataclass(frozen=True)
class Judgement:
    """One verdict on one criterion, and what the truth says of the same two assets."""

    criterion: str
    prompt: str
    pair: str  # the two assets, in a fixed order, so that equal pairs are found
    result: int  # -1 left, 1 right, 0 draw
    truth: int  # the same
    turned: bool  # whether the left asset is the second of `pair`

    @property
    def winner(self) -> int:
        """-1 if the first of `pair` won, 1 if the second did, 0 for a draw."""
        return -self.result if self.turned else self.result


@dataclass(frozen=True)
class Judged:
    """The verdicts of one judge on one set of prompts."""

    judge: str  # for readers
    about: str  # which tournament or study
    judgements: Sequence[Judgement]
    left_out: int  # verdicts about assets that are not there any more
    sides: bool = True  # whether it matters to the judge which asset is on the left
    assets: str = ""  # whose assets: prompt set, prior and seed


class Truths:
    """The truth's verdicts on the contestants of a prompt set and prior."""

    def __init__(self, judge: TruthJudge, contestants: Sequence[Contestant]) -> None:
        self._judge = judge
        judge.prepare(contestants)
        self._by_name = {contestant.name: contestant for contestant in contestants}

    def known(self, names: Iterable[str]) -> int:
        """How many of these are contestants."""
        return sum(name in self._by_name for name in names)

    def judgement(self, criterion: str, left: str, right: str, prompt: str, result: int) -> Judgement | None:
        """None if an asset is not there."""
        try:
            assets = [self._by_name[name].assets[prompt] for name in (left, right)]
        except KeyError:
            return None
        (truth,) = self._judge.compare(assets[0], assets[1], [criterion])
        first, second = sorted((left, right))
        return Judgement(criterion, prompt, f"{prompt}\0{first}\0{second}", result, truth, left != first)


def find_judged(root: Path, runs: Sequence[Run], judge: TruthJudge, seed: int = 0) -> list[Judged]:
    """All judges with verdicts on toy prompts under `root`; the truth itself is left out.

    Raises: TraceBenchError if a file of verdicts cannot be read.
    """
    found: list[Judged] = []
    truths = _Cache(root, runs, judge, seed)
    for path in sorted((root / FOLDER).glob(f"*/{ELO}")):
        content = read_json(path)
        if content["judge"]["kind"] == judge.kind:
            continue
        for entry in content["tournaments"]:
            if entry["mode"] != "tournament":
                continue
            games = read_json(path.parent / entry["name"] / "comparisons.json")
            rows = [
                (criterion_name(key), g["m1"], g["m2"], str(g["prompt_id"]), int(g["result"]))
                for key, items in games.items()
                for g in items
            ]
            known = truths(entry["prompt_set"], entry["prior"], rows)
            if known is not None:
                about = f"tournament {entry['name']}"
                made = _judged(str(content["judge"]["name"]), about, rows, known, _assets(entry, seed))
                found.append(replace(made, sides=content["judge"]["instructions"] is not None))
    for path in sorted((root / "user_study").glob(f"*/{VOTES}")):
        study = read_json(path.with_name(PREFERENCES))
        rows = _votes(path, {str(entry["rater"]) for entry in study["raters"]["dropped"]})
        known = truths(study["prompt_set"], study["prior"], rows)
        if known is not None:
            about = f"study {path.parent.name}"
            raters = f"{study['raters']['used']} raters"
            found.append(_judged(raters, about, rows, known, _assets(study, seed)))
    return found


class _Cache:
    """The truths of each prompt set and prior; None where no true object is known.

    A contestant's name says how its runs differ from the others', and a judge may have seen the runs of one
    representation only. So the runs of each representation are tried as well as all.
    """

    def __init__(self, root: Path, runs: Sequence[Run], judge: TruthJudge, seed: int) -> None:
        self._root, self._runs, self._judge, self._seed = root, runs, judge, seed
        self._made: dict[tuple[str, str], list[Truths]] = {}

    def __call__(self, prompt_set: str | None, prior: str | None, rows: Sequence[Row]) -> Truths | None:
        """The truths that know the most of the contestants in `rows`."""
        if prompt_set is None or prior is None:  # judgements collected by another tool
            return None
        key = prompt_set, prior
        if key not in self._made:
            mine = [r for r in self._runs if (r.identity.prompt_set, r.identity.prior) == key]
            self._made[key] = self._truths(mine)
        names = {name for _, left, right, _, _ in rows for name in (left, right)}
        return max(self._made[key], key=lambda truths: truths.known(names), default=None)

    def _truths(self, runs: Sequence[Run]) -> list[Truths]:
        known = [run for run in runs if not run.identity.is_control and self._judge.can_judge(run)]
        kinds = sorted({run.identity.representation for run in known})
        parts = [[run for run in known if run.identity.representation == kind] for kind in kinds]
        return [
            Truths(self._judge, find_field(part, self._root, {"seed": self._seed}).contestants)
            for part in ([known, *parts] if len(parts) > 1 else parts)
        ]


def _votes(path: Path, dropped: Collection[str]) -> list[Row]:
    """The votes of the raters who were not dropped; "can't tell" is no vote."""
    votes = read_votes(path)
    votes = votes[~votes["rater_id"].astype(str).isin(dropped) & (votes["choice"] != "unknown")]
    sides = {"left": -1, "tie": 0, "right": 1}
    return [
        (
            ASPECTS[row.aspect], row.left_method,
            row.baseline if row.left_method == row.ours else row.ours, str(row.prompt_id), sides[row.choice],
        )
        for row in votes.itertuples()
    ]  # fmt: skip


def _assets(stored: Mapping[str, Any], seed: int) -> str:
    return f"prompt set {stored['prompt_set']}, prior {stored['prior']}, seed {seed}"


def _judged(judge: str, about: str, rows: Sequence[Row], truths: Truths, assets: str) -> Judged:
    made = [truths.judgement(*row) for row in rows]
    return Judged(judge, about, [item for item in made if item], made.count(None), assets=assets)


def nothing(root: Path) -> TraceBenchError:
    return TraceBenchError(
        f"No judge has compared toy assets under {root} yet: run "
        "`python -m evaluation.gpteval3d judge=clip`, another judge, or a user study first."
    )
