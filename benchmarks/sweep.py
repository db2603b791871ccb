"""Throughput of a sweep: `python -m benchmarks.sweep [--workers 1,2] [--against COMMIT] [--repeats 1]`.

SDS, VSD and TraCe on eight prompts of the toy world, from the command to its end, with `lanes` as by
default and with lanes=1: seconds and CPU seconds for each asset. All commits use the prior of this checkout,
the same prompts and settings, and write the same files; nothing is scored. A commit without lanes makes one
run at a time, so that its one measurement is compared with both.
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

METHODS = ("sds", "vsd", "trace")
SHORT = ["steps=2", "rig.n_views=2", "rig.resolution=16"]
#: Label -> what to add to the command.
LANES = {"lanes as by default": [], "lanes=1": ["lanes=1"]}


def sweep(workers: int, common: list[str], more: list[str]) -> tuple[float, float]:
    """Seconds and CPU seconds of a sweep that is made from nothing."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with tempfile.TemporaryDirectory() as root:
        command = [
            *(sys.executable, "-m", "trace_bench", "-m", *common, f"output_root={root}"),
            *("hydra/launcher=local", f"hydra.launcher.n_jobs={workers}", *more),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return time.perf_counter() - began, cpu


def measure(file: str, same: list[str], workers: list[int], short: bool) -> None:
    """Print the costs of the trace_bench in this folder, with prompts from `file` and settings for all."""
    methods = METHODS[:1] if short else METHODS
    common = [f"method={','.join(methods)}", "prompt_set=file", f"prompt_set.file={file}"]
    common += ["prior=tiny", "protocol=toy", "device=cpu", *same, *(SHORT if short else [])]
    assets = len(methods) * len(Path(file).read_text().splitlines())
    has_lanes = "\nlanes:" in Path("conf/config.yaml").read_text()
    ways = LANES if has_lanes else {"": []}
    if not short:  # compiled kernels, embeddings, sizes of batches and bytecode are there from now on
        for more in ways.values():
            sweep(1, common, [*SHORT, *more])
    for n in workers:
        for label, more in ways.items():
            seconds, cpu = sweep(n, common, more)
            for name in [label] if has_lanes else LANES:
                where = f"{n} worker{'s' if n > 1 else ''}, {name}"
                print(f"{where}, seconds an asset\t{seconds / assets:.4f}", flush=True)
                print(f"{where}, CPU seconds an asset\t{cpu / assets:.4f}", flush=True)


def main() -> None:
    parser = parser_of("sweep", __doc__)
    parser.add_argument("--against", metavar="COMMIT")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--workers", default="1,2", help="numbers of worker processes")
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--short", action="store_true", help="SDS alone, few steps and views, for tests")
    parser.add_argument(
        "--measure", nargs="+", metavar="FILE, SETTING", help="print this checkout's costs only"
    )
    args = parser.parse_args()
    if args.measure:
        file, *same = args.measure
        measure(file, same, [int(n) for n in args.workers.split(",")], args.short)
        return
    from benchmarks.against import SAME, compare
    from benchmarks.start import captions

    print(f"load of the machine before: {os.getloadavg()[0]:.1f}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        prompts = Path(folder) / "prompts.txt"
        prompts.write_text("".join(f"{text}\n" for text in captions(args.prompts)))
        more = ["--workers", args.workers, *["--short"] * args.short]
        compare("sweep", [str(prompts), *SAME, *more], args.against, args.repeats)
    print(f"load of the machine after: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
