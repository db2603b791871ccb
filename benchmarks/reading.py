"""What it costs to read many runs: `python -m benchmarks.reading [--runs 9900] [--against COMMIT]`.

CPU and wall-clock seconds of three commands, their start included: `evaluation.collect` with an empty cache
and with a full one, and `trace_bench.status`, over synthetic runs of `benchmarks.collect`. `--runs 49500` for
the size of a large study. With --against, the other commit reads the same folder with a cache of its own.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.arguments import parser_of

RUNS_A_PROMPT = 18  # 6 methods x 3 representations
MOST_PROMPTS = 110


def say(label: str, module: str, root: str, cache: str) -> None:
    """Run a command over the runs and print its costs."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", module, f"output_root={root}"],
        env=os.environ | {"TRACE_BENCH_CACHE": cache}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in (0, 1):  # 1: some runs cannot be read, which an older commit may say
        raise SystemExit(done.stderr)
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    print(f"{label}, CPU seconds\t{cpu:.4f}\n{label}, seconds\t{time.perf_counter() - began:.4f}", flush=True)


def measure(root: str) -> None:
    with tempfile.TemporaryDirectory() as cache:
        say("collect, first", "evaluation.collect", root, cache)
        say("collect, again", "evaluation.collect", root, cache)
        say("status", "trace_bench.status", root, cache)


def main() -> None:
    parser = parser_of("reading", __doc__)
    parser.add_argument("--runs", type=int, default=9900)
    parser.add_argument("--against", metavar="COMMIT")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--measure", metavar="FOLDER", help="print this checkout's costs only")
    args = parser.parse_args()
    if args.measure:
        measure(args.measure)
        return
    from hydra import compose, initialize_config_dir

    from benchmarks.against import compare
    from benchmarks.collect import synthesise
    from evaluation.metrics.load import load_metrics
    from trace_bench.system.config_path import conf_dir

    with initialize_config_dir(conf_dir(), version_base="1.3"):
        metrics = load_metrics(compose("evaluation"))
    pairs = max(1, args.runs // RUNS_A_PROMPT)  # of a prompt and a seed
    prompts = min(pairs, MOST_PROMPTS)
    with tempfile.TemporaryDirectory() as root:
        count = synthesise(Path(root), metrics, prompts, pairs // prompts)
        print(f"{count} runs")
        os.sync()
        for file in Path(root).rglob("*"):
            if file.is_file():
                file.read_bytes()
        compare("reading", [root], args.against, args.repeats)


if __name__ == "__main__":
    main()
