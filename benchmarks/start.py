"""What it costs before the first step: `python -m benchmarks.start [--against COMMIT] [--repeats 3] [--short]`.

CPU seconds (other programs do not change them much) of: one SDS asset in a cold process, to its end; the command
of a sweep until its first worker starts, with its memory; planning 330, 3,300 and 9,900 runs. The caches on disk
are warm. With --against, the other commit is measured in turns with this one, and ratios are printed.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

LOCAL = ["hydra/launcher=local", "hydra.launcher.n_jobs=2"]
METHODS = "sds,csd,vsd,sdi,ism,trace"
REPRESENTATIONS = "gaussians,nerf,image"
#: Runs -> the command that plans them. The prompts are a file of 110 lines.
PLANS = {
    330: ["method=sds,vsd,trace"],
    3300: [f"method={METHODS}", "representation=gaussians", "seed=0,1,2,3,4"],
    9900: [f"method={METHODS}", f"representation={REPRESENTATIONS}", "seed=0,1,2,3,4"],
}


def cpu_of(command: list[str]) -> float:
    """CPU seconds of a command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *command], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def say(label: str, cost: float) -> None:
    print(f"{label}\t{cost:.4f}", flush=True)


def captions(count: int) -> list[str]:
    """Prompts that the toy prior knows, asked of the trace_bench that is measured, in a process of its own."""
    code = "from trace_bench.toyworld.captions import all_captions; [print(c.text) for c in all_captions()]"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[:count]


def measure(short: bool) -> None:
    """Print the cost of each part, for this trace_bench."""
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        made = ["-m", "trace_bench", "method=sds", f"output_root={root / 'one'}", "force=true"]
        made += ["steps=2", "rig.n_views=2", "rig.resolution=16"] if short else []
        cpu_of(made)  # compiled kernels, embeddings and bytecode are there from now on
        say("one SDS asset, CPU seconds", cpu_of(made))
        file = root / "prompts.txt"
        file.write_text("".join(f"{text}\n" for text in captions(110)))
        about = ["prompt_set=file", f"prompt_set.file={file}", "prior=tiny", "protocol=toy"]
        for count, overrides in PLANS.items():
            if short and count > 330:
                continue
            code = [sys.executable, __file__, "--command", *overrides, *about, *LOCAL, f"output_root={root}"]
            done = subprocess.run(code, capture_output=True, text=True, check=True)
            plan, before, memory = json.loads(done.stdout.splitlines()[-1])
            say(f"planning {count} runs, CPU seconds", plan)
            if count == 330:
                say("sweep of 330 until its workers, CPU seconds", before)
                say("sweep of 330 until its workers, MB", memory)


def command(overrides: list[str]) -> None:
    """In a process of its own: plan and check a sweep as the command does, but make no run."""
    from trace_bench.sweeps import sweep

    planned = []
    make_plan = sweep.make_plan

    def timed(*args: object) -> object:
        began = time.process_time()
        plan = make_plan(*args)  # type: ignore[arg-type]
        planned.append(time.process_time() - began)
        return plan

    with (
        mock.patch.object(sweep, "make_plan", timed),
        mock.patch.object(sweep, "_make", lambda *_: _report(planned[0])),
        mock.patch("shutil.disk_usage", lambda _: mock.Mock(free=10**15)),
    ):
        sweep.main(["-m", *overrides])


def _report(planned: float) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps([planned, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024]), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", metavar="COMMIT")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--short", action="store_true", help="fewer and smaller runs, for tests")
    parser.add_argument("--measure", action="store_true", help="print this checkout's costs only")
    parser.add_argument("--command", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.command:
        command(args.command)
    elif args.measure:
        measure(args.short)
    else:
        from benchmarks.against import compare

        compare("start", ["--short"] * args.short, args.against, args.repeats)


if __name__ == "__main__":
    main()
