"""`python -m trace_bench.status`: the progress of the sweeps under an output root.

    python -m trace_bench.status [output_root=outputs] [--watch [SECONDS]] [--verify]

Reads run folders, plans and, if available, Slurm's queue; moves and changes nothing. Works while a sweep
runs, on any machine with access to the same files. `--verify` reads every file of the finished runs and
lists those that differ from what their manifests recorded. `--watch` shows the display of a running sweep,
then the report.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trace_bench.run_folder.index import Index, read_index
from trace_bench.run_folder.manifest import ManifestError, changed_files, read_manifest
from trace_bench.run_folder.states import STATES, State
from trace_bench.sweeps.board import View, view_of_folders
from trace_bench.sweeps.display import Display
from trace_bench.sweeps.run_states import Queue, Row, ask_slurm, rows_of, states
from trace_bench.sweeps.sweep_plan import Sweep, read_sweeps
from trace_bench.system.errors import TraceBenchError
from trace_bench.system.output import forgive_closed_output
from trace_bench.system.text import printable
from trace_bench.system.tracked import duration

_RECENT_S = 3600.0  # throughput is measured over the last hour
_LISTED = 5
_FAILURES_LISTED = 20
_AT_WORK: tuple[State, ...] = ("running", "queued", "unknown")
_OPEN = ("running", "queued", "preempted", "killed", "missing", "unreadable", "unknown")


@dataclass(frozen=True)
class Look:
    """What one look at an output root found."""

    root: Path
    index: Index
    sweeps: list[Sweep]
    problems: list[str]
    rows: dict[str, Row]
    queue: Queue
    found: dict[str, State]

    @staticmethod
    def at(root: Path) -> Look:
        """Read the run folders and plans, and ask Slurm."""
        problems: list[str] = []
        sweeps = read_sweeps(root, problems)
        index = read_index(root)
        rows = rows_of(index)
        queue = ask_slurm(rows.values(), sweeps)
        return Look(root, index, sweeps, problems, rows, queue, states(root, rows, sweeps, queue))

    @property
    def is_open(self) -> bool:
        """Whether any run is still in progress."""
        return any(state in _AT_WORK for state in self.found.values())

    def view(self) -> View:
        """The sweeps as the display of a running sweep shows them: those with a run in progress, else all."""
        open_sweeps = [s for s in self.sweeps if any(self.found.get(name) in _AT_WORK for name in s.runs)]
        names = dict.fromkeys(name for sweep in open_sweeps for name in sweep.runs)
        names |= dict.fromkeys(name for name, state in self.found.items() if state in _AT_WORK)
        shown = {name: self.found[name] for name in names} or self.found
        costs = {name: cost for sweep in self.sweeps for name, cost in sweep.costs.items()}
        return view_of_folders(self.root, shown, self.index.runs, costs)


def watch(root: Path, every: float) -> None:
    """Show the display until nothing runs."""
    look = Look.at(root)

    def view() -> View:
        return look.view()

    with Display(view) as display:
        while look.is_open:
            time.sleep(max(every, 0.5))
            before, look = look, Look.at(root)
            for name, state in look.found.items():
                if state in ("done", "failed", "killed") and before.found.get(name) == "running":
                    why = f": {look.rows[name].reason}" if state == "failed" else ""
                    display.say(printable(f"{state.capitalize()}: {name}{why}"))


def report(root: Path, now: float) -> tuple[str, bool]:
    """The report, and whether any run is still in progress."""
    look = Look.at(root)
    index, sweeps, rows, found = look.index, look.sweeps, look.rows, look.found
    queue, problems = look.queue, look.problems
    counts = Counter(found.values())
    lines = [f"{len(found)} runs under {root}: " + _counts(counts)]
    if sweeps:
        lines.append(f"Last command, {sweeps[-1].issued}: {sweeps[-1].command}")
    if queue.silence:
        lines.append(f"Slurm did not answer, so the state of its jobs is unknown: {queue.silence}")
    lines += ["", *_table(rows, found), "", *_pace(rows, found, now), *_slowest(rows, found, now)]
    lines += _failures(rows, found)
    lines += ["", *(f"Problem: {problem}" for problem in problems)] if problems else []
    lines += _set_aside(index)
    return "\n".join(lines), look.is_open


def _set_aside(index: Index) -> list[str]:
    """A line on the folders that runs could not use and left."""
    names = index.set_aside
    if not names:
        return []
    these = "1 folder was" if len(names) == 1 else f"{len(names)} folders were"
    return ["", f"{these} set aside because a run could not use them (<folder>.unreadable-<n>): {names[0]}"
            + (" ..." if len(names) > 1 else "")]  # fmt: skip


def verify(root: Path) -> tuple[str, bool]:
    """Compare every file of the finished runs with its recorded size and hash: the text, and if all match."""
    lines, checked, unrecorded = [], 0, 0
    for name, run in read_index(root).runs.items():
        if run.manifest.status != "done":
            continue
        try:
            manifest = read_manifest(run.folder)
        except ManifestError as error:
            lines.append(f"  {name}: {error}")
            continue
        if manifest is None:
            continue
        checked += 1
        unrecorded += not manifest.contents
        lines += [f"  {name}/{file}: {why}" for file, why in changed_files(run.folder, manifest).items()]
    said = [f"{checked} finished runs under {root}: {len(lines)} files do not match"] if lines else [
        f"{checked} finished runs under {root}: every file is as recorded"
    ]  # fmt: skip
    if unrecorded:
        said.append(f"{unrecorded} runs of an earlier version have no hashes; only the names were checked.")
    if lines:
        lines.append("Repeat a run's command with force=true to make it again.")
    return "\n".join([*said, *lines]), not lines


def _counts(counts: Mapping[State, int]) -> str:
    return ", ".join(f"{counts[state]} {state}" for state in STATES if counts.get(state)) or "none"


def _table(rows: Mapping[str, Row], found: Mapping[str, State]) -> list[str]:
    """One line per method and representation, one column per state that occurs."""
    kinds: dict[tuple[str, str], Counter[State]] = {}
    seconds: dict[tuple[str, str], float] = {}
    for name, state in found.items():
        _, method, representation, *_ = name.split("/")
        kinds.setdefault((method, representation), Counter())[state] += 1
        spent = rows[name].seconds if state == "done" else 0.0
        seconds[method, representation] = seconds.get((method, representation), 0.0) + spent
    columns = [state for state in STATES if any(counts[state] for counts in kinds.values())]
    table = [["method", "representation", *columns, "minutes per run"]]
    for kind, counts in sorted(kinds.items()):
        mean = f"{seconds[kind] / counts['done'] / 60:.2f}" if counts["done"] else "-"
        table.append([*kind, *(str(counts[state] or "-") for state in columns), mean])
    widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
    return [
        "  ".join(
            cell.ljust(w) if i < 2 else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in table
    ]


def _pace(rows: Mapping[str, Row], found: Mapping[str, State], now: float) -> list[str]:
    """Throughput, and the time left at that rate."""
    rate = runs_per_hour(list(rows.values()), now)
    left = sum(state in _OPEN for state in found.values())
    hours = sum(row.seconds for row in rows.values() if row.status == "done") / 3600
    lines = [f"Spent on finished runs: {hours:.2f} h"]
    if rate is None:
        return lines
    text = f"Throughput of the last hour: {rate:.1f} runs per hour"
    at_work = any(state in _AT_WORK for state in found.values())
    if left and at_work:
        text += f"; {left} left, about {duration(left / rate * 3600)}"
    elif left:
        text += f"; {left} left but none in progress: run the command again"
    return [*lines, text]


def runs_per_hour(rows: Sequence[Row], now: float) -> float | None:
    """Runs finished per hour in the last hour, or since the first of them began; None if there are none."""
    recent = [row for row in rows if row.status == "done" and now - row.finished < _RECENT_S]
    if not recent:
        return None
    since = max(now - _RECENT_S, min(min(row.started, now) for row in recent))
    return len(recent) * 3600 / max(now - since, 1.0)


def _slowest(rows: Mapping[str, Row], found: Mapping[str, State], now: float) -> list[str]:
    done = sorted((row.seconds, name) for name, row in rows.items() if row.status == "done")[-_LISTED:]
    lines = ["", "Slowest finished runs"] if done else []
    lines += [f"  {duration(seconds):>9}  {name}" for seconds, name in reversed(done)]
    running = sorted((rows[name].started, name) for name, state in found.items() if state == "running")[
        :_LISTED
    ]
    lines += ["", "Running longest"] if running else []
    lines += [f"  {duration(max(now - started, 0.0)):>9}  {name}" for started, name in running]
    return lines


def _failures(rows: Mapping[str, Row], found: Mapping[str, State]) -> list[str]:
    names = [name for name, state in found.items() if state in ("failed", "unreadable")]
    lines = ["", "Failed"] if names else []
    for name in names[:_FAILURES_LISTED]:
        lines += [f"  {name}", f"    {rows[name].reason}"]
    if len(names) > _FAILURES_LISTED:
        lines.append(f"  ... and {len(names) - _FAILURES_LISTED} more")
    killed = [name for name, state in found.items() if state == "killed"]
    lines += ["", "Killed: run the same command again to resume from checkpoints"] if killed else []
    return lines + [f"  {name}" for name in killed[:_FAILURES_LISTED]]


def main(argv: Sequence[str]) -> int:
    forgive_closed_output()
    parser = argparse.ArgumentParser(
        prog="python -m trace_bench.status", description="Show the progress of sweeps."
    )
    parser.add_argument("keys", nargs="*", metavar="output_root=FOLDER")
    parser.add_argument(
        "--watch",
        nargs="?",
        type=float,
        const=10.0,
        metavar="SECONDS",
        help="show the progress until nothing runs, with a look at the folders every SECONDS (10)",
    )
    parser.add_argument(
        "--verify", action="store_true", help="compare every file of the finished runs with its recorded hash"
    )
    args = parser.parse_intermixed_args(list(argv))
    try:
        root = _root(args.keys)
        if args.verify:
            text, is_whole = verify(root)
            print(printable(text))
            return 0 if is_whole else 1
        if args.watch:
            watch(root, args.watch)
        text, _ = report(root, time.time())
        print(printable(text), flush=True)
        return 0
    except TraceBenchError as error:
        print(f"trace_bench.status: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _root(keys: Sequence[str]) -> Path:
    values = dict(key.partition("=")[::2] for key in keys)
    if set(values) - {"output_root"}:
        raise TraceBenchError(f"Use output_root=FOLDER and --watch, not {' '.join(keys)!r}.")
    root = Path(values.get("output_root") or "outputs").expanduser()
    if not root.is_dir():
        raise TraceBenchError(f"The folder {root} does not exist; set output_root=FOLDER to the sweep's.")
    return root


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
