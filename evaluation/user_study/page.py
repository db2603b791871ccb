"""The raters' page: a self-contained index.html; only the clips are separate files.

It holds prompts, opaque clip names and the raters' sealed sessions, but nothing that reveals a method, a
rater's code or, without the rater's token, a screen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from evaluation.user_study.aspects import ASPECTS, CHOICES
from evaluation.user_study.study import INSTRUCTED, Study
from evaluation.user_study.tokens import name_of, seal
from evaluation.web.page import write_html

ASSETS = Path(__file__).with_name("assets")
SCRIPTS = ("sha256.js", "session.js", "page.js")
FORMAT = "trace_bench user study answers"
#: Load only from the page's folder, run only our script.
_POLICY = {"script_src": "{script}", "style_src": "{style}", "media_src": "'self' file:", "img_src": "data:"}


def page_data(study: Study, return_to: str | None) -> dict[str, Any]:
    """The data for the page's script.

    A session holds the rater's code and screens. A screen is [prompt, left, right] as list indices; an
    instructed check adds the side.
    """
    clips = sorted(clip.file for clip in study.clips.values())
    place = {name: i for i, name in enumerate(clips)}
    sessions = {}
    for rater, trials in study.trials.items():
        screens = [
            [t.prompt, place[study.clip(t.prompt, t.left)], place[study.clip(t.prompt, t.right)]]
            + ([t.expected] if t.kind == INSTRUCTED else [])
            for t in trials
        ]
        token = study.tokens[rater]
        name = name_of(study.study_id, token)
        sessions[name] = seal(study.study_id, token, {"rater": rater, "screens": screens})
    return {
        "format": FORMAT,
        "study": study.study_id,
        "return_to": return_to,
        "aspects": [{k: asdict(aspect)[k] for k in ("id", "question", "hint")} for aspect in ASPECTS],
        "choices": CHOICES,
        "prompts": [prompt["text"] for prompt in study.prompts],
        "clips": clips,
        "sessions": dict(sorted(sessions.items())),  # in an order that says nothing
    }


def write_page(study: Study, folder: Path, wording: Mapping[str, Any]) -> Path:
    """Write index.html into the folder that holds clips/."""
    data = page_data(study, wording["return_to"])
    return write_html(folder, ASSETS, SCRIPTS, str(wording["title"]), data, _POLICY)
