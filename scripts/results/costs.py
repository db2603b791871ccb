"""What a step costs, counted without a run: what each method declares, on its prior's architecture."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from omegaconf import OmegaConf

from scripts.results.document import cells, fill_table, numbers, paragraph
from scripts.results.workshop import Workshop
from trace_bench.sweeps import budget
from trace_bench.sweeps.planning import make_plan

#: Rows of "What a step costs": what is counted for each number of the columns of counts.
STEPS: Mapping[str, tuple[str, ...]] = {
    "SDS": ("method=sds",),
    "CSD": ("method=csd", "method=csd method.two_branch=true"),
    "VSD": ("method=vsd",),
    "ASD": ("method=asd",),
    "NFSD": ("method=nfsd",),
    "BSD": ("method=bsd",),
    "SDS-Bridge": ("method=sds_bridge",),
    "CFD": ("method=cfd",),
    "RewardSDS": ("method=reward_sds",),
    "SDI, as configured here": ("method=sdi",),
    "SDI, Perp-Neg": ("method=sdi method.perp_neg=true",),
    "ISM": ("method=ism",),
    "SCTD": ("method=sctd",),
    "TraCe": ("method=trace",),
    "TraCe (released)": ("method=trace_official",),
    "Consistent3D": ("method=consistent3d",),
    "Dreamer XL (SDXL, 1024 px)": ("method=dreamer_xl prior=sdxl",),
    "RFDS (SD 3, 512 px)": ("method=rfds prior=sd3",),
    "RFDS-Rev (SD 3, 512 px)": ("method=rfds_rev prior=sd3",),
}
SIX = {
    "TraCe": "method=trace",
    "SDS": "method=sds",
    "CSD": "method=csd",
    "VSD": "method=vsd",
    "SDI": "method=sdi",
    "ISM": "method=ism",
}
EQUAL_WORK = SIX | {
    "Consistent3D": "method=consistent3d",
    "Dreamer XL (SDXL, 1024 px)": "contestant=dreamer_xl",
}
#: What docs/cluster.md assumes: an A100's peak, the share of it that is reached, GPTEval3D's prompts.
PEAK_TFLOP_PER_S, REACHED, PROMPTS = 312, 0.4, 110


@dataclass(frozen=True)
class Cost:
    """The work of a run, by default that of its method's own budget."""

    steps: int
    views: int
    forward: float  # UNet items per view and step
    backward: float
    tflop: float  # of the run
    target: float | None  # of budget=equal_work
    prior: str  # as JSON

    @property
    def tflop_per_view(self) -> float:
        return self.tflop / (self.steps * self.views)


@cache
def cost_of(overrides: str) -> Cost:
    """Count a run of SD 2.1, or of the prior that the overrides name."""
    named = "prior=" in overrides or "contestant=" in overrides
    asked = [*overrides.split(), *([] if named else ["prior=sd21"]), "prompt=a corgi"]
    ((run),) = make_plan(asked, multirun=False)
    job = run.job
    setting = budget.setting_of(OmegaConf.create({**vars(job)}), job.views_per_step)
    work = budget.declared_work(setting.method, job.views_per_step, job.steps)
    items = job.steps * job.views_per_step
    return Cost(
        steps=job.steps,
        views=job.views_per_step,
        forward=work.unet_fwd / items,
        backward=work.unet_bwd / items,
        tflop=budget.tflop_of_run(setting, job.steps),
        target=job.budget.get("tflop"),
        prior=setting.prior,
    )


def _short(value: float) -> str:
    """Two decimals, without zeros at the end."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _three(value: float) -> str:
    """Three significant digits."""
    return f"{value:#.3g}".rstrip(".")


def step_costs(_shop: Workshop, old: str) -> str:
    """docs/methods.md: forward and backward items and TFLOP of each method; the other columns stay."""
    lines = [line for line in old.splitlines() if line.startswith("|")]
    columns = cells(lines[0])
    rows = {cells(line)[0]: dict(zip(columns, cells(line), strict=True)) for line in lines[2:]}
    values = {}
    for name, asked in STEPS.items():
        costs = [cost_of(overrides) for overrides in asked]
        values[name] = {
            "ours": numbers(rows[name]["ours"], [_short(cost.forward) for cost in costs]),
            "UNet backward": numbers(rows[name]["UNet backward"], [_short(costs[0].backward)]),
            "TFLOP, ours": numbers(
                rows[name]["TFLOP, ours"], [_three(cost.tflop_per_view) for cost in costs]
            ),
        }
    return fill_table("\n".join(lines), values)


def unit_costs(_shop: Workshop, _old: str) -> str:
    """docs/methods.md: TFLOP of one item of SD 2.1, SD 3 and SDXL."""
    rows = ("SDS", "RFDS (SD 3, 512 px)", "Dreamer XL (SDXL, 1024 px)")
    priors = [cost_of(STEPS[name][0]).prior for name in rows]
    sides = [json.loads(prior)["resolution"] for prior in priors]
    sd21, sd3, sdxl = ({key: _three(tflop) for key, tflop in budget.unit_costs(p).items()} for p in priors)
    return paragraph(
        f"TFLOP are per view and step, with SD 2.1 at {sides[0]} pixels (UNet forward {sd21['unet_fwd']}, "
        f"its LoRA backward {sd21['unet_bwd']}, VAE encoder {sd21['vae_enc_fwd']} and {sd21['vae_enc_bwd']}) "
        f"and, in the rows that say so, SD 3 at {sides[1]} (transformer forward {sd3['unet_fwd']}, its LoRA "
        f"backward {sd3['unet_bwd']}, VAE {sd3['vae_enc_fwd']} and {sd3['vae_enc_bwd']}) and SDXL at "
        f"{sides[2]} ({sdxl['unet_fwd']}, {sdxl['vae_enc_fwd']} and {sdxl['vae_enc_bwd']})."
    )


def equal_work(_shop: Workshop, _old: str) -> str:
    """docs/experiments.md: the steps of each method with the work of one TraCe run."""
    order = ("SDS", "VSD", "CSD", "SDI", "ISM", "Consistent3D", "TraCe", "Dreamer XL (SDXL, 1024 px)")
    costs = [cost_of(f"{EQUAL_WORK[name]} budget=equal_work") for name in order]
    (target,) = {round(cost.target or 0) for cost in costs}
    return "\n".join(
        [
            f"On SD 2.1 and 3DGS this is {target:,} TFLOP per asset:",
            "",
            f"| | {' | '.join(order)} |",
            f"|---|{'---:|' * len(order)}",
            f"| steps × views | {' | '.join(f'{cost.steps} × {cost.views}' for cost in costs)} |",
        ]
    )


def gpu_hours(_shop: Workshop, _old: str) -> str:
    """docs/cluster.md: hours of an A100 for GPTEval3D, from the cost model."""
    rows, total = [], 0.0
    for name, overrides in SIX.items():
        cost = cost_of(overrides)
        hours = _hours(cost.tflop)
        total += hours
        pflop = cost.tflop / 1000
        rows.append(
            f"| {name} | {cost.steps} × {cost.views} | {pflop:.{0 if pflop >= 100 else 1}f} "
            f"| {60 * hours / PROMPTS:.1f} | {hours:.1f} |"
        )
    equal = sum(_hours(cost_of(f"{overrides} budget=equal_work").tflop) for overrides in SIX.values())
    hours_of = f"A100 hours, {PROMPTS} prompts"
    return "\n".join(
        [
            f"| method | steps × views | PFLOP per asset | minutes per asset | {hours_of} |",
            "|---|---:|---:|---:|---:|",
            *rows,
            f"| all six | | | | **{total:.0f}** |",
            "",
            f"`budget=equal_work` gives all six TraCe's budget: about {equal:.0f} hours.",
        ]
    )


def _hours(tflop: float) -> float:
    """Of an A100, for all prompts."""
    return tflop * PROMPTS / (PEAK_TFLOP_PER_S * REACHED) / 3600
