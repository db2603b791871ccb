"""Diffusion against flow in the toy world: the same methods on the tiny prior's two kinds of UNet."""

from __future__ import annotations

from collections.abc import Mapping

from evaluation.results.aggregate import Row, on_same_prompts
from evaluation.statistics.paired import Difference, paired_difference
from evaluation.tables import formats
from scripts.results.document import paragraph
from scripts.results.toy import LABELS, cell_of, rows_of
from scripts.results.workshop import Sweep, Workshop

FLOW_LABELS: Mapping[str, str] = {
    name: LABELS[name] for name in ("sds", "ism", "trace")
} | {"rfds": "RFDS", "rfds_rev": "RFDS-Rev"}  # fmt: skip
DIFFUSION_SWEEP: Sweep = ("method=sds,ism,trace", "prompt_set=toy")
FLOW_SWEEP: Sweep = (f"method={','.join(FLOW_LABELS)}", "prior=tiny_flow", "prompt_set=toy")
_COLUMNS = {"Match ↑": "match", "IoU ↑": "soft_iou", "ΔE ↓": "colour_error", "recognised": "recognised",
            "UNet items": "unet_items"}  # fmt: skip


def flow_table(shop: Workshop, _old: str) -> str:
    """docs/methods.md: scores of the methods on both priors, and the differences in Match."""
    diffusion, flow = rows_of(shop, DIFFUSION_SWEEP), rows_of(shop, FLOW_SWEEP)
    lines = [f"| method | prior | {' | '.join(_COLUMNS)} |", f"|---|---|{'---:|' * len(_COLUMNS)}"]
    for method, label in FLOW_LABELS.items():
        for prior, rows in (("diffusion", diffusion), ("flow", flow)):
            if method in rows:
                texts = [formats.cell_text(cell_of(rows[method], name)) for name in _COLUMNS.values()]
                lines.append(f"| {label} | {prior} | {' | '.join(texts)} |")
    return "\n".join(lines) + "\n\n" + _differences(diffusion, flow)


def _differences(diffusion: Mapping[str, Row], flow: Mapping[str, Row]) -> str:
    """Flow minus diffusion in Match, for each method that has both."""
    found = {method: _difference(diffusion[method], flow[method]) for method in diffusion}
    texts = [f"{LABELS[method]} {difference.text(3)}" for method, difference in found.items()]
    return paragraph(
        f"Flow minus diffusion in Match, with the 95 % interval over the prompts: {'; '.join(texts)}. "
        "An interval that contains 0 does not decide."
    )


def _difference(diffusion: Row, flow: Row) -> Difference:
    return paired_difference(*on_same_prompts(cell_of(flow, "match"), cell_of(diffusion, "match")))
