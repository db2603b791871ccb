"""How fast requests leave: so many requests and tokens a minute, and no faster than the server asks for."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


class RateLimit:
    """Spaces requests evenly; a pause holds all of them."""

    def __init__(self, requests_per_minute: float | None, tokens_per_minute: float | None) -> None:
        self._request_s = 60.0 / requests_per_minute if requests_per_minute else 0.0
        self._token_s = 60.0 / tokens_per_minute if tokens_per_minute else 0.0
        self._free_at = 0.0

    def reserve(self, tokens: float) -> float:
        """Seconds that a request of so many tokens has to wait; the time is taken."""
        now = time.monotonic()
        start = max(now, self._free_at)
        self._free_at = start + max(self._request_s, tokens * self._token_s)
        return start - now

    def pause(self, seconds: float) -> None:
        """Let nothing leave for a while."""
        self._free_at = max(self._free_at, time.monotonic() + seconds)


async def sleep_unless(stop: asyncio.Event, seconds: float) -> None:
    """Wait, or return at once when told to stop."""
    if seconds > 0:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), seconds)


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that a server asks to wait; 0 where it says nothing that can be read."""
    with contextlib.suppress(KeyError, ValueError):
        return max(0.0, float(headers["retry-after-ms"]) / 1000.0)
    value = headers.get("retry-after", "")
    with contextlib.suppress(ValueError):
        return max(0.0, float(value))
    with contextlib.suppress(ValueError, TypeError):
        when = parsedate_to_datetime(value)
        when = when if when.tzinfo else when.replace(tzinfo=UTC)
        return max(0.0, (when - datetime.now(UTC)).total_seconds())
    return 0.0
