"""The judge's settings, their checks, and the subset that identifies a judge."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from evaluation.gpteval3d import mosaic
from trace_bench.system.errors import TraceBenchError


@dataclass(frozen=True)
class JudgeSettings:
    """The keys of conf/judge/openai.yaml, which explains them."""

    model: str
    base_url: str | None = None
    api_key_env: str | None = None
    returned: str | None = None
    choices: int = 3
    temperature: float | None = None
    seed: int | None = None
    max_output_tokens: int = 2048
    max_output_tokens_field: str = "max_completion_tokens"
    detail: str = "auto"
    tile_px: int = 512
    extra_body: Mapping[str, Any] | None = None
    concurrency: int = 8
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    timeout_s: float = 180.0
    retries: int = 8
    backoff_s: float = 1.0
    backoff_max_s: float = 60.0
    batch: bool = False
    batch_wait_s: float = 600.0
    batch_tokens: int | None = None

    @staticmethod
    def from_config(node: Mapping[str, Any]) -> JudgeSettings:
        known = {field.name for field in fields(JudgeSettings)}
        settings = JudgeSettings(**{key: value for key, value in node.items() if key in known})
        wrong = [
            name
            for name in ("choices", "max_output_tokens", "tile_px", "concurrency", "timeout_s")
            if not getattr(settings, name) > 0
        ]
        wrong += [
            n
            for n in ("retries", "backoff_s", "backoff_max_s", "batch_wait_s")
            if not getattr(settings, n) >= 0
        ]
        if wrong:
            raise TraceBenchError(f"judge.{wrong[0]}={getattr(settings, wrong[0])} is out of range.")
        return settings

    def request(self, attempt: int) -> dict[str, Any]:
        """Arguments of a request other than messages and n; the seed changes with each attempt."""
        arguments: dict[str, Any] = {"model": self.model}
        if self.temperature is not None:
            arguments["temperature"] = self.temperature
        if self.seed is not None:
            arguments["seed"] = self.seed + attempt
        extra = dict(self.extra_body or {}) | {self.max_output_tokens_field: self.max_output_tokens}
        return arguments | {"extra_body": extra}

    def identity(self, instructions: str) -> dict[str, Any]:
        """Everything that makes answers comparable; excludes the server's address and rate limits.

        `instructions` is the name of the instruction set; each question's key includes its own text.
        """
        sampling = ("model", "choices", "temperature", "seed", "detail", "tile_px", "extra_body")
        own = {name: getattr(self, name) for name in sampling}
        return own | {"instructions": instructions, "layout": mosaic.LAYOUT}


def identity_hash(identity: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True, default=dict).encode()).hexdigest()


def folder_name(name: str, identity: Mapping[str, Any]) -> str:
    """The judge's folder: its name as a slug, plus eight digits of the identity hash."""
    slug = re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.")[:60] or "judge"
    return f"{slug}-{identity_hash(identity)[:8]}"
