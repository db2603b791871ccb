"""Which prompts a prior knows, if its folder declares it: `prompts.json` names a grammar of trace_bench.

The declaration belongs to the weights, not to the configuration: a folder without it, like every Stable
Diffusion, takes any text. Only the user's prompt is checked, not view phrases or negative prompts.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from trace_bench.runs.identity import RunSpec
from trace_bench.system.errors import TraceBenchError
from trace_bench.system.model_files import is_folder, resolve

DECLARATION = "prompts.json"  # {"grammar": "toyworld"}
GRAMMARS = ("toyworld",)


def check_prompt(run: RunSpec) -> None:
    """Refuse a prompt that the run's prior does not know.

    Raises:
        TraceBenchError: says what the prior knows.
    """
    repo = run.job.prior.get("repo")
    if run.job.distils and isinstance(repo, str) and is_folder(repo) and grammar_of(repo) == "toyworld":
        from trace_bench.toyworld.captions import parse  # imports torch

        try:
            parse(run.prompt.text)
        except TraceBenchError as error:
            name = run.job.choices["prior"]
            why = str(error).rstrip(".")
            raise TraceBenchError(f"prior={name}: {why}; for other prompts, use prior=sd21.") from error


@cache
def grammar_of(repo: str) -> str | None:
    """The grammar that a model folder declares; None if it takes any text."""
    path = Path(resolve(repo, None, [])) / DECLARATION
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        grammar = content["grammar"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TraceBenchError(
            f'{path} must be {{"grammar": NAME}} ({type(error).__name__}); remove or correct it.'
        ) from error
    if grammar not in GRAMMARS:
        raise TraceBenchError(
            f"{path} names the grammar {grammar!r}, but trace_bench knows only {', '.join(GRAMMARS)}."
        )
    return str(grammar)
