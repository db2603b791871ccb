"""Judging a tournament by scores or by a model, or only estimating the model's cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from evaluation.gpteval3d import report
from evaluation.gpteval3d.outcomes import Answered
from evaluation.gpteval3d.plan import Plan
from evaluation.gpteval3d.published import MADE_BY, Published
from evaluation.gpteval3d.questions import Question, make_questions
from evaluation.gpteval3d.score_judge import ScoreJudge
from evaluation.gpteval3d.server import journal
from evaluation.gpteval3d.server.asking import Session
from evaluation.gpteval3d.server.batch_client import BatchAsker
from evaluation.gpteval3d.server.batches import Ledger
from evaluation.gpteval3d.server.client import Asker
from evaluation.gpteval3d.server.cost import ANSWER_TOKENS, Budget, Price, counted, input_tokens
from evaluation.gpteval3d.server.keys import OPENAI, api_key, redactor
from evaluation.gpteval3d.server.store import AnswerStore, claimed, readings
from evaluation.gpteval3d.settings import JudgeSettings, folder_name, identity_hash
from evaluation.gpteval3d.tournament import VERBATIM, Tournament, instruction_texts, plan
from evaluation.gpteval3d.unusable import explain
from trace_bench.system.errors import TraceBenchError

FOLDER = "gpteval3d"
ANSWERS, BATCHES = "answers.jsonl", "batches.jsonl"


@dataclass(frozen=True)
class Judged:
    """The judge, its answers, and how the session ended."""

    folder: Path
    judge: Mapping[str, Any]
    answered: Sequence[Answered]
    plan: Plan
    session: Session = field(default_factory=Session)
    unusable: str | None = None  # if no answer is valid: one of them, and what helps
    how: str = ""  # of a judge by scores: how a comparison is won
    metric: str = ""  # of a judge by scores: whose numbers it compares


def judge_by_scores(
    config: Mapping[str, Any], tournament: Tournament, root: Path, judge: ScoreJudge
) -> Judged:
    """Judge all comparisons by numbers of a metric."""
    if tournament.mode == "new_method":
        raise TraceBenchError(
            f"judge={judge.kind} cannot extend scores by {MADE_BY}: use mode=tournament or another judge."
        )
    for ensemble in tournament.ensembles:
        judge.refuse(ensemble.criteria)
    judge.prepare(list(tournament.contestants.values()))
    folder = root / FOLDER / judge.folder
    made = plan(tournament, int(config["seed"]), folder / tournament.name)
    texts = dict.fromkeys(tournament.ensembles, judge.name)
    questions = _questions(tournament, made, texts, identity_hash(judge.identity), both=False)
    answered = [Answered(q, [("valid", judge.compare(*q.assets, q.ensemble.criteria))], 0) for q in questions]
    return Judged(
        folder, {"id": folder.name, **judge.describe()}, answered, made, how=judge.how, metric=judge.metric
    )


def judge_by_model(
    config: Mapping[str, Any], tournament: Tournament, root: Path, published: Published
) -> Judged | None:
    """Ask a vision-language model; with dry_run=true only estimate the cost."""
    settings = JudgeSettings.from_config(config["judge"])
    family, texts = instruction_texts(config, tournament, published)
    identity = settings.identity(family)
    folder = root / FOLDER / folder_name(settings.model, identity)
    price = Price.of(settings.model, config["judge"]["prices"], settings.batch)
    dry = bool(config["dry_run"])
    key = "" if dry else api_key(settings.api_key_env, settings.base_url)
    made = plan(tournament, int(config["seed"]), folder / tournament.name, write=not dry)
    both, verbatim = config["orders"] == "both", family == VERBATIM
    questions = _questions(tournament, made, texts, identity_hash(identity), both, verbatim)
    report.read(folder)  # a damaged file is said before anything is paid
    if dry:
        store = AnswerStore(folder / ANSWERS, returned=settings.returned)
        ledger = Ledger(folder / BATCHES)
        print(estimate(questions, store, ledger, settings, config["judge"]["prices"], made))
        return None
    with claimed(folder / ANSWERS):
        store = AnswerStore(folder / ANSWERS, redactor(key), settings.returned)
        _one_model(store, settings)
        if (folder / BATCHES).exists():
            journal.end_line(folder / BATCHES)
        ledger = Ledger(folder / BATCHES)
        ledger.hold(store)
        budget = Budget(_number(config["budget_usd"]), price, store.spent, settings.model)
        if settings.batch:
            session = BatchAsker(settings, key, store, budget, price, ledger).run(questions)
        else:
            session = Asker(settings, key, store, budget, price, ledger.keys).run(questions)
            session.in_batches = ledger.open_in_words()
    if len(store.models) > 1:  # the session stopped when another model answered
        store = AnswerStore(folder / ANSWERS, returned=store.models[0])
    answered = [_read(question, store, settings) for question in questions]
    tokens_in, tokens_out, _ = counted(store.usage, price)
    judge = {
        "id": folder.name,
        "kind": "openai",
        "name": (store.models or [settings.model])[0],
        "model": settings.model,
        "server": urlsplit(settings.base_url or OPENAI).hostname,
        **{key: value for key, value in identity.items() if key != "model"},
        "spent": {
            "input_tokens": tokens_in,
            "output_tokens": tokens_out,
            "usd": round(store.spent, 4) if price.known else None,
        },
    }
    asked = {question.key: len(question.ensemble.criteria) for question in questions}
    choices = [(c, n) for key, n in asked.items() for a in store.answers.get(key, []) for c in a["choices"]]
    return Judged(folder, judge, answered, made, session, explain(choices, settings))


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _one_model(store: AnswerStore, settings: JudgeSettings) -> None:
    """Raise if the stored answers come from two models."""
    if len(store.models) > 1:
        raise TraceBenchError(
            f"{store.path} holds answers by {', '.join(store.models)}, which are never mixed: choose whose "
            "answers count with judge.returned=..."
        )


def _questions(
    tournament: Tournament,
    made: Plan,
    texts: Mapping[Any, str],
    judge: str,
    both: bool,
    verbatim: bool = False,
) -> list[Question]:
    return make_questions(
        made.comparisons,
        tournament.contestants,
        tournament.field.prompts,
        tournament.ensembles,
        texts,
        judge,
        both,
        verbatim,
    )


def _read(question: Question, store: AnswerStore, settings: JudgeSettings) -> Answered:
    answers, criteria = store.answers.get(question.key, []), len(question.ensemble.criteria)
    found, missing = readings(answers, settings.choices, criteria, settings.max_output_tokens)
    return Answered(question, found, missing)


def estimate(
    questions: Sequence[Question],
    store: AnswerStore,
    ledger: Ledger,
    settings: JudgeSettings,
    prices: Mapping[str, Any],
    made: Plan,
) -> str:
    """Estimate requests, tokens and money without sending anything."""
    price = Price.of(settings.model, prices, settings.batch)
    busy = ledger.keys
    missing = [q for q in questions if _read(q, store, settings).missing]
    left = [q for q in missing if q.key not in busy]
    tokens_in = sum(input_tokens(q, settings.tile_px, settings.detail, price) for q in left)
    tokens_out = len(left) * settings.choices * ANSWER_TOKENS
    usd = f"about {price.usd(tokens_in, tokens_out):.2f} USD, at the prices of {prices['as_of']}"
    unknown = f"the price of {settings.model} is unknown; add it to judge.prices.models"
    done = len(questions) - len(missing)
    in_batches = f", {len(missing) - len(left)} in open batches" if len(missing) > len(left) else ""
    answered = f"{done} already answered{in_batches}"
    how = ", in batches" if settings.batch else ""
    lines = [
        f"Comparisons: {len(made.comparisons)}, in {len(questions)} questions, {answered}.",
        f"Requests: {len(left)} with {settings.choices} choices each, to {settings.model}{how}.",
        f"Server: {settings.base_url or OPENAI}.",
        f"Tokens: about {tokens_in:,} in and {tokens_out:,} out.",
        f"Cost: {usd if price.known else unknown}.",
        *(f"Note: {note}." for note in made.notes),
    ]
    return "\n".join(lines)
