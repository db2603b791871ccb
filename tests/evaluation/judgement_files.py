"""Files of tournaments and user studies, as written to an output root."""

from __future__ import annotations

import json


def elo_file(root, rows, *, judge="gpt-4o-abc", kind="openai", prompts=110, **tournament):
    """gpteval3d/<judge>/elo.json with rows (method, criterion, elo, half interval)."""
    common = {
        "name": "t", "mode": "tournament", "prompt_set": "toy", "prior": "tiny", "seed": 0,
        "prompts": prompts, "complete": True, "caption": "Judged.", "notes": [], "anchor": None,
        "statistics": {},
    }  # fmt: skip
    made = [
        {
            "contestant": method, "method": method, "representation": "gaussians", "settings": {},
            "criterion": criterion, "elo": elo, "ci_low": elo - half, "ci_high": elo + half, "comparisons": 9,
            "wins": 1, "draws": 1, "losses": 1, "frozen": False, "regularised": method == "vsd", "note": None,
        }
        for method, criterion, elo, half in rows
    ]  # fmt: skip
    content = {
        "schema_version": 1,
        "judge": {"id": judge, "kind": kind, "name": f"{judge} as returned", "instructions": "own 1"},
        "tournaments": [common | tournament | {"rows": made}],
    }
    path = root / "gpteval3d" / judge / "elo.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(content))
    return path


def preferences(root, ours=(60.0, 24.0, 16.0)):
    def rows():
        for aspect in ("consistency", "fidelity", "photorealism"):
            share = {
                name: {"value": value, "low": value - 5, "high": value + 5}
                for name, value in zip(("ours", "tie", "baseline"), ours, strict=True)
            }
            yield {
                "aspect": aspect, "baseline": "sds", "votes": 50, "raters": 5, "prompts": 10,
                "percent": share, "decided": {"sign_test_p": 0.01},
            }  # fmt: skip

    content = {
        "schema_version": 2, "study": "s1", "ours": "trace", "prompt_set": "toy", "prior": "tiny",
        "representation": "gaussians", "raters": {"used": 5}, "rows": list(rows()),
    }  # fmt: skip
    path = root / "user_study" / "s1" / "preferences.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(content))
