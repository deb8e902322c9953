"""The Studio's section Grids with many grids and a large one: the server's CPU time of each answer, and Chromium's first cells.

    OMP_NUM_THREADS=1 python -m bench.studio.grids FOLDER [--grids 1000] [--cells 2000] [--side 512]

FOLDER gets runs/ with that many small grids and one large one, and keeps them for the next run. Answers are asked in this process, by
`time.process_time`: the median of 9. The builder's plan is that of its warm process, `resource` of the child.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import statistics
import threading
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

from bench.report.run import READY, made_gallery
from infer.output.report import write_report
from loraloom.studio.context import Studio
from loraloom.studio.grids import listing, viewing
from loraloom.studio.grids.building import Form, planned, planner

ROUNDS = 9


def make(folder: Path, grids: int, cells: int, side: int) -> Path:
    """The grids; gives the folder of the large one."""
    large = folder / "runs" / "large" / "20260101-000000"
    if not (large / "result.json").is_file():
        shutil.rmtree(large, ignore_errors=True)
        large.mkdir(parents=True)
        found = made_gallery(large, cells, side)
        write_report(large / "report.html", found, single_file=False)
        lines = [
            {
                "key": one.key,
                "render": {},
                "image": f"images/{one.path.name}",
                "status": one.status,
                "seconds": 1.0,
                "scores": {},
                "axes": {},
            }
            for one in found.images
            if one.path is not None
        ]
        (large / "cells.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        (large / "config.yaml").write_text("base: base\naxes: {seed: [1, 2]}\n")
        (large / "result.json").write_text(json.dumps({"cells": cells, "failed": 0, "missing": 0, "seconds": 1.0}))
    small = drawn_small(large / "images" / "0.png")
    for number in range(grids):
        one = folder / "runs" / f"small-{number}" / "20250101-000000"
        if not one.is_dir():
            (one / "images").mkdir(parents=True)
            (one / "images/0.png").write_bytes(small)
            for name, text in (("report.html", ""), ("config.yaml", "base: pocket\naxes: {seed: [1, 2, 3]}\n")):
                (one / name).write_text(text)
            (one / "cells.jsonl").write_text('{"image": "images/0.png", "status": "rendered"}\n')
            (one / "result.json").write_text('{"cells": 1, "failed": 0, "missing": 0, "seconds": 1.0}')
    return large


def drawn_small(path: Path) -> bytes:
    """The image at 64 pixels."""
    from PIL import Image

    whole = io.BytesIO()
    with Image.open(path) as opened:
        opened.resize((64, 64)).save(whole, "PNG")
    return whole.getvalue()


def cpu(act: Callable[[], Any]) -> float:
    """Milliseconds of CPU of this process, the median."""
    times = []
    for _ in range(ROUNDS):
        began = process_time()
        act()
        times.append(1000 * (process_time() - began))
    return statistics.median(times)


def child_seconds(process: Any) -> float:
    """User and system seconds of a running process."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def answers(studio: Studio, large: Path) -> dict[str, float]:
    """Milliseconds of CPU of each answer."""
    found: dict[str, float] = {}
    began = process_time()
    listing.Listing(studio.roots).page(0, 24)
    found["list, the first time"] = 1000 * (process_time() - began)
    kept = listing.listing_of(studio)
    kept.page(0, 24)
    found["list, a page"] = cpu(lambda: kept.page(24, 24))
    kept.page(0, 24, search="small")
    found["list, searched"] = cpu(lambda: kept.page(0, 24, search="small seed"))
    found["topic, once a second"] = cpu(kept.state)
    viewing.viewer(large)
    found["viewer"] = cpu(lambda: viewing.viewer(large))
    found["viewer's KiB"] = len(viewing.viewer(large).data) / 1024
    form = Form(values={"steps": "8"}, axes={"prompt": ["a cat", "a dog"], "seed": ["1-3"]})
    for _ in range(3):
        planned(studio, form, page="", number=0)
    process = planner(studio)._process
    before, own = child_seconds(process), process_time()
    for _ in range(20):
        assert planned(studio, form, page="", number=0).plan["cells"] == 6
    found["plan of 6 cells of the embedded base, warm"] = 1000 * (child_seconds(process) - before + process_time() - own) / 20
    planner(studio).close()
    return found


def in_chromium(studio: Studio, large: Path) -> dict[str, float]:
    """Milliseconds of wall time from the address until the first grids, and the first cells of the large one, are seen; the best of 3."""
    import asyncio
    from urllib.parse import urlencode

    from playwright.sync_api import sync_playwright

    from loraloom.studio.guard import Guard
    from loraloom.studio.server import listening, serve

    guard, place, ready, loop = Guard(), listening(0), threading.Event(), asyncio.new_event_loop()
    task: list[asyncio.Task[None]] = []

    def work() -> None:
        task.append(loop.create_task(serve(studio, guard, place, ready.set)))
        with_end = asyncio.gather(*task, return_exceptions=True)
        loop.run_until_complete(with_end)

    thread = threading.Thread(target=work)
    thread.start()
    ready.wait()
    base = f"http://127.0.0.1:{place.getsockname()[1]}/{guard.token}/"
    found: dict[str, float] = {}
    with sync_playwright() as playwright:
        program = os.environ.get("LORALOOM_CHROMIUM") or shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        for _ in range(3):
            page = browser.new_page(viewport={"width": 1400, "height": 900})
            began = perf_counter()
            page.goto(f"{base}#/grids")
            page.locator(".grid-card").first.wait_for()
            found["list"] = min(found.get("list", 1e9), 1000 * (perf_counter() - began))
            began = perf_counter()
            page.goto(f"{base}#/grids/grid?{urlencode({'folder': str(large)})}")
            page.locator("iframe.grid-frame").wait_for()
            page.frame_locator("iframe.grid-frame").locator(".cell").first.wait_for()
            found["cells"] = min(found.get("cells", 1e9), 1000 * (perf_counter() - began))
            page.frames[-1].wait_for_function(READY)
            found["images of the window"] = min(found.get("images of the window", 1e9), 1000 * (perf_counter() - began))
            page.close()
        browser.close()
    loop.call_soon_threadsafe(task[0].cancel)
    thread.join()
    return found


def main() -> None:
    """Make, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--grids", type=int, default=1000)
    parser.add_argument("--cells", type=int, default=2000)
    parser.add_argument("--side", type=int, default=512)
    given = parser.parse_args()
    folder = given.folder.absolute()
    large = make(folder, given.grids, given.cells, given.side)
    studio = Studio(folder=folder, roots=[folder])
    for name, number in answers(studio, large).items():
        print(f"{name:45} {number:9.1f}{'' if 'KiB' in name else ' ms of CPU'}")
    for name, number in in_chromium(studio, large).items():
        print(f"{'Chromium: ' + name:45} {number:9.1f} ms")


if __name__ == "__main__":
    main()
