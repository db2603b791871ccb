"""The stages of `make bench` after installation: `python -m benchmarks.make_bench [--against COMMIT]`.

The sweep of SDS, VSD and TraCe on the eight toy prompts with one worker a core, then scores, a tournament
with the CLIP judge, the contact sheet and the tables: seconds of the clock, and CPU seconds. The report is
left out, since early versions have none. All commits use the prior of this checkout, with equal settings.
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

FULL = ["method=sds,vsd,trace", "prompt_set=toy"]
QUICK = ["steps=2", "rig.n_views=2", "rig.resolution=16"]
SHORT = ["method=sds,vsd", "prompt_set=toy", "prompt=0,1", *QUICK]
#: One process for all stages now, and one for each in early versions.
TOGETHER = "score {0} then gpteval3d judge=clip {0} then contact-sheet {0} then tables {0}"
APART = ("score {0}", "gpteval3d judge=clip {0}", "contact_sheet {0}", "tables table=all {0}")


def measure(same: list[str], short: bool) -> None:
    """Print the costs of the stages for the trace_bench in this folder."""
    asked = [*(SHORT if short else FULL), "hydra/launcher=local", *same]
    with tempfile.TemporaryDirectory() as temporary:
        if not short:  # compiled kernels, embeddings, sizes of batches and bytecode are there from now on
            spend(["trace_bench", "-m", *asked, *QUICK, f"output_root={temporary}/warm"])
        out = f"output_root={temporary}/measured"
        sweep = spend(["trace_bench", "-m", *asked, out])
        if Path("evaluation/cli.py").is_file():
            commands = [["evaluation.cli", *TOGETHER.format(out).split()]]
        else:
            commands = [f"evaluation.{words.format(out)}".split() for words in APART]
        rest = [spend(words) for words in commands]
    for label, parts in (("sweep", [sweep]), ("evaluation", rest), ("all stages", [sweep, *rest])):
        seconds, cpu = (sum(column) for column in zip(*parts, strict=True))
        print(f"{label}, seconds\t{seconds:.4f}\n{label}, CPU seconds\t{cpu:.4f}", flush=True)


def spend(words: list[str]) -> tuple[float, float]:
    """Seconds and CPU seconds of `python -m` with these words."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: {done.stdout[-2000:]}{done.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return time.perf_counter() - began, cpu


def main() -> None:
    parser = parser_of("make_bench", __doc__)
    parser.add_argument("--against", metavar="COMMIT")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--short", action="store_true", help="a few small runs, for tests")
    parser.add_argument("--measure", nargs="+", metavar="SETTING", help="print this checkout's costs only")
    args = parser.parse_args()
    if args.measure:
        measure(args.measure, args.short)
        return
    from benchmarks.against import SAME, compare

    print(f"load of the machine before: {os.getloadavg()[0]:.1f}", flush=True)
    compare("make_bench", [*SAME, *["--short"] * args.short], args.against, args.repeats)
    print(f"load of the machine after: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
