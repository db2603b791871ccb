"""A real browser for the pages; skipped where playwright or Chromium is not installed.

The environment variable CHROMIUM names another Chromium.
"""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
SOFTWARE_GL = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")


@contextmanager
def chromium() -> Iterator[Any]:
    """A headless browser."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium, or name one with CHROMIUM=")
    with sync_api.sync_playwright() as playwright:
        # no sandbox: CI runs as root, and the page is ours
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *SOFTWARE_GL])
        yield made
        made.close()


@contextmanager
def opened(browser: Any, complaints: list[str], **settings: Any) -> Iterator[Any]:
    """A reader's browser; console errors, failed loads and requests to other servers are complaints."""
    made = browser.new_context(**settings)
    made.set_default_timeout(30_000)
    made.on("weberror", lambda error: complaints.append(str(error.error)))
    made.on("console", lambda message: complaints.append(message.text) if is_complaint(message) else None)
    made.on("request", lambda request: None if is_own(request.url) else complaints.append(request.url))
    yield made
    made.close()


def is_own(url: str) -> bool:
    return url.startswith(("file://", "http://127.0.0.1", "data:", "blob:"))


def is_complaint(message: Any) -> bool:
    """Software GL is slow, and Chromium says so."""
    is_about_gl = "GPU stall" in message.text or "swiftshader" in message.text.lower()
    return message.type in {"error", "warning"} and not is_about_gl


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: Any) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The page of a folder behind a simple HTTP server."""
    handler = functools.partial(QuietHandler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/index.html"
    server.shutdown()
    server.server_close()
    thread.join()


def wait_until(page: Any, expression: str, seconds: float = 60.0) -> None:
    """Playwright's own wait evaluates strings in the page, which the page's policy forbids."""
    end = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < end, f"still not: {expression}"
        page.wait_for_timeout(30)
