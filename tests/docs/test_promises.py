"""docs/promises.md names tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/promises.md").read_text(encoding="utf-8")


def names_in(path):
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}


def test_every_promise_names_a_test_that_exists():
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| promise")]
    rows = [row for row in rows if not set(row) <= set("| -")]
    assert rows
    for row in rows:
        found = re.search(r"`(tests/[\w/]+\.py)::(test_\w+)` \|$", row)
        assert found, row
        assert found[2] in names_in(ROOT / found[1]), row
