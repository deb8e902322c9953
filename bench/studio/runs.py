"""The sections Runs and New run of the Studio: CPU time of the answers with many runs and a long one, of a plan, and Chromium's paints.

    OMP_NUM_THREADS=1 python -m bench.studio.runs FOLDER [NUMBER]      so many run folders (1,000) are written to FOLDER, once

CPU times are the least of five (the first of each is given too: it reads the files); of a plan that of the process that plans. Paints are
those of a new page on a warm server, until the list's rows are there.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import sync_playwright

from loraloom.data_files import data_dir
from loraloom.studio.context import Studio
from loraloom.studio.planning.planner import Planner
from loraloom.studio.routes import Ask
from loraloom.studio.runs import routes
from tests.loraloom.studio.opened import serving
from tests.loraloom.studio.runs.made import make_run
from train.loop.trackers import METRICS

STEPS = 100_000  # of the long run
PAINT = "() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? -1"


def write_runs(folder: Path, number: int) -> Path:
    """Run folders of forty names, and one of STEPS steps, whose folder this gives."""
    long = folder / "runs" / "long" / "20250101-000000"
    if not long.is_dir():
        one = make_run(folder, "long", "20250101-000000")
        for place in range(number):
            stamp = f"202601{1 + place % 28:02}-{place // 3600 % 24:02}{place // 60 % 60:02}{place % 60:02}"
            shutil.copytree(one, folder / "runs" / f"name{place % 40}" / stamp)
        rows = ({"step": step, "loss": 0.5 + 0.1 * math.sin(7 * step), "lr": 1e-4, "gradient_norm": 0.1} for step in range(1, STEPS + 1))
        (long / METRICS).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return long


def cpu_ms(call: Callable[[], object], clock: Callable[[], float] = time.process_time) -> tuple[float, float]:
    """(the first, the least of five after it), milliseconds of CPU."""
    taken = []
    for _ in range(6):
        begin = clock()
        call()
        taken.append(1000 * (clock() - begin))
    return taken[0], min(taken[1:])


def show(name: str, taken: tuple[float, float]) -> None:
    print(f"{name:44} first {taken[0]:8.1f} ms   then {taken[1]:7.1f} ms")


def plans(folder: Path, home: Path) -> None:
    """A plan of the set `ink` on the embedded base, with another number of steps each time."""
    planner = Planner.of("train", folder=folder, home=home)
    planner.describe()
    process = planner._process
    assert process is not None
    steps = iter(range(50, 100))

    def spent() -> float:
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    show(
        "plan of datasets/ink (the first imports torch)",
        cpu_ms(lambda: planner.plan([f"data.path={data_dir() / 'ink'}", f"steps={next(steps)}"]), spent),
    )
    planner.close()


def paints(folder: Path, home: Path) -> None:
    """First paint, and when the rows are there."""
    with serving(folder, home=home) as served, sync_playwright() as playwright:
        chromium = os.environ.get("LORALOOM_CHROMIUM") or shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        for _ in range(3):
            page = browser.new_page(viewport={"width": 1400, "height": 900})
            begin = time.perf_counter()
            page.goto(f"{served.address}#/runs")
            page.locator(".runs-table tbody tr").first.wait_for()
            print(f"Chromium: first paint {page.evaluate(PAINT):.0f} ms, rows after {1000 * (time.perf_counter() - begin):.0f} ms")
            page.close()
        browser.close()


def main() -> None:
    folder = Path(sys.argv[1]).absolute()
    long = str(write_runs(folder, int(sys.argv[2]) if len(sys.argv) > 2 else 1000))
    home = folder / "home"
    studio = Studio(folder=folder, roots=[folder], home=home)
    show("list, the first 50", cpu_ms(lambda: json.dumps(routes.listed(studio, Ask({})))))
    show("list, filtered by state", cpu_ms(lambda: json.dumps(routes.listed(studio, Ask({"state": "finished"})))))
    show("list, filtered by text", cpu_ms(lambda: json.dumps(routes.listed(studio, Ask({"text": "name7"})))))
    show("what the list watches, once a second", cpu_ms(lambda: routes.watched_list(studio, "")))
    show(f"curves of {STEPS:,} steps", cpu_ms(lambda: json.dumps(routes.curves(studio, Ask({"path": long})))))
    show("what a run's page watches, once a second", cpu_ms(lambda: routes.watched_run(studio, long)))
    plans(folder, home)
    paints(folder, home)


if __name__ == "__main__":
    main()
