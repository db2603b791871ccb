"""A page that opens from disk: one HTML file with its data, and a policy against everything else."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

from trace_bench.system.files import write_atomic

ASSETS = Path(__file__).with_name("assets")
SHARED = ("dom.js", "player.js")


def write_html(
    folder: Path, assets: Path, scripts: Sequence[str], title: str, data: Any, sources: Mapping[str, str]
) -> Path:
    """Write `folder`/index.html from page.html, page.css and scripts; returns its path.

    Args:
        assets: the folder of these files.
        scripts: their names, in order, after the shared ones.
        data: content of the page, as JSON.
        sources: of the content security policy. {script} and {style} stand for the page's own.
    """
    style = (assets / "page.css").read_text(encoding="utf-8")
    parts = [(ASSETS / name).read_text(encoding="utf-8") for name in SHARED]
    parts += [(assets / name).read_text(encoding="utf-8") for name in scripts]
    script = "\n".join(['"use strict";', *parts])
    own = {"script": hashed(script), "style": hashed(style)}
    text = Template((assets / "page.html").read_text(encoding="utf-8")).substitute(
        title=html.escape(title),
        policy=html.escape(policy(**{name: value.format(**own) for name, value in sources.items()})),
        style=style,
        script=script,
        data=inline_json(data),
    )
    path = folder / "index.html"
    write_atomic(path, text)
    return path


def inline_json(data: Any) -> str:
    """JSON for a script element or file: no text in it can close the element, whatever it contains."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def hashed(text: str) -> str:
    """The source expression of an inline script or style for a content security policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def policy(**sources: str) -> str:
    """A content security policy: nothing but these sources, such as `img_src="data:"`."""
    allowed = {"default_src": "'none'"} | sources | {"form_action": "'none'", "base_uri": "'none'"}
    return "; ".join(f"{name.replace('_', '-')} {value}" for name, value in allowed.items())
