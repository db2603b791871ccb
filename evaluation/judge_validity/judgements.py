"""The stored verdicts of all judges on toy prompts: games of tournaments, and votes of user studies."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pandas as pd

from evaluation.gpteval3d.contestants import Contestant, JudgedAsset
from evaluation.gpteval3d.criteria import criterion_name
from evaluation.gpteval3d.report import ELO
from evaluation.gpteval3d.session import FOLDER
from evaluation.gpteval3d.truth_judge import TruthJudge
from evaluation.results.variants import add_variants
from evaluation.user_study.results import PREFERENCES
from evaluation.user_study.study import SCRAMBLED, STUDY, load_study
from evaluation.user_study.votes import VOTES, read_votes
from trace_bench.run_folder.manifest import RunIdentity
from trace_bench.run_folder.reading import Run, one_per_asset, read_json
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
    left_out: int  # verdicts about assets that are not there any more, or no longer the only ones
    sides: bool = True  # whether it matters to the judge which asset is on the left
    assets: str = ""  # which assets: prompt set, prior and seeds


class Truths:
    """The truth's verdicts on the contestants of a tournament or study."""

    def __init__(self, judge: TruthJudge, contestants: Sequence[Contestant]) -> None:
        self._judge = judge
        judge.prepare(contestants)
        self._by_name = {contestant.name: contestant for contestant in contestants}

    def judgement(self, criterion: str, left: str, right: str, prompt: str, result: int) -> Judgement | None:
        """None if an asset is not there."""
        try:
            assets = [self._by_name[name].assets[prompt] for name in (left, right)]
        except KeyError:
            return None
        (truth,) = self._judge.compare(assets[0], assets[1], [criterion])
        first, second = sorted((left, right))
        return Judgement(criterion, prompt, f"{prompt}\0{first}\0{second}", result, truth, left != first)


def find_judged(root: Path, runs: Sequence[Run], judge: TruthJudge) -> list[Judged]:
    """All judges with verdicts on toy prompts under `root`; the truth itself is left out.

    Raises: TraceBenchError if a file of verdicts cannot be read.
    """
    found: list[Judged] = []
    known = _known(root, runs, judge)
    for path in sorted((root / FOLDER).glob(f"*/{ELO}")):
        content = read_json(path)
        if content["judge"]["kind"] == judge.kind:
            continue
        for entry in content["tournaments"]:
            mine = _of_set(known, entry)
            if entry["mode"] != "tournament" or mine.empty:
                continue
            games = read_json(path.parent / entry["name"] / "comparisons.json")
            rows = [
                (criterion_name(key), g["m1"], g["m2"], str(g["prompt_id"]), int(g["result"]))
                for key, items in games.items()
                for g in items
            ]
            about = f"tournament {entry['name']}"
            players = _players(mine[mine["seed"] == entry["seed"]], entry["rows"])
            made = _judged(judge, str(content["judge"]["name"]), about, rows, players, entry)
            found.append(replace(made, sides=content["judge"]["instructions"] is not None))
    for path in sorted((root / "user_study").glob(f"*/{VOTES}")):
        study = read_json(path.with_name(PREFERENCES))
        mine = _of_set(known, study)
        if mine.empty:
            continue
        rows = _votes(path, {str(entry["rater"]) for entry in study["raters"]["dropped"]})
        shown = _shown(path.parent, mine, study, rows)
        raters = f"{study['raters']['used']} raters"
        found.append(_judged(judge, raters, f"study {path.parent.name}", rows, shown, study))
    return found


def _known(root: Path, runs: Sequence[Run], judge: TruthJudge) -> pd.DataFrame:
    """The runs of which the truth is known, one per asset."""
    done = [run for run in one_per_asset(runs) if judge.can_judge(run)]
    columns = [*(field.name for field in fields(RunIdentity)), "run", "folder", "fingerprint"]
    rows = [
        [*vars(run.identity).values(), run, run.folder.relative_to(root).as_posix(), run.manifest.fingerprint]
        for run in done
    ]
    return add_variants(pd.DataFrame(rows, columns=columns), root)


def _of_set(known: pd.DataFrame, stored: Mapping[str, Any]) -> pd.DataFrame:
    """The runs of the prompt set and prior; none for judgements that another tool collected without them."""
    return known[(known["prompt_set"] == stored["prompt_set"]) & (known["prior"] == stored["prior"])]


def _players(mine: pd.DataFrame, rows: Iterable[Mapping[str, Any]]) -> list[Contestant]:
    """Contestants as a tournament describes them: its later runs may have other names."""
    found = {}
    for row in rows:
        own = mine[mine["method"] == row["method"]]
        if row["representation"] is not None:
            own = own[own["representation"] == row["representation"]]
        for key, value in row["settings"].items():
            own = own[own[key].isna() if value is None else own[key].astype(str) == str(value)]
        name = str(row["contestant"])
        found[name] = Contestant(name, row["method"], row["representation"], row["settings"], _assets(own))
    return list(found.values())


def _shown(
    folder: Path, mine: pd.DataFrame, study: Mapping[str, Any], rows: Sequence[Row]
) -> list[Contestant]:
    """The methods of a study with the assets that its clips were made of."""
    if not (folder / STUDY).is_file():  # another tool showed them
        names = sorted({name for _, left, right, _, _ in rows for name in (left, right)})
        about: dict[str, Any] = {"representation": study.get("representation"), "settings": {}}
        return _players(mine, [{"contestant": name, "method": name} | about for name in names])
    made = load_study(folder)
    own: dict[str, list[str]] = {}
    for name, clip in made.clips.items():
        own.setdefault(name.partition("/")[2], []).append(clip.run)
    return [
        Contestant(name, name, made.representation, {}, _assets(mine[mine["folder"].isin(folders)]))
        for name, folders in own.items()
        if name != SCRAMBLED
    ]


def _assets(own: pd.DataFrame) -> dict[str, JudgedAsset]:
    """Assets by prompt; none where it is not clear which of several was judged."""
    once = own[~own["prompt_id"].duplicated(keep=False)]
    return {str(run.identity.prompt_id): JudgedAsset(run.folder / "renders", run) for run in once["run"]}


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


def _judged(
    judge: TruthJudge, name: str, about: str, rows: Sequence[Row], contestants: Sequence[Contestant],
    stored: Mapping[str, Any],
) -> Judged:  # fmt: skip
    truths = Truths(judge, contestants)
    made = [truths.judgement(*row) for row in rows]
    runs = [asset.run for one in contestants for asset in one.assets.values() if asset.run is not None]
    seeds = sorted({run.identity.seed for run in runs})
    which = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
    assets = f"prompt set {stored['prompt_set']}, prior {stored['prior']}" + (f", {which}" if seeds else "")
    return Judged(name, about, [item for item in made if item], made.count(None), assets=assets)


def nothing(root: Path) -> TraceBenchError:
    return TraceBenchError(
        f"No judge has compared toy assets under {root} yet: run "
        "`python -m evaluation.gpteval3d judge=clip`, another judge, or a user study first."
    )
