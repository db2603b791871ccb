"""Writes the report's folder: index.html, libraries, and scripts with details of runs and long tables."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.web.page import inline_json, write_html

ASSETS = Path(__file__).with_name("assets")
VENDOR = ASSETS / "vendor"
SCRIPTS = (
    "store.js", "media.js", "tables.js", "chart.js", "overview.js", "gallery.js", "view3d.js", "run.js",
    "compare.js", "main.js",
)  # fmt: skip
LIBRARIES = ("viewer.js", "uplot.js", "uplot.css", "LICENSES")
#: Load only from the page's folder, run only our scripts; a blob with WebAssembly decodes splats.
_POLICY = {
    "script_src": "{script} 'self' file: blob: 'wasm-unsafe-eval'",
    "style_src": "{style} 'self' file:",
    "img_src": "'self' file: data: blob:",
    "media_src": "'self' file:",
    "worker_src": "blob: data:",
    "connect_src": "blob: data:",
}


def write_page(data: Mapping[str, Any], folder: Path) -> Path:
    """Write index.html and the libraries; returns the page's path."""
    for name in LIBRARIES:
        target = folder / "library" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(VENDOR / name, target)
    return write_html(folder, ASSETS, SCRIPTS, str(data["title"]), data, _POLICY)


def write_scripts(folder: Path, kind: str, contents: Mapping[str, Any]) -> None:
    """Write `<kind>/<name>.js`, which gives its content to the page's function `loaded`; remove others."""
    target = folder / kind
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for name, content in contents.items():
        text = f"loaded({inline_json(kind)},{inline_json(name)},{inline_json(content)});\n"
        (target / f"{name}.js").write_text(text, encoding="utf-8")


def file_names(names: Sequence[str]) -> dict[str, str]:
    """A file name for each table's name, which may hold anything a prompt set's name may."""
    return {name: f"table{i}" for i, name in enumerate(names)}
