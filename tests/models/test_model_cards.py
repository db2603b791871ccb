"""What the model cards are made from: logs of the training, and the view judge's verdicts."""

from __future__ import annotations

import json

import pytest

from scripts.tiny_prior.cards import _minutes
from scripts.tiny_prior.common import Settings
from scripts.tiny_prior.view_judge import obeys


def test_minutes_of_a_stage_leave_out_pauses_and_interruptions(tmp_path):
    """400 steps of 0.3 s, with a pause of an hour, and a restart from step 250."""
    steps = [(0, 0.0), (100, 30.0), (200, 60.0), (300, 3690.0), (250, 9000.0), (350, 9030.0), (400, 9045.0)]
    entries = [{"time": time, "step": step, "seconds_per_step": 99.0} for step, time in steps]
    lines = [{"time": 0.0, "event": "start", "step": 0}, *entries, {"time": 9999.0, "event": "done"}]
    (tmp_path / "unet.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert _minutes(Settings(tmp_path, tmp_path), "unet") == pytest.approx(400 * 0.3 / 60)


@pytest.mark.parametrize(
    ("azimuth", "elevation", "right"),
    [
        (0.0, 15.0, {"front"}),
        (50.0, 15.0, {"front", "side"}),  # within 10 degrees of the border at 45
        (-90.0, 15.0, {"side"}),
        (-130.0, 15.0, {"side", "back"}),
        (180.0, 15.0, {"back"}),
        (20.0, 57.0, {"front", "overhead"}),  # within 5 degrees of the border at 60
        (20.0, 80.0, {"overhead"}),
    ],
)
def test_at_a_border_both_phrases_are_right(azimuth, elevation, right):
    phrases = ("front", "side", "back", "overhead")
    assert {p for p in phrases if obeys(f"{p} view", azimuth, elevation)} == right
