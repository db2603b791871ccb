"""`python -m evaluation.judge_validity`: how often each judge agrees with the known truth of the toy world.

Reads the verdicts of every tournament and user study on toy prompts, prints a table, and writes it to
`output_root`/tables and the figure to `output_root`/figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan

from omegaconf import DictConfig

from evaluation.command import command, output_root
from evaluation.figures import style
from evaluation.figures.base import save
from evaluation.gpteval3d.criteria import LABELS
from evaluation.gpteval3d.truth_judge import TruthJudge
from evaluation.judge_validity.agreement import LEAST_PROMPTS, Share, Validity, validity
from evaluation.judge_validity.figure import drawing, record
from evaluation.judge_validity.judgements import find_judged, nothing
from evaluation.metrics.load import load_metrics
from evaluation.results.markdown import plain
from evaluation.tables import formats
from evaluation.tables.__main__ import write_grids
from evaluation.tables.formats import Entry, Grid, Heading
from trace_bench.run_folder.index import read_index

AGREEMENT = (
    "Agreement: share of the verdicts with a winner that name the truth's winner, where the truth has one; "
    "50 % is chance."
)
LEFT = (
    "Left wins: share of the verdicts with a winner that the left asset won; 50 % without position bias; a "
    "dash for judges that see no sides."
)
CONSISTENCY = (
    "Consistency: share of the pairs of verdicts on the same two assets that are equal (both orders, "
    "repeated choices, other raters)."
)
HEAD = ("Judge", "Verdicts of", "Criterion", "Verdicts", "Agreement", "Draws", "Left wins", "Consistency")


def grid(rows: Sequence[Validity]) -> Grid:
    """The table, in the order of the rows."""
    body = [
        [
            Entry(text)
            for text in (
                plain(row.judge), plain(row.about), LABELS[row.criterion], str(row.verdicts),
                _share(row.agreement), _percent(row.draws), _share(row.left), _percent(row.consistency),
            )
        ]
        for row in rows
    ]  # fmt: skip
    notes = [
        AGREEMENT,
        LEFT,
        CONSISTENCY,
        f"Brackets are 95 % intervals over prompts; there is none below {LEAST_PROMPTS} prompts.",
    ]
    if left_out := sum({(row.judge, row.about): row.left_out for row in rows}.values()):
        notes.append(f"{left_out} verdicts are left out: their assets are gone, or could be several runs.")
    caption = "Judges against the known truth of the toy world."
    head, records = [Heading(name) for name in HEAD], [record(row) for row in rows]
    return Grid("judge_validity", caption, head, body, 3, records, notes)


def _percent(value: float) -> str:
    return "—" if isnan(value) else f"{100 * value:.0f} %"


def _share(share: Share) -> str:
    if isnan(share.low):
        return _percent(share.value)
    return f"{100 * share.value:.0f} % [{100 * share.low:.0f}, {100 * share.high:.0f}]"


@command("evaluation")
def main(config: DictConfig) -> int:
    root = output_root(config)
    judge = TruthJudge(load_metrics(config)[TruthJudge.metric], float(config.judge_validity.tie_margin))
    index = read_index(root)
    runs = [run for run in index.runs.values() if run.manifest.status == "done"]
    rows = [row for judged in find_judged(root, runs, judge) for row in validity(judged)]
    if not rows:
        raise nothing(root)
    made = grid(rows)
    print(formats.markdown(made))
    written = write_grids([made], root / "tables")
    with style.style():
        made_figure = drawing(rows)
    written += save(made_figure, root / "figures", "judge_validity")
    print("\n".join(["Written:", *(f"  {path}" for path in written)]))
    for problem in index.problems:
        print(f"Problem: {problem}")
    return 1 if index.problems else 0


if __name__ == "__main__":
    main()
