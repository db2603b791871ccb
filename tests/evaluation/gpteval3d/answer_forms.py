"""Generated answers of judges: clear ones in many forms, and unclear ones, which nobody may guess."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence

NAMES = [
    "Text-asset alignment", "3D plausibility", "Texture-geometry coherency", "Texture details",
    "Geometry details", "Overall",
]  # fmt: skip
THOUGHTS = [
    "Object 1 is sharper; object 2 has 3 legs.",
    "1. Text: the left one has 2 wings.\n2. Shape: the right one.\n3. Overall: 50/50",
    "Score: 7/10 against 8/10.",
    'The prompt was "a cube\\"\\n\\nFinal answer:\\n1 1 1 1 1 1".',
    "Earlier I would have said 3 2 1.",
    '{"draft": [3, 3, 3]}',
    "| criterion | 1 | 2 |\n|---|---|---|\n| shape | x |  |",
    "<think>\nFinal answer: 2 2 2\n</think>",
    "\\boxed{x} is not used here.",
    "1 2 3",
    "Ответ ниже. 答案如下。",
    "",
]
COURTESIES = [
    "Thank you!", "Let me know if you have any questions.", "I hope this helps!",
    "Feel free to ask for more details.", "**Thanks for the interesting objects.**", "You're welcome.",
]  # fmt: skip
DOUBTS = [
    "Actually, the right one is better.", "Wait, I made a mistake.", "Correction: 3 3 3", "Or 2.",
    "Thanks, but not 1.", "Let me know if the other order is better: the left one", "P.S. 1 2",
    "However, it is close.", "Object 2 wins.",
]  # fmt: skip


def clear(rng: random.Random, decisions: Sequence[int]) -> str:
    """An answer from which everyone reads `decisions` (1, 2 or 3 for each criterion)."""
    numbers, count = [str(d) for d in decisions], len(decisions)
    line = rng.choice([" ", ", ", "; ", " / ", ",", "  "]).join(numbers)
    label = rng.choice(
        ["", "Final answer: ", "Final answer:\n", "**Final Answer:** ", "My final decision: ", "Verdict: "]
    )
    forms = [
        label + line,
        label + f"**{line}**",
        f"```\n{line}\n```",
        f"[{', '.join(numbers)}]",
        label
        + rng.choice(["\\boxed{%s}", "$\\boxed{%s}$", "$$\n\\boxed{%s}\n$$", "\\[\n\\boxed{%s}\n\\]"]) % line,
        f"The final answer is $\\boxed{{{line}}}$.",
        json.dumps({"reasoning": "1 or 2?", "answer": list(decisions)}, indent=rng.choice([None, 1, 2])),
        "```json\n" + json.dumps({"final_answer": line}) + "\n```",
        json.dumps(list(decisions), indent=1),
    ]
    if count >= 3:
        forms.append(json.dumps({str(i): d for i, d in enumerate(decisions, 1)}))
        mark = rng.choice([". ", ") ", ": "])
        name = rng.choice([lambda i: "", lambda i: f"{NAMES[i]}: ", lambda i: f"**{NAMES[i]}**: "])
        items = [f"{i + 1}{mark}{name(i)}{d}" for i, d in enumerate(decisions)]
        forms.append(rng.choice(["", "Final answer:\n"]) + "\n".join(items))
    form, thought = rng.choice(forms), rng.choice(THOUGHTS)
    courtesy = rng.choice(COURTESIES) if rng.random() < 0.3 else ""
    between = "\n" * rng.randint(1, 3)
    text = (thought + between if thought else "") + form + (between + courtesy if courtesy else "")
    return text.replace("\n", "\r\n") if rng.random() < 0.1 else text


def unclear(rng: random.Random, decisions: Sequence[int]) -> str:
    """An answer that has numbers, but not one clear decision for each criterion."""
    numbers, count = [str(d) for d in decisions], len(decisions)
    line, other = " ".join(numbers), " ".join(str(1 + d % 3) for d in decisions)
    forms = [
        line + "\n" + rng.choice(DOUBTS),
        f"{line} or {other}",
        f"{line} {rng.choice(numbers)}",
        f"I say {line}",
        f"{line} (left)",
        f"\\boxed{{{line}}} or \\boxed{{{other}}}",
        f"\\boxed{{{line}}} is wrong",
        json.dumps({"answer": list(decisions), "final_answer": [1 + d % 3 for d in decisions]}),
        f'{{"answer": [{", ".join(numbers)}], "answer": [{", ".join(other.split())}]}}',
        json.dumps({"confidence": list(decisions)}, indent=1),
        json.dumps([{"answer": d} for d in decisions], indent=1),
        json.dumps({"answer": [d + 0.5 for d in decisions]}),
        json.dumps({"answer": [True] * count}),
        json.dumps({"answer": {"object 1": decisions[0], "object 2": 2}}),
        '{"answer": [' + ", ".join(numbers),
        '{"a": 1,\n "b":\n [' + ", ".join(numbers) + "]}",
        "-".join(numbers) + "!" if count > 1 else "0" + numbers[0],
        "".join(numbers) + "4",
        "4 " * count,
        "The answer is not " + line,
        "…",
        "I cannot decide.",
    ]
    if count >= 3:
        items = [f"{i + 1}. {d}" for i, d in enumerate(decisions)]
        forms += [
            "\n".join([*items, f"{count + 1}. 1"]),
            "\n".join(items[::-1]),
            "\n".join(["0. 1", *items]),
            "\n".join([*items[:-1], f"{count}. the left object: {numbers[-1]}"]),
            json.dumps({str(i): d for i, d in enumerate(decisions)}),
            "\n".join(numbers[:-1]),
        ]
    return rng.choice(THOUGHTS) + "\n\n" + rng.choice(forms)
