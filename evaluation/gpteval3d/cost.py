"""Tokens and money: estimated before a tournament, reserved before a request, counted after an answer.

Pictures follow the tile rule of the GPT-4o family: fit into 2048 x 2048, scale the short side down to 768,
then count `image_base` + `image_tile` per started 512-pixel tile (detail=low: `image_base` alone). Text is
estimated at four bytes per token. The final cost uses the usage that the answers report.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from evaluation.gpteval3d import mosaic
from evaluation.gpteval3d.questions import Question
from trace_bench.system.errors import TraceBenchError

ANSWER_TOKENS = 250  # typical answer, for the estimate
_BYTES_PER_TOKEN = 4
_CAUTION = 2  # reserve this multiple of the estimated input tokens


@dataclass(frozen=True)
class Price:
    """USD per million tokens, and the token counts of pictures."""

    input: float | None
    output: float | None
    image_base: int = 85
    image_tile: int = 170

    factor: float = 1.0  # of the batch interface

    @staticmethod
    def of(model: str, prices: Mapping[str, Any], batch: bool = False) -> Price:
        """The entry with the longest name that is a prefix of the model's; without one, no price is known."""
        names = sorted((name for name in prices["models"] if model.startswith(name)), key=len)
        found = Price(**prices["models"][names[-1]]) if names else Price(None, None)
        return replace(found, factor=float(prices.get("batch", 1.0))) if batch else found

    def usd(self, tokens_in: float, tokens_out: float) -> float:
        """Cost in USD; 0 if no price is known."""
        return self.factor * ((self.input or 0.0) * tokens_in + (self.output or 0.0) * tokens_out) / 1e6

    @property
    def known(self) -> bool:
        return self.input is not None and self.output is not None


def image_tokens(width: int, height: int, detail: str, price: Price) -> int:
    """Input tokens of a picture."""
    if detail == "low":
        return price.image_base
    scale = min(1.0, 2048 / max(width, height))
    scale *= min(1.0, 768 / (min(width, height) * scale))
    tiles = math.ceil(round(width * scale, 6) / 512) * math.ceil(round(height * scale, 6) / 512)
    return price.image_base + price.image_tile * tiles


def input_tokens(question: Question, tile_px: int, detail: str, price: Price) -> int:
    """Estimated input tokens of one request."""
    text = sum(len(part.encode()) for part in question.texts())
    ensemble = question.ensemble
    size = mosaic.size(ensemble.views, ensemble.rgb, ensemble.normal, tile_px)
    return math.ceil(text / _BYTES_PER_TOKEN) + image_tokens(*size, detail, price)


def most_usd(tokens_in: int, choices: int, max_output_tokens: int, price: Price) -> float:
    """Maximum cost of a request."""
    return price.usd(_CAUTION * tokens_in, choices * max_output_tokens)


def counted(usage: Iterable[Mapping[str, Any]], price: Price) -> tuple[int, int, float]:
    """(input tokens, output tokens, USD) of stored answers."""
    tokens_in = tokens_out = 0
    for entry in usage:
        tokens_in += int(entry.get("prompt_tokens") or 0)
        tokens_out += int(entry.get("completion_tokens") or 0)
    return tokens_in, tokens_out, price.usd(tokens_in, tokens_out)


class Budget:
    """USD limit for a judge's answers, including earlier sessions."""

    def __init__(self, limit: float | None, price: Price, spent: float, model: str) -> None:
        if limit is not None and not price.known:
            raise TraceBenchError(
                f"budget={limit:g} is in USD, but the price of {model} is unknown: add it to "
                "judge.prices.models as {input: ..., output: ...}, in USD per million tokens."
            )
        if limit is not None and limit < 0:
            raise TraceBenchError(f"budget={limit:g} must not be negative.")
        self.limit, self.spent, self.reserved = limit, spent, 0.0

    def reserve(self, usd: float) -> bool:
        """Reserve money for a request; returns False if that could exceed the limit."""
        if self.limit is not None and self.spent + self.reserved + usd > self.limit:
            return False
        self.reserved += usd
        return True

    def settle(self, reserved: float, paid: float) -> None:
        """Replace a reserved amount by the actual cost."""
        self.reserved -= reserved
        self.spent += paid
