"""Results of a judged tournament: ratings, comparisons.json, elo.json, caption and notes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.gpteval3d import outcomes, report
from evaluation.gpteval3d.published import MADE_BY
from evaluation.gpteval3d.rating import Rules, rate
from evaluation.gpteval3d.session import Judged
from evaluation.gpteval3d.tournament import Tournament
from trace_bench.system.files import write_json
from trace_bench.system.text import printable


def finish(config: Mapping[str, Any], tournament: Tournament, judged: Judged) -> int:
    """Rate, write and print; the exit code says whether all questions are answered."""
    found = outcomes.verdicts(judged.answered, str(config["aggregate"]))
    entry = _entry(config, tournament, judged, found)
    records = outcomes.records(found, str(judged.judge["id"]))
    write_json(judged.folder / tournament.name / "comparisons.json", records)
    path = report.save(judged.folder, judged.judge, entry)
    print(report.markdown(entry) if entry["rows"] else "There are no valid answers yet.")
    print(f"\n{report.of_answers(entry['statistics'])}.\n\nWritten: {path}")
    session = judged.session
    if session.failures:
        failed = ", ".join(f"{why} ({n})" for why, n in session.failures.most_common())
        print(f"Retried requests: {printable(failed)}.")
    if session.why_stopped:
        print(f"Stopped: {printable(session.why_stopped)}.")
    if session.in_batches:
        print(f"Open: {session.in_batches}.")
    if judged.unusable:
        print(judged.unusable)
    if session.signal is not None:
        return 128 + session.signal
    if judged.unusable:
        return 1
    return 0 if entry["complete"] else 1


def _entry(
    config: Mapping[str, Any], tournament: Tournament, judged: Judged, found: Sequence[outcomes.Verdict]
) -> dict[str, Any]:
    """The tournament's entry in elo.json."""
    counts = outcomes.statistics(judged.answered)
    if judged.how:  # a judge without sides has no position bias
        counts |= {"left_share": None, "left_share_ci": None}
    complete = not any(item.missing for item in judged.answered)
    rows = _rows(config, tournament, judged, found)
    own = ", ".join(dict.fromkeys(row["contestant"] for row in rows if row["optimised"]))
    notes = [report.OPTIMISED.format(own)] if own else []
    anchor = {"contestant": tournament.anchor, "elo": float(config["anchor_elo"])}
    return {
        "name": tournament.name,
        "mode": tournament.mode,
        "prompt_set": tournament.field.prompt_set,
        "prior": tournament.field.prior,
        "seed": config["runs"]["seed"],
        "prompts": len({c.prompt_id for c in judged.plan.comparisons}),
        "anchor": None if tournament.new else anchor,
        "complete": complete,
        "caption": _caption(config, tournament, judged),
        "notes": [*judged.plan.notes, *outcomes.notes(counts, complete), *_mixed(tournament, judged), *notes],
        "statistics": counts,
        "rows": rows,
    }


def _rows(
    config: Mapping[str, Any], tournament: Tournament, judged: Judged, found: Sequence[outcomes.Verdict]
) -> list[dict[str, Any]]:
    """Ratings of all contestants on all judged criteria."""
    rules = Rules(float(config["draw"]))
    ratings = []
    for criterion, games in outcomes.games(found).items():
        if tournament.new:
            frozen = tournament.published[criterion]
            ratings += rate([], frozen, criterion, [], rules)
            for name in tournament.new:  # separately, so that new methods do not affect each other
                own = [game for game in games if name in (game.left, game.right)]
                ratings += [r for r in rate(own, frozen, criterion, [name], rules) if r.contestant == name]
        else:
            held = {str(tournament.anchor): float(config["anchor_elo"])}
            ratings += rate(games, held, criterion, list(tournament.contestants), rules)
    rows = []
    for rating in ratings:
        who = tournament.contestants.get(rating.contestant)
        absent: dict[str, Any] = {"method": rating.contestant, "representation": None, "settings": {}}
        row = {"contestant": rating.contestant} | (who.describe() if who else absent) | rating.row()
        rows.append(row | {"optimised": who is not None and who.maximises(judged.metric)})
    return rows


def _caption(config: Mapping[str, Any], tournament: Tournament, judged: Judged) -> str:
    """Describes judge, questions, aggregation and intervals."""
    judge = judged.judge
    who = f"{judge['name']}, instructions {judge['instructions']}"
    how = "each in both orders" if config["orders"] == "both" else "each in one order, sides balanced"
    if judged.how:
        who, how = str(judge["name"]), judged.how
    fixed = f"{tournament.anchor} = {float(config['anchor_elo']):g}"
    if tournament.new:
        fixed = "published scores fixed"
    asked = f"{len(judged.plan.comparisons)} comparisons, {how}"
    where = f"prompt set {tournament.field.prompt_set}, prior {tournament.field.prior}"
    draw = f"a draw counts as {float(config['draw']):g} wins for both sides"
    return (
        f"Elo (Bradley-Terry, {fixed}) by {who}: {asked}; {where}; {draw}; aggregation "
        f"{config['aggregate']}; 95 % intervals by profile likelihood, corrected for prompts."
    )


def _mixed(tournament: Tournament, judged: Judged) -> list[str]:
    """Notes about two judges on one scale."""
    if not tournament.new:
        return []
    name = judged.judge["name"]
    return [
        f"the published scores are by {MADE_BY}, the new ones by {name}: two judges on one scale",
        "the intervals treat the published scores as exact, which they are not",
    ]
