"""docs/released_settings.md: our column is what its commands compose to; differences have a reason."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
import yaml
from composed import job

from trace_bench.settings.fractions import with_numbers

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "released_settings.md").read_text(encoding="utf-8")
COMMAND = re.compile(r"^    python -m trace_bench (.+)$", re.MULTILINE)
PARTS = [part.split("\n", 1) for part in PAGE.split("\n## ")[1:]]
SECTIONS = {title: (found[1], text) for title, text in PARTS if (found := COMMAND.search(text))}
HEADER = ["released", "value", "our setting", "ours", "why they differ"]


def rows(text):
    table = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    assert cells[0] == HEADER
    return cells[2:]


def value(cell, shares):
    """What a cell says; `a/b` is the share of the run, or without `shares` the step a."""
    text = re.sub(r"(\d+)/(\d+)", lambda m: str(int(m[1]) / int(m[2])) if shares else m[1], cell.strip("`"))
    return yaml.safe_load(text)


def same(found, wanted):
    if isinstance(wanted, str) and wanted.endswith("..."):
        return isinstance(found, str) and found.startswith(wanted.removesuffix("..."))
    if isinstance(wanted, list):
        return isinstance(found, list) and len(found) == len(wanted) and all(map(same, found, wanted))
    if isinstance(wanted, int | float) and not isinstance(wanted, bool):
        return found == pytest.approx(wanted, abs=1e-9, rel=1e-5)
    return type(found) is type(wanted) and found == wanted


@pytest.mark.slow
@pytest.mark.parametrize("title", SECTIONS)
def test_the_page(title):
    command, text = SECTIONS[title]
    settings = with_numbers("", dataclasses.asdict(job(*command.split())))
    settings["guidance_scale"] = settings["method"]["guidance_scale"]
    wrong = []
    for name, released, key, ours, reason in rows(text):
        if key == "—":
            if ours != "—" or not reason:
                wrong.append(f"{name}: has no setting and no reason")
            continue
        found = settings
        for part in key.strip("`").split("."):
            found = found[part]
        if not same(found, value(ours, shares=True)):
            wrong.append(f"{key} is {found!r}, but the page says {ours}")
        if not reason and not same(value(ours, shares=False), value(released, shares=False)):
            wrong.append(f"{key}: {ours} is not {released}, and there is no reason")
    assert not wrong, "\n".join(wrong)


def test_the_page_has_every_published_configuration():
    commands = " ".join(command for command, _ in SECTIONS.values())
    assert len(SECTIONS) == 11
    for word in ("sds", "trace_official_trained", "csd", "vsd", "sdi", "ism", "consistent3d", "dreamer_xl"):
        assert f"method={word}" in commands
