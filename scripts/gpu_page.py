"""Writes the GPU tables of docs/performance.md from the JSON of `python -m benchmarks.gpu`.

    python scripts/gpu_page.py outputs/gpu.json

Refuses the JSON of a dry run, which measures nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parents[1] / "docs" / "performance.md"
BEGIN, END = "<!-- measured on a GPU -->", "<!-- end of measurements -->"


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; None is a dash."""
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
    return "\n".join("| " + " | ".join("—" if x is None else str(x) for x in line) + " |" for line in lines)


def tables(report: Mapping[str, Any]) -> str:
    """What was measured where, the checks, and the times."""
    where = report["environment"]
    packages = where["packages"]
    versions = ", ".join(
        f"{name} {packages[name]}" for name in ("torch", "diffusers", "gsplat") if name in packages
    )
    checks = [
        (
            check["name"],
            "passed" if check["ok"] else "FAILED",
            check["error"] and f"{check['error']:.1e}",
            check["said"],
        )
        for check in report["checks"]
    ]
    times = []
    for timing in report["timings"]:
        if timing["skipped"]:
            continue
        share = timing["mfu"]
        times.append((
            timing["method"], timing["mode"], timing["lanes"], timing["ms_per_step"], timing["first_step_s"],
            timing["kernels"], timing["tflop_per_s"], None if share is None else f"{100 * share:.0f} %",
            timing["peak_memory_gb"],
        ))  # fmt: skip
    left_out = [
        f"- {timing['method']}, {timing['mode']}, {timing['lanes']} lanes: {timing['skipped']}"
        for timing in report["timings"]
        if timing["skipped"]
    ]
    heads = (
        "method", "mode", "lanes", "ms a step", "first step (s)", "kernels", "TFLOP/s", "MFU", "peak GiB",
    )  # fmt: skip
    return "\n\n".join([
        f"Measured on {where['gpu'] or where['cpu']} with {versions}, commit {where['commit']}.",
        table(("check", "result", "largest difference", ""), checks),
        table(heads, times),
        *(["Not measured:\n\n" + "\n".join(left_out)] if left_out else []),
    ])  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("report", type=Path)
    parser.add_argument("--page", type=Path, default=PAGE)
    args = parser.parse_args(arguments)
    report = json.loads(args.report.read_text(encoding="utf-8"))
    if report["dry"]:
        print(
            f"{args.report} is of a dry run, which measures nothing; run benchmarks.gpu on a GPU.",
            file=sys.stderr,
        )
        return 2
    page = args.page.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    args.page.write_text(f"{before}{BEGIN}\n\n{tables(report)}\n\n{END}{after}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
