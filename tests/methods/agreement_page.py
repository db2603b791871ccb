"""Writes the tables of docs/agreement.md from a replay of all recorded cases: `make agreement`."""

from __future__ import annotations

import re
from pathlib import Path

from published import CASES, INDEX, largest, replay

PAGE = Path(__file__).parents[2] / "docs" / "agreement.md"
BEGIN, END = "<!-- tables: make agreement -->\n", "<!-- end of tables -->\n"
QUANTITIES = {
    "grad": "dL/dz",
    "lora_loss": "loss of the LoRA",
    "adapter_after": "adapter's weights after each AdamW step",
    "adapter_grad": "adapter's gradients",
}
#: Differences that are meant: what the peer does, and trace_bench does not.
WHY = {
    "take_v_as_epsilon": "The code takes the UNet's output for noise, even where the scheduler says "
    "`v_prediction`. trace_bench converts v to noise. If the same checkpoint is declared an epsilon model, "
    "the two agree.",
    "alternate_pooled": "The code repeats the pooled vectors [negative, empty] over the views, so every "
    "second view is inverted with the negative one. trace_bench gives the empty one to all views. If it "
    "alternates too, the two agree.",
}
_ROW = re.compile(r"^\| `([^`]+)` \| ([^|]+) \| \d+ \| ([\d.e-]+) \| ([\d.e-]+) \|$", re.MULTILINE)


def listed(page):
    """What the page says of each case and quantity: the error and the tolerance."""
    names = {title: quantity for quantity, title in QUANTITIES.items()}
    return {(case, names[title]): (float(e), float(t)) for case, title, e, t in _ROW.findall(page)}


def table(head, rows):
    """A Markdown table; the last two columns of numbers are right-aligned where the head says so."""
    rule = ["---:" if title.endswith("error") or title in ("Steps", "Tolerance") else "---" for title in head]
    lines = [head, rule, *rows]
    return "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in lines) + "\n"


def is_exact(case):
    """Whether the peer computed in double precision throughout and means what trace_bench means."""
    return "differs_by" not in case and "float32_schedule" not in case["name"]


def by_code(errors):
    """One row for each peer and quantity, over its exact cases."""
    rows = []
    for name, peer in INDEX["peers"].items():
        cases = [case for case in CASES.values() if case["peer"] == name and is_exact(case)]
        for quantity in errors[cases[0]["name"]]:
            worst = max(cases, key=lambda case: errors[case["name"]][quantity])
            url = f"{peer['repository']}/blob/{peer['commit']}/{peer['file']}"
            repository = peer["repository"].removeprefix("https://github.com/")
            rows.append(
                (
                    cases[0]["method"],
                    f"[{repository}]({peer['repository']})",
                    f"`{peer['commit'][:10]}`",
                    f"[{Path(peer['file']).name}]({url})",
                    QUANTITIES[quantity],
                    f"{errors[worst['name']][quantity]:.1e}",
                    f"{worst['tolerance'][quantity]:.0e}",
                )
            )
    head = ("Method", "Repository", "Commit", "File", "Compared", "Largest relative error", "Tolerance")
    return table(head, rows)


def by_case(errors):
    """One row for each case and quantity."""
    rows = [
        (
            f"`{name}`",
            QUANTITIES[quantity],
            len(CASES[name]["steps"]),
            f"{error:.1e}",
            f"{CASES[name]['tolerance'][quantity]:.0e}",
        )
        for name, found in errors.items()
        for quantity, error in found.items()
    ]
    return table(("Case", "Compared", "Steps", "Largest relative error", "Tolerance"), rows)


def differences():
    """The cases that differ on purpose, with the range of errors over their steps and the reason."""
    parts = []
    for reason, text in WHY.items():
        rows = []
        for name, case in CASES.items():
            if case.get("differs_by") == reason:
                found = [step.errors["grad"] for step in replay(case, as_published=False)]
                rows.append((f"`{name}`", f"{min(found):.2g} to {max(found):.2g}"))
        parts.append(f"{text}\n\n" + table(("Case", "Relative error"), rows))
    return "\n".join(parts)


def tables():
    """The generated part of the page."""
    errors = {name: largest(list(replay(case))) for name, case in CASES.items()}
    return (
        "### By code\n\nOnly cases in double precision, without a difference on purpose.\n\n"
        f"{by_code(errors)}\n"
        "### By case\n\nCases in `Known differences` are listed here with the difference undone.\n\n"
        f"{by_case(errors)}\n"
        f"### Known differences\n\n{differences()}"
    )


def main():
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n{tables()}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
