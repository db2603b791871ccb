"""Make a study: choose prompts, assign comparisons, write the key and the page."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.user_study.answers import ANSWERS
from evaluation.user_study.assignment import plan
from evaluation.user_study.attention import screens
from evaluation.user_study.clips import add_scrambled, copy_clips, opaque, sha256
from evaluation.user_study.ordering import digest, shuffled
from evaluation.user_study.page import write_page
from evaluation.user_study.selection import COMMON, FILM, StudyPrompt, select
from evaluation.user_study.study import (
    ASSIGNMENT,
    PAGE,
    RATERS,
    SCHEMA_VERSION,
    STUDY,
    Clip,
    Study,
    assignment_csv,
    code_of,
    load_study,
    save_study,
)
from evaluation.user_study.tokens import new_token
from trace_bench import __version__
from trace_bench.run_folder.reading import Run
from trace_bench.system.errors import TraceBenchError

Say = Callable[[str], None]
#: Settings that determine what is shown to whom; the page's wording may still change later.
DECIDES = (
    "ours", "baselines", "prompts", "raters", "per_rater", "seed", "select", "select_of", "attention",
)  # fmt: skip


def make(runs: Sequence[Run], root: Path, folder: Path, config: Mapping[str, Any], say: Say) -> Study:
    """Make the study of `config`; if it exists already, only rewrite its page."""
    check(config)
    settings = {name: config[name] for name in DECIDES}
    methods = [config["ours"], *config["baselines"]]
    prompts, left_out = select(runs, methods, config["select"] or {}, config["select_of"] or {})
    if not prompts:
        raise TraceBenchError(
            f"No prompt has a {FILM} of every method ({', '.join(methods)}): create the missing runs with "
            "`python -m trace_bench -m method=... prompt_set=...`."
        )
    films = {(p.id, p.text, m): sha256(p.runs[m].folder / FILM) for p in prompts for m in methods}
    prompts = _draw(prompts, config["prompts"], f"prompts {config['seed']}")
    key = _key(settings, prompts, methods, films)
    study = _existing(folder, key, bool(config["force"]))
    if study is None:
        study = _new(settings, prompts, left_out, methods, films, key, root)
        _assign(study, add_scrambled(study, prompts, folder), _tokens(folder, key))
        save_study(study, folder)
    copy_clips(study, root, folder)
    write_page(study, folder / PAGE, config["page"])
    _tell(study, folder, config, say)
    return study


def check(config: Mapping[str, Any]) -> None:
    """Raise for invalid settings."""
    ours, others = config["ours"], config["baselines"]
    if not isinstance(others, list) or not others or len({ours, *others}) <= len(others):
        raise TraceBenchError(
            f"baselines must be a list of different methods without ours ({ours}), as in [sds,vsd], "
            f"but is {others!r}."
        )
    checks = {f"attention.{name}": value for name, value in config["attention"].items()}
    counts = {name: config[name] for name in ("prompts", "raters", "per_rater")}
    for name, value in (counts | checks).items():
        low, optional = (0 if name in checks else 1), name in {"prompts", "per_rater"}
        if value is None and optional:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < low:
            more = " or null" if optional else ""
            raise TraceBenchError(f"{name} must be an integer of at least {low}{more}, but is {value!r}.")


def _draw(prompts: list[StudyPrompt], count: int | None, key: str) -> list[StudyPrompt]:
    """Draw `count` prompts, keeping their order; all if there are fewer."""
    chosen = shuffled(range(len(prompts)), key)[:count]
    return [prompts[i] for i in sorted(chosen)]


def _key(
    settings: Mapping[str, Any],
    prompts: Sequence[StudyPrompt],
    methods: Sequence[str],
    films: Mapping[tuple[str, str, str], str],
) -> str:
    """Hash of everything that determines the study. Raters do not have the runs, so they cannot guess it."""
    shown = [
        [p.id, p.text, m, p.runs[m].manifest.fingerprint, films[p.id, p.text, m]]
        for p in prompts
        for m in methods
    ]
    content = {"schema": SCHEMA_VERSION, "settings": settings, "shown": shown}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _existing(folder: Path, key: str, force: bool) -> Study | None:
    """The existing study, if it matches the requested one."""
    if not (folder / STUDY).is_file():
        return None
    answered = any((folder / ANSWERS).glob("*.json"))
    if force and not answered:
        return None
    study = load_study(folder)
    if study.key == key:
        return study
    end = (
        "it has imported answers, so use another name with study=NAME."
        if answered
        else "use another name with study=NAME, or replace it with force=true."
    )
    raise TraceBenchError(f"The study in {folder} was made from other settings or runs: {end}")


def _new(
    settings: Mapping[str, Any],
    prompts: Sequence[StudyPrompt],
    left_out: list[str],
    methods: Sequence[str],
    films: Mapping[tuple[str, str, str], str],
    key: str,
    root: Path,
) -> Study:
    """A study without its raters, and so without an id."""
    first = prompts[0].runs[methods[0]].identity
    clips = {
        f"{i}/{method}": Clip(
            opaque(key, i, method),
            films[prompt.id, prompt.text, method],
            prompt.runs[method].folder.relative_to(root).as_posix(),
            prompt.runs[method].manifest.fingerprint,
        )
        for i, prompt in enumerate(prompts)
        for method in methods
    }
    return Study(
        study_id="",
        key=key,
        ours=methods[0],
        baselines=list(methods[1:]),
        **{name: getattr(first, name) for name in COMMON},
        settings=dict(settings),
        prompts=[{"id": prompt.id, "text": prompt.text} for prompt in prompts],
        left_out=left_out,
        clips=clips,
        max_failed_checks=settings["attention"]["max_failed"],
        trace_bench=__version__,
    )


def _tokens(folder: Path, key: str) -> dict[str, str]:
    """The tokens of the same study, if it is made once more: raters may have their links already."""
    try:
        study = load_study(folder)
    except TraceBenchError:  # there is none, or it is damaged
        return {}
    return study.tokens if study.key == key else {}


def _assign(study: Study, scrambled: Sequence[tuple[int, str]], tokens: Mapping[str, str]) -> None:
    """Give every rater a code, a token and a session, and the study its id.

    The id depends on the sessions: a later version of trace_bench may assign other ones under the same key,
    and no answer to a screen of the old page may count for the new.
    """
    settings, key = study.settings, study.key
    shape = len(study.prompts), len(study.baselines), settings["raters"], settings["per_rater"]
    for rater, comparisons in enumerate(plan(*shape, key)):
        trials = screens(comparisons, study.methods, scrambled, settings["attention"], key, rater)
        study.trials[code_of(key, rater)] = trials
    study.study_id = digest(key, "public", assignment_csv(study))[:12]
    study.raters = list(study.trials)
    study.tokens = {rater: tokens.get(rater) or new_token() for rater in study.raters}
    if len(study.raters) < settings["raters"]:
        raise TraceBenchError("Two raters would get the same code: use another seed.")


def _tell(study: Study, folder: Path, config: Mapping[str, Any], say: Say) -> None:
    if study.left_out:
        say(f"{len(study.left_out)} prompts were left out: some method has no turntable of them.")
    if config["prompts"] and len(study.prompts) < config["prompts"]:
        say(f"{len(study.prompts)} prompts, not {config['prompts']}: no more are available.")
    screens_each = len(study.trials[study.raters[0]])
    say(f"Study {study.study_id}: {study.ours} against {', '.join(study.baselines)}.")
    say(f"{len(study.prompts)} prompts, {len(study.raters)} raters, {screens_each} screens for each.")
    say(f"For the raters: {folder / PAGE} (the whole folder; open index.html, or put it on any web server)")
    say(f"Their links, one a rater; send each to its rater alone: {folder / RATERS}")
    say(
        f"Keep secret, they reveal methods and tokens: {folder / STUDY}, {folder / ASSIGNMENT}, "
        f"{folder / RATERS}"
    )
