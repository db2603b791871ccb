"""Rate limits: requests and tokens per minute, and the waits that the server asks for."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


class RateLimit:
    """Spaces requests evenly; a pause delays all of them."""

    def __init__(self, requests_per_minute: float | None, tokens_per_minute: float | None) -> None:
        self._request_s = 60.0 / requests_per_minute if requests_per_minute else 0.0
        self._token_s = 60.0 / tokens_per_minute if tokens_per_minute else 0.0
        self._free_at = 0.0

    def reserve(self, tokens: float) -> float:
        """Reserve a slot for a request of this many tokens; returns the seconds to wait."""
        now = time.monotonic()
        start = max(now, self._free_at)
        self._free_at = start + max(self._request_s, tokens * self._token_s)
        return start - now

    def pause(self, seconds: float) -> None:
        """Send nothing for this long."""
        self._free_at = max(self._free_at, time.monotonic() + seconds)


async def sleep_unless(stop: asyncio.Event, seconds: float) -> None:
    """Wait, but return at once if `stop` is set."""
    if seconds > 0:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), seconds)


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds the server asks to wait; 0 if the header is missing or unreadable."""
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
