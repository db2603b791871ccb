"""`trace-bench COMMAND ...`: every command of the project under one name.

`trace-bench tables table=all` equals `python -m evaluation.tables table=all`; so do the others. With `then`
between them, several run one after the other in one process, which imports what they need once. The first
that fails ends the line. After problems with some runs, a report is made all the same: it names them.
The code of a command is imported when it runs, so `--help` is fast.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

EXIT_PROBLEMS, EXIT_MISTAKE = 1, 2
THEN = "then"


def _run(arguments: list[str]) -> int:
    """make one asset"""
    from trace_bench.sweeps.sweep import main

    return main(arguments)


def _sweep(arguments: list[str]) -> int:
    """make many: every combination of the values that you name"""
    return _run(["-m", *arguments])


def _status(arguments: list[str]) -> int:
    """show the progress of sweeps"""
    from trace_bench.sweeps.status import main

    return main(arguments)


def _export(arguments: list[str]) -> int:
    """copy assets and films for other programs: .ply, .splat, .glb, .gif, .mp4"""
    from trace_bench.export import main

    return main(arguments)


def _prefetch(arguments: list[str]) -> int:
    """download what a sweep will load, for nodes without internet"""
    from trace_bench.sweeps.prefetch import main

    return main(arguments)


def _score(arguments: list[str]) -> None:
    """score the finished runs"""
    from evaluation.metrics.score import main

    main()


def _collect(arguments: list[str]) -> None:
    """write all results into one file, results.parquet"""
    from evaluation.results.collect import main

    main()


def _tables(arguments: list[str]) -> None:
    """print and write the tables"""
    from evaluation.tables.__main__ import main

    main()


def _compare(arguments: list[str]) -> int:
    """compare two methods, settings or output roots, prompt by prompt"""
    from evaluation.compare import main

    return main(arguments)


def _prompts_needed(arguments: list[str]) -> int:
    """how many prompts a difference needs"""
    from evaluation.prompts_needed import main

    return main(arguments)


def _figures(arguments: list[str]) -> None:
    """draw the figures"""
    from evaluation.figures.__main__ import main

    main()


def _contact_sheet(arguments: list[str]) -> None:
    """draw every asset on one page"""
    from evaluation.figures.contact_sheet import main

    main()


def _report(arguments: list[str]) -> None:
    """make a page of all runs that opens from disk"""
    from evaluation.report.__main__ import main

    main()


def _gpteval3d(arguments: list[str]) -> None:
    """let a judge compare assets in pairs, and compute Elo"""
    from evaluation.gpteval3d.__main__ import main

    main()


def _judge_validity(arguments: list[str]) -> None:
    """compare the judges with the known truth of the toy world"""
    from evaluation.judge_validity.__main__ import main

    main()


def _user_study(arguments: list[str]) -> None:
    """ask people which asset is better"""
    from evaluation.user_study.__main__ import main

    main()


def _check(arguments: list[str]) -> int:
    """check a method, representation, metric or prior of your own"""
    from evaluation.check import main

    return main(arguments)


#: Commands that return None are Hydra's: they read sys.argv and call sys.exit.
COMMANDS: dict[str, Callable[[list[str]], int | None]] = {
    "run": _run,
    "sweep": _sweep,
    "status": _status,
    "export": _export,
    "prefetch": _prefetch,
    "score": _score,
    "collect": _collect,
    "tables": _tables,
    "compare": _compare,
    "prompts-needed": _prompts_needed,
    "figures": _figures,
    "contact-sheet": _contact_sheet,
    "report": _report,
    "gpteval3d": _gpteval3d,
    "judge-validity": _judge_validity,
    "user-study": _user_study,
    "check": _check,
}


def usage() -> str:
    """The list of commands."""
    lines = [f"  {name:<15}{command.__doc__}" for name, command in COMMANDS.items()]
    return "\n".join([
        "usage: trace-bench COMMAND [key=value ...]",
        "       trace-bench COMMAND ... then COMMAND ...   one after the other, each with its own",
        "                                                  settings, until one fails; `report` runs also",
        "                                                  after problems with some runs",
        "       trace-bench COMMAND --help",
        "       trace-bench --version",
        "",
        *lines,
    ])  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command, or several; returns its exit code, 2 if there is no such command."""
    from trace_bench.system.output import forgive_closed_output

    forgive_closed_output()
    commands = _split(list(sys.argv[1:]) if argv is None else list(argv))
    if len(commands) == 1:
        return _command(*commands[0])
    for name, *_ in commands:
        if name not in COMMANDS:
            print(_no_command(name), file=sys.stderr)
            return EXIT_MISTAKE
    return _in_turn(commands)


def _in_turn(commands: Sequence[Sequence[str]]) -> int:
    """Run them until one fails; returns its exit code. A report is made after problems, too."""
    failed = 0
    for name, *arguments in commands:
        if failed == 0 or (failed == EXIT_PROBLEMS and name == "report"):
            code = _exit_code(name, *arguments)
            failed = failed or code
    return failed


def _split(arguments: list[str]) -> list[list[str]]:
    """The commands of a line, each with its arguments; one without a name is "".

    ["score", "then", "tables", "table=all"] -> [["score"], ["tables", "table=all"]]
    """
    commands: list[list[str]] = [[]]
    for argument in arguments:
        if argument == THEN:
            commands.append([])
        else:
            commands[-1].append(argument)
    return [command or [""] for command in commands]


def _exit_code(name: str, *arguments: str) -> int:
    """Run one of several commands; those of Hydra call sys.exit if something is wrong."""
    try:
        return _command(name, *arguments)
    except SystemExit as left:
        return left.code if isinstance(left.code, int) else int(left.code is not None)


def _command(name: str, *arguments: str) -> int:
    if name in ("-h", "--help"):
        print(usage())
        return 0
    if name == "--version":
        from trace_bench import __version__

        print(f"trace-bench {__version__}")
        return 0
    if name not in COMMANDS:
        print(_no_command(name), file=sys.stderr)
        return EXIT_MISTAKE
    if "" not in sys.path:  # like `python -m`: methods of your own are imported from the current folder
        sys.path.insert(0, "")
    sys.argv = [f"trace-bench {name}", *arguments]
    return COMMANDS[name](list(arguments)) or 0


def _no_command(name: str) -> str:
    """One sentence, with the command probably meant."""
    if not name:
        return usage()
    import difflib

    if "=" in name or name in ("-m", "--multirun"):
        close = ["run" if "=" in name else "sweep"]
    else:
        close = difflib.get_close_matches(name.replace("_", "-"), COMMANDS, n=1)
    meant = f"did you mean `trace-bench {close[0]}`?" if close else "see `trace-bench --help`."
    return f"trace-bench: there is no command {name!r}; {meant}"


if __name__ == "__main__":
    sys.exit(main())
