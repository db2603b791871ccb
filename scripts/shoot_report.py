"""Take the screenshots of a report that docs/report.md shows: docs/images/report_*.png.

    python scripts/shoot_report.py outputs/report docs/images

Needs playwright (a developers' package) and a Chromium; the environment variable CHROMIUM names another one.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from PIL import Image

from trace_bench.system.errors import TraceBenchError
from trace_bench.system.files import write_atomic

SIZE, SHOWN_PX, COLOURS = (1440, 790), 960, 128
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SOFTWARE_GL = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
#: The run with the best first score.
BEST = (
    "data.runs.filter((run) => run.panel === 0)"
    ".reduce((best, run) => ((run.scores[0] ?? -1) > (best.scores[0] ?? -1) ? run : best)).id"
)
#: Pictures outside the window load later.
LOADED = (
    "[...document.images].filter((image) => {"
    " const box = image.getBoundingClientRect();"
    " return box.top < innerHeight && box.left < innerWidth; }"
    ").every((image) => image.complete)"
)
STILL = "current.player?.turn(0.1), true"


def shoot(report: Path, folder: Path) -> list[Path]:
    """Write report_overview.png, report_gallery.png and report_run.png; returns their paths."""
    page_file = report / "index.html"
    if not page_file.is_file():
        raise TraceBenchError(f"{report} is no report: make one with `python -m evaluation.report`.")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise TraceBenchError("Screenshots need playwright: `make install-dev` installs it.") from None
    browser = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if browser is None:
        raise TraceBenchError("There is no Chromium here: install it, or name one with CHROMIUM=.")
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with sync_playwright() as playwright:
        # no sandbox: it is missing in containers, and the page is ours
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox", *SOFTWARE_GL])
        page = chromium.new_page(
            viewport={"width": SIZE[0], "height": SIZE[1]}, color_scheme="light", reduced_motion="reduce"
        )
        page.goto(f"{page_file.resolve().as_uri()}#overview")
        run = page.evaluate(BEST)
        for name, place in (("overview", "overview"), ("gallery", "gallery"), ("run", f"run={run}")):
            page.goto(f"{page_file.resolve().as_uri()}#{place}")
            page.locator("h1").first.wait_for(state="attached")
            if name == "run":
                _open_3d(page)
            _wait(page, LOADED)
            path = folder / f"report_{name}.png"
            write_atomic(path, _small(page.screenshot()))
            written.append(path)
        chromium.close()
    return written


def _open_3d(page: Any) -> None:
    """Open the 3D view, where there is one, and show the turntable from the front."""
    if page.locator("#open-3d").count():
        page.locator("#open-3d").click()
        _wait(page, "current.view?.ready === true")
        _wait_drawn(page)
    _wait(page, "[...document.querySelectorAll('.stage video')].every((video) => video.readyState >= 3)")
    page.evaluate(STILL)
    _wait(page, "[...document.querySelectorAll('.stage video')].every((video) => !video.seeking)")


def _wait(page: Any, expression: str, seconds: float = 60.0) -> None:
    """Playwright's own wait evaluates strings in the page, which the page's policy forbids."""
    end = time.monotonic() + seconds
    while not page.evaluate(expression):
        if time.monotonic() > end:
            raise TraceBenchError(f"The report's page is not ready after {seconds:.0f} s: {expression}.")
        page.wait_for_timeout(50)


def _wait_drawn(page: Any, seconds: float = 120.0) -> None:
    """Wait until the 3D view shows something; without a GPU this takes a while."""
    end = time.monotonic() + seconds
    shades = 1
    while shades < 30:
        if time.monotonic() > end:
            raise TraceBenchError(f"The 3D view is still empty after {seconds:.0f} s.")
        page.wait_for_timeout(300)
        with Image.open(io.BytesIO(page.locator(".view3d canvas").screenshot())) as image:
            shades = len(image.convert("L").getcolors() or ())
    page.wait_for_timeout(1000)  # splats in their final order


def _small(png: bytes) -> bytes:
    """Scaled down, with few colours."""
    with Image.open(io.BytesIO(png)) as image:
        height = round(image.height * SHOWN_PX / image.width)
        shown = image.convert("RGB").resize((SHOWN_PX, height), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    few = shown.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, kmeans=2, dither=Image.Dither.NONE)
    few.save(content, "PNG", optimize=True)
    return content.getvalue()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("report", type=Path, help="the folder that `python -m evaluation.report` made")
    parser.add_argument("folder", type=Path, help="where the pictures go")
    options = parser.parse_args()
    try:
        for made in shoot(options.report, options.folder):
            print(made)
    except TraceBenchError as error:
        sys.exit(f"shoot_report: {error}")
