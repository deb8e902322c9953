"""The section Data of the Studio with a large set: CPU time of the server's answers, and when Chromium paints.

    python -m bench.studio.data FOLDER [NUMBER]      a set of so many images (2,000) is written to FOLDER/large, once

CPU times are the least of five in this process (the first of each is given too: it reads the set), paints those of a new page on a
warm server.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import quote

from PIL import Image
from playwright.sync_api import sync_playwright

from loraloom.studio.context import Studio
from loraloom.studio.data import routes
from loraloom.studio.routes import Ask
from tests.loraloom.studio.opened import serving

SIDE = 512
PAINT = "() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? -1"


def write_set(folder: Path, number: int) -> Path:
    """A set of images that differ in one pixel, with tags as captions."""
    place = folder / "large"
    if not place.is_dir():
        place.mkdir(parents=True)
        image = Image.radial_gradient("L").resize((SIDE, SIDE)).convert("RGB")
        for one in range(number):
            image.putpixel((one % SIDE, one // SIDE), (one % 256, 3, 7))
            image.save(place / f"{one:05}.jpg", quality=85)
            (place / f"{one:05}.txt").write_text(f"sks, tag{one % 17}, tag{one % 31}, number {one}\n")
    return place


def cpu_ms(call: Callable[[], object]) -> tuple[float, float]:
    """(the first, the least of five after it), milliseconds of CPU."""
    taken = []
    for _ in range(6):
        begin = time.process_time()
        call()
        taken.append(1000 * (time.process_time() - begin))
    return taken[0], min(taken[1:])


def main() -> None:
    folder = Path(sys.argv[1]).absolute()
    place = write_set(folder, int(sys.argv[2]) if len(sys.argv) > 2 else 2000)
    studio = Studio(folder=folder, roots=[folder], home=folder / "home")
    own = {"set": str(place)}
    asked: Mapping[str, tuple[Callable[[Studio, Ask], object], Ask]] = {
        "list of sets": (routes.sets, Ask({})),
        "a page of the set": (routes.one_set, Ask(own)),
        "a page with crops": (routes.one_set, Ask({**own, "resolution": "512"})),
        "buckets": (routes.buckets, Ask({**own, "resolution": "512"})),
        "preview of an edit": (routes.plan, Ask({**own, "kind": "operation", "operation": "remove", "tag": "sks"})),
        "whether it changed": (lambda studio, ask: routes.set_state(studio, ask.text("set")), Ask(own)),
    }
    for name, (route, ask) in asked.items():
        first, least = cpu_ms(lambda route=route, ask=ask: route(studio, ask))  # type: ignore[misc]
        print(f"{name:22} {first:7.0f} ms, then {least:6.1f} ms")
    with sync_playwright() as playwright, serving(folder, home=folder / "home") as served:
        path = os.environ.get("LORALOOM_CHROMIUM") or shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu", "--no-first-run"])
        for _ in range(5):
            page = browser.new_page(viewport={"width": 1400, "height": 900})
            page.goto(f"{served.address}#/data/{quote(str(place), safe='')}")
            page.wait_for_selector(".row")
            print(f"first paint {page.evaluate(PAINT):6.0f} ms, images listed {page.evaluate('performance.now()'):6.0f} ms (wall)")
            page.close()
        browser.close()


if __name__ == "__main__":
    main()
