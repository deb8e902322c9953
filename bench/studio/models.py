"""The section Models over a home's index: CPU seconds of its answers, and Chromium's first paint and first cards.

python bench/registry/library.py /tmp/library --adapters 10000 --different
LORALOOM_HOME=/tmp/home python -m loraloom registry scan /tmp/library
LORALOOM_HOME=/tmp/home python bench/studio/models.py
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import process_time

from loraloom.studio.context import Studio
from loraloom.studio.models.routes import ROUTES
from loraloom.studio.routes import Ask
from registry.home import home_dir
from tests.loraloom.studio.opened import serving

ROUNDS = 7
QUESTIONS: dict[str, tuple[str, dict[str, object]]] = {
    "first page of 60": ("models/list", {}),
    "last page, by name": ("models/list", {"sort": "name", "offset": 9960}),
    "filtered by kind, family and rank": ("models/list", {"kind": "adapter", "family": "sd1", "rank": "16"}),
    "search that finds one": ("models/list", {"words": ["adapter-00777"]}),
    "search that finds all by their names": ("models/list", {"words": ["adapter"]}),
    "search that finds all by their paths": ("models/list", {"words": ["safetensors"]}),
    "ids of all": ("models/ids", {}),
    "topic `models`": ("", {}),
}
ONES = ("models/one", "models/lineage", "models/partners")


def milliseconds(work: Callable[[], object]) -> float:
    """CPU milliseconds, median of the rounds after one that opens the index."""
    work()
    found = []
    for _ in range(ROUNDS):
        began = process_time()
        json.dumps(work())
        found.append((process_time() - began) * 1e3)
    return statistics.median(found)


def asked(studio: Studio, path: str, values: dict[str, object]) -> float:
    """CPU milliseconds of one answer; no path is the topic."""
    if not path:
        return milliseconds(lambda: ROUTES.topics["models"](studio, ""))
    return milliseconds(lambda: ROUTES.table[path].answer(studio, Ask(values)))


def answers(studio: Studio) -> None:
    """Print a row for each question."""
    print("| answer | CPU ms |\n|---|---|")
    record = studio.store.find("adapter-00777", fresh=False)
    ones: dict[str, tuple[str, dict[str, object]]] = {path: (path, {"id": record.id}) for path in ONES}
    for name, (path, values) in {**QUESTIONS, **ones}.items():
        print(f"| {name} | {asked(studio, path, values):.1f} |", flush=True)


def pages(folder: Path) -> None:
    """Print Chromium's first contentful paint, and when the first cards are there, in milliseconds since the navigation began."""
    from playwright.sync_api import sync_playwright

    chromium = os.environ.get("LORALOOM_CHROMIUM") or shutil.which("chromium")
    paint = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
    print("\n| page | first paint ms | cards ms |\n|---|---|---|")
    with serving(folder) as served, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu", "--no-first-run"])
        for name, address, card in (("cards", "", ".model-card"), ("table", "?view=table", ".models-table tbody tr")):
            found = []
            for _ in range(3):
                page = browser.new_page(viewport={"width": 1400, "height": 900})
                page.goto(f"{served.address}#/models{address}")
                page.locator(card).first.wait_for()
                found.append((page.evaluate(paint), page.evaluate("performance.now()")))
                page.close()
            first, cards = (statistics.median(column) for column in zip(*found, strict=True))
            print(f"| {name} | {first:.0f} | {cards:.0f} |", flush=True)


def main() -> None:
    """Measure the home's index."""
    with tempfile.TemporaryDirectory() as folder:
        studio = Studio(folder=Path(folder), roots=[Path(folder)])
        print(f"{studio.store.count():,} records in {home_dir()}\n")
        answers(studio)
        pages(Path(folder))


if __name__ == "__main__":
    main()
