"""The Studio's pictures in README and docs, photographed in Chromium.

    LORALOOM_HOME=WORK/home python -m bench.studio.pictures WORK

WORK is what `python -m bench.pictures --work WORK` left: its runs and grids are what is shown.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

IMAGES = Path(__file__).parents[2] / "docs" / "images"
SIZE = {"width": 1400, "height": 900}


def photograph(page: Page, address: str) -> None:
    """The page of a run, and the models."""
    page.goto(f"{address}#/runs")
    page.get_by_role("link", name="ink", exact=True).first.click()
    page.get_by_text("Images by step").wait_for()
    page.wait_for_timeout(1500)
    page.screenshot(path=IMAGES / "studio-run.png")
    page.goto(f"{address}#/grids")
    page.get_by_text("compare", exact=True).first.wait_for()
    page.wait_for_timeout(1500)
    page.screenshot(path=IMAGES / "studio-grids.png")


def main() -> None:
    """Serve, and photograph."""
    server = subprocess.Popen([sys.executable, "-m", "loraloom", "studio", sys.argv[1]], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        with sync_playwright() as playwright:
            options = ["--no-sandbox", "--disable-gpu", "--no-first-run"]
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=options)
            photograph(browser.new_page(viewport=SIZE, color_scheme="light"), address)
            browser.close()
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
