"""Prompts and names of others in files and on the terminal: formulas, escape sequences, markup, aliases."""

from __future__ import annotations

import csv
import io
import resource
import sys

import pandas as pd
import pytest
from judgement_files import elo_file
from run_folders import write_run, write_score

from evaluation.metrics.ground_truth import GroundTruth
from evaluation.results.collect import collect
from evaluation.results.csv_text import csv_text, read_csv
from evaluation.results.markdown import plain, sentence
from evaluation.tables import formats
from evaluation.tables.latex import escape, latex
from evaluation.tables.method_tables import make_tables
from trace_bench.system.text import one_line, printable

TRUTH = {"ground_truth": GroundTruth()}
HOSTILE = [
    '=HYPERLINK("http:x","y")', "+1+cmd|' C'!A0", "-2+3", "@SUM(A1)", "\tx", "a\x1b[31mred\x1b[0m",
    "a\n| b |\n\n# c",
    "<script>alert(1)</script>", "![x](http:x)", "a\u202eb", "a\\| b", "\\input{x} 100%", "a\r\nb", "\x9b31m",
]  # fmt: skip


# --- CSV ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", "=+-@\t\r\n＝＋－＠")
def test_a_text_is_no_formula_and_comes_back_as_it_was(start):
    texts = [f"{start}1+1", f"'{start}x", "plain", "it's", "'", ""]
    frame = pd.DataFrame({"text": texts, f"{start}head": range(6)})
    written = csv_text(frame)
    rows = list(csv.reader(io.StringIO(written, newline="")))
    assert not [cell for row in rows for cell in row if cell.startswith(start)]
    assert read_csv(io.StringIO(written))["text"].tolist() == [text.replace("\r", "\n") for text in texts]


def test_numbers_stay_numbers():
    frame = pd.DataFrame({"a": [-1.5, 2e-9], "b": ["-0.25", "+3"], "c": [None, -7]})
    found = pd.read_csv(io.StringIO(csv_text(frame)))
    assert found["a"].tolist() == [-1.5, 2e-9]
    assert found["b"].tolist() == [-0.25, 3.0]
    assert found["c"].tolist()[1] == -7


def test_an_empty_frame_has_its_head():
    assert csv_text(pd.DataFrame(columns=["a", "b"])) == "a,b\n"
    assert list(read_csv(io.StringIO("a,b\n"))) == ["a", "b"]


# --- Markdown, LaTeX, terminal -----------------------------------------------------------------------------


@pytest.mark.parametrize("text", HOSTILE)
def test_a_text_stays_text_on_one_line(text):
    for made in (plain(text), sentence(text), one_line(text), escape(text)):
        assert made.isprintable()
    assert "<script" not in plain(text).replace("\\<", "")
    assert "](" not in plain(text)
    assert printable(text).replace("\n", "").replace("\t", "").isprintable()


def test_printable_keeps_what_people_write():
    for text in ("a duck", "ein Stuhl für Ümit", "一只鸭子", "👩‍🚀 in space", "می‌خواهم", "line\nline\ttab"):
        assert printable(text) == text
    assert one_line("abcdef", 4) == "abc…"


def test_a_table_of_hostile_prompts_keeps_its_shape(tmp_path):
    for i, prompt in enumerate(HOSTILE):
        folder = write_run(tmp_path, prompt_id=str(i), prompt=prompt.replace("/", "-"), count=len(HOSTILE))
        write_score(folder, TRUTH["ground_truth"], iou=0.5)
    for table in make_tables(collect(tmp_path, TRUTH), TRUTH, {}, ["sds"]):
        grid = formats.grid(table)
        written = formats.markdown(grid)
        assert written.replace("\n", "").isprintable()
        rows = [line for line in written.splitlines() if line.startswith("|")]
        assert len(rows) == 2 + len(grid.body)
        bars = {len(row.replace("\\\\", "").replace("\\|", "").split("|")) for row in rows}
        assert len(bars) == 1
        assert latex(grid).replace("\n", "").isprintable()
        cells = [cell for row in csv.reader(io.StringIO(formats.csv(grid), newline="")) for cell in row]
        assert not [cell for cell in cells if cell[:1] in set("=+@\t") or cell.startswith("-2+")]


@pytest.mark.slow
def test_the_terminal_gets_no_escape_sequence(tmp_path, command):
    root = tmp_path / "outputs"
    for i, prompt in enumerate(HOSTILE):
        write_run(root, prompt_id=str(i), prompt=prompt.replace("/", "-"), method="sds\x1b[31m")
    elo_file(root, [("sds\x1b[2J", "plausibility", 1000, 5)])
    (broken,) = root.glob("runs/*/*/*/0-*/*")
    (broken / "manifest.json").write_text("{")
    for name in ("tables", "collect", "contact_sheet"):
        _, out, err = command(name)
        assert "\x1b" not in out + err
        assert "\x9b" not in out + err
    for path in (root / "tables").iterdir():
        assert "\x1b" not in path.read_text().replace("csv", "") or path.suffix == ".csv"


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_a_terminal_of_another_encoding_stops_nothing(tmp_path, command, monkeypatch, encoding):
    root = tmp_path / "outputs"
    for seed in range(2):
        write_score(write_run(root, prompt="一只鸭子", seed=seed), TRUTH["ground_truth"], soft_iou=0.5)
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    code, _, err = command("tables")
    sys.stdout.flush()
    assert (code, err) == (0, "")
    assert b"0.500" in raw.getvalue()
    assert (root / "tables" / "methods-toy-tiny.md").exists()
    assert (root / "results.parquet").exists()


# --- config.yaml -------------------------------------------------------------------------------------------

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "text",
    [
        BOMB, "a: " + "[" * 400_000, "a: " + "{b: " * 200_000, "a: &x 1\nb: *x\n", "a: [", "x" * 2_000_000,
        "a: \x00", "!!python/object:x {}",
    ],
    ids=["bomb", "deep-list", "deep-map", "alias", "broken", "large", "control", "tag"],
)  # fmt: skip
def test_a_hostile_config_is_refused_by_name_and_costs_no_memory(tmp_path, text):
    for variant in ("x", "y"):
        folder = write_run(tmp_path, variant=variant)
        (folder / "config.yaml").write_text(text if variant == "x" else "lr: 0.1\n")
    (hostile,) = (p for p in tmp_path.rglob("config.yaml") if p.read_text() == text)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    results = collect(tmp_path, TRUTH)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB
    (problem,) = results.problems
    assert problem.startswith(f"{hostile} cannot be read (")
    assert problem.isprintable()
    assert len(set(results.frame["variant"])) == 2


def test_a_star_in_a_prompt_is_no_alias(tmp_path):
    for variant in ("x", "y"):
        folder = write_run(tmp_path, variant=variant)
        (folder / "config.yaml").write_text(f"prompt: 'a *star* & more'\nlr: {variant}\nnote: a * b & c\n")
    results = collect(tmp_path, TRUTH)
    assert results.problems == []
    assert sorted(results.frame["variant"]) == ["lr=x", "lr=y"]
