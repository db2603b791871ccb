"""What it costs before the first step: `python -m benchmarks.start [--against COMMIT] [--repeats 3]`.

CPU seconds (other programs do not change them much) of: one SDS asset in a cold process, to its end; the
command of a sweep until its first worker starts, with its memory, and those of the fork server that its
workers come from, if it has one; planning 330, 3,300 and 9,900 runs. The caches on disk are warm. With
--against, the other commit is measured in turns with this one, with the prior of this checkout and equal
settings, and ratios are printed.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

from benchmarks.arguments import parser_of

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
    """Prompts that the toy prior knows."""
    from trace_bench.toyworld.captions import all_captions

    return [caption.text for caption in all_captions()][:count]


def measure(short: bool, file: str, same: list[str]) -> None:
    """Print the cost of each part, for the trace_bench in this folder; `file` has 110 prompts."""
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        made = ["-m", "trace_bench", "method=sds", "prompt=a red cube", *same]
        made += [f"output_root={root / 'one'}", "force=true"]
        made += ["steps=2", "rig.n_views=2", "rig.resolution=16"] if short else []
        cpu_of(made)  # compiled kernels, embeddings and bytecode are there from now on
        say("one SDS asset, CPU seconds", cpu_of(made))
        about = ["prompt_set=file", f"prompt_set.file={file}", "prior=tiny", "protocol=toy"]
        for count, overrides in PLANS.items():
            if short and count > 330:
                continue
            code = [sys.executable, __file__, "--command", *overrides, *about, *LOCAL, f"output_root={root}"]
            done = subprocess.run(code, capture_output=True, text=True, check=True)
            plan, before, memory, *server = json.loads(done.stdout.splitlines()[-1])
            say(f"planning {count} runs, CPU seconds", plan)
            if count == 330:
                say("sweep of 330 until its workers, CPU seconds", before)
                say("sweep of 330 until its workers, MB", memory)
                for label, cost in zip(("CPU seconds", "MB"), server, strict=False):
                    say(f"its fork server, {label}", cost)


def command(overrides: list[str]) -> None:
    """In a process of its own: plan and check a sweep as the command does, but make no run."""
    try:
        from trace_bench.sweeps import sweep
    except ImportError:  # its place in early versions
        from trace_bench import sweep  # type: ignore[no-redef, attr-defined]

    planned: list[float] = []
    starts = "_make" if hasattr(sweep, "_make") else "_hand_over"  # its name in early versions
    make_plan = sweep.make_plan

    def timed(*args: object) -> object:
        began = time.process_time()
        plan = make_plan(*args)  # type: ignore[arg-type]
        planned.append(time.process_time() - began)
        return plan

    with (
        mock.patch.object(sweep, "make_plan", timed),
        mock.patch.object(sweep, starts, side_effect=lambda *_: _report(planned[0])),
        mock.patch("shutil.disk_usage", return_value=mock.Mock(free=10**15)),
    ):
        sweep.main(["-m", *overrides])


def _report(planned: float) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    status = Path(
        "/proc/self/status"
    ).read_text()  # getrusage's maximum holds that of the process that forked
    memory = int(status.partition("VmHWM:")[2].split()[0]) / 1024
    print(json.dumps([planned, used.ru_utime + used.ru_stime, memory, *_fork_server()]), flush=True)


def _fork_server() -> list[float]:
    """CPU seconds and MB of the fork server when it has imported everything; [] if there is none."""
    from multiprocessing import forkserver

    pid = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    if pid is None:
        return []
    spent, before = 0.0, -1.0
    while spent > before:
        time.sleep(1.0)
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        before, spent = spent, (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    held = Path(f"/proc/{pid}/status").read_text().partition("VmRSS:")[2]
    return [spent, int(held.split()[0]) / 1024]


def main() -> None:
    parser = parser_of("start", __doc__)
    parser.add_argument("--against", metavar="COMMIT")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--short", action="store_true", help="fewer and smaller runs, for tests")
    parser.add_argument(
        "--measure", nargs="+", metavar="FILE, SETTING", help="print this checkout's costs only"
    )
    parser.add_argument("--command", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.command:
        command(args.command)
    elif args.measure:
        measure(args.short, args.measure[0], args.measure[1:])
    else:
        from benchmarks.against import SAME, compare

        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "prompts.txt"
            file.write_text("".join(f"{text}\n" for text in captions(110)))
            compare("start", [str(file), *SAME, *["--short"] * args.short], args.against, args.repeats)


if __name__ == "__main__":
    main()
