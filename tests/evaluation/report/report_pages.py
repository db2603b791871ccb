"""The report's page in a browser, and the data that is in it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any


def open_page(context: Any, address: str, place: str = "") -> Any:
    """A new page at `#place`."""
    page = context.new_page()
    page.goto(f"{address}#{place}")
    return page


def run_ids(page: Any, method: str | None = None, prompt: str | None = None) -> list[str]:
    """The ids of the runs of a method and prompt."""
    found = page.evaluate("data.runs.map((r) => [r.id, columnOf(r).method, promptOf(r)])")
    return [i for i, m, p in found if method in (None, m) and prompt in (None, p)]


def content_of_page(folder: Path) -> dict[str, Any]:
    """The data in the page of a report's folder."""
    found = re.search(r'id="data">(.*?)</script>', (folder / "index.html").read_text())
    assert found is not None
    return dict(json.loads(found[1]))
