"""Elo by Newton's method against 10,000 steps of Adam: `python -m benchmarks.elo`.

GPTEval3D's program minimises the same negative log-likelihood directly over the Elo scores, with Adam at
learning rate 0.1 for 10,000 steps and the anchor's gradient set to zero. This is a reimplementation from that
description, timed against ours in one run: 13 methods, 1,500 comparisons, one thread. Our time includes
counting the wins; Adam's does not. Prints CPU time, the ratio and the largest score difference; exit code 1
if the ratio is below 100.
"""

from __future__ import annotations

import statistics
import sys
import time

import numpy as np
import torch

from benchmarks.arguments import parser_of
from evaluation.gpteval3d.elo import Array, fit, win_matrix

METHODS, COMPARISONS, STEPS, RATE = 13, 1500, 10_000, 0.1
WANTED = 100.0
REPEATS = 200
Game = tuple[int, int, float]


def comparisons(seed: int = 0) -> list[Game]:
    """Games between random pairs with outcomes drawn from the model; one in ten is a draw."""
    rng = np.random.default_rng(seed)
    true = rng.normal(1000.0, 120.0, METHODS)
    games = []
    for _ in range(COMPARISONS):
        i, j = rng.choice(METHODS, 2, replace=False)
        wins = rng.random() < 1.0 / (1.0 + 10.0 ** ((true[j] - true[i]) / 400.0))
        games.append((int(i), int(j), 0.0 if rng.random() < 0.1 else (-1.0 if wins else 1.0)))
    return games


def adam(wins: Array, steps: int = STEPS) -> Array:
    """Scores [M] after `steps` steps from 1000; the first one stays fixed."""
    counts = torch.from_numpy(np.asarray(wins, np.float64))
    elo = torch.full((len(wins),), 1000.0, dtype=torch.float64, requires_grad=True)
    free = torch.ones(len(wins), dtype=torch.float64)
    free[0] = 0.0
    optimiser = torch.optim.Adam([elo], lr=RATE)
    for _ in range(steps):
        optimiser.zero_grad()
        difference = elo[None, :] - elo[:, None]
        loss = (counts * torch.log(1.0 + 10.0 ** (difference / 400.0))).sum()
        loss.backward()
        if elo.grad is not None:
            elo.grad *= free
        optimiser.step()
    return elo.detach().numpy()


def main() -> int:
    parser_of("elo", __doc__).parse_args()
    torch.set_num_threads(1)
    games = comparisons()
    newton_s = []
    for _ in range(REPEATS):
        began = time.process_time()
        newton = fit(win_matrix(games, METHODS)[None], {0: 1000.0}).elo[0]
        newton_s.append(time.process_time() - began)
    wins = win_matrix(games, METHODS)
    began = time.process_time()
    stepped = adam(wins)
    adam_s = time.process_time() - began
    ratio = adam_s / statistics.median(newton_s)
    print(f"{METHODS} methods, {COMPARISONS} comparisons")
    print(f"ours, median of {REPEATS}:  {1e3 * statistics.median(newton_s):9.3f} ms")
    print(f"Adam, {STEPS:,} steps: {1e3 * adam_s:9.1f} ms")
    print(f"ratio: {ratio:,.0f}; largest score difference: {np.abs(newton - stepped).max():.1e} Elo")
    return 0 if ratio >= WANTED else 1


if __name__ == "__main__":
    sys.exit(main())
