"""Writes the report's folder: index.html, libraries, and scripts with details of runs and long tables."""

from __future__ import annotations

import html
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

from evaluation.web import page as web
from evaluation.web.page import hashed, inline_json, policy
from trace_bench.system.files import write_atomic

ASSETS = Path(__file__).with_name("assets")
VENDOR = ASSETS / "vendor"
SCRIPTS = (
    "store.js", "media.js", "tables.js", "chart.js", "overview.js", "gallery.js", "view3d.js", "run.js",
    "compare.js", "main.js",
)  # fmt: skip
SHARED = ("dom.js", "player.js")
LIBRARIES = ("viewer.js", "uplot.js", "uplot.css", "LICENSES")


def write_page(data: Mapping[str, Any], folder: Path) -> Path:
    """Write index.html and the libraries; returns the page's path."""
    style = (ASSETS / "page.css").read_text(encoding="utf-8")
    parts = [(web.ASSETS / name).read_text(encoding="utf-8") for name in SHARED]
    parts += [(ASSETS / name).read_text(encoding="utf-8") for name in SCRIPTS]
    script = "\n".join(['"use strict";', *parts])
    template = Template((ASSETS / "page.html").read_text(encoding="utf-8"))
    text = template.substitute(
        title=html.escape(str(data["title"])),
        policy=html.escape(_policy(style, script)),
        style=style,
        script=script,
        data=inline_json(data),
    )
    folder.mkdir(parents=True, exist_ok=True)
    for name in LIBRARIES:
        target = folder / "library" / name
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(VENDOR / name, target)
    path = folder / "index.html"
    write_atomic(path, text)
    return path


def write_scripts(folder: Path, kind: str, contents: Mapping[str, Any]) -> None:
    """Write `<kind>/<name>.js`, which gives its content to the page's function `loaded`; remove others."""
    target = folder / kind
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for name, content in contents.items():
        text = f"loaded({inline_json(kind)},{inline_json(name)},{inline_json(content)});\n"
        (target / f"{name}.js").write_text(text, encoding="utf-8")


def _policy(style: str, script: str) -> str:
    """Load only from the page's folder, run only our scripts; a blob with WebAssembly decodes splats."""
    return policy(
        script_src=f"{hashed(script)} 'self' file: blob: 'wasm-unsafe-eval'",
        style_src=f"{hashed(style)} 'self' file:",
        img_src="'self' file: data: blob:",
        media_src="'self' file:",
        worker_src="blob: data:",
        connect_src="blob: data:",
    )


def file_names(names: Sequence[str]) -> dict[str, str]:
    """A file name for each table's name, which may hold anything a prompt set's name may."""
    return {name: f"table{i}" for i, name in enumerate(names)}
