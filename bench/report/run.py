"""A report of thousands of large images in Chromium: seconds until it is ready, and milliseconds a frame while it is scrolled.

    OMP_NUM_THREADS=1 python -m bench.report.run FOLDER [--cells 2000] [--side 1024] [--single-file]

FOLDER gets images/ (a few dozen real PNGs, linked under every cell's own name) and report.html, and keeps them for the next run.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
from itertools import product
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

from infer.draw.render import Render
from infer.grid.layout import Dimension, choose_sides
from infer.output.gallery import CellImage, Gallery, Score, shared_settings, spell_settings
from infer.output.report import write_report

FRAMES = 240
DISTINCT = 40  # images of pixels of their own
READY = """() => {
  const seen = [...document.querySelectorAll('.cell img')].filter((one) => {
    const box = one.getBoundingClientRect();
    return box.bottom > 0 && box.top < innerHeight;
  });
  return seen.length > 0 && seen.every((one) => one.complete && one.naturalWidth > 0);
}"""
SCROLL = """async ([frames, pixels]) => {
  const times = [];
  let last = await new Promise(requestAnimationFrame);
  for (let frame = 0; frame < frames; frame += 1) {
    scrollBy(0, pixels);
    const now = await new Promise(requestAnimationFrame);
    times.push(now - last);
    last = now;
  }
  return times;
}"""


def draw_images(folder: Path, side: int) -> list[Path]:
    """The PNGs that all cells share, as detailed as photographs: smooth shapes with grain."""
    import numpy
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    random = numpy.random.default_rng(0)
    grain = random.integers(-7, 8, (side, side, 3))
    paths = [folder / f"{number}.png" for number in range(DISTINCT)]
    for path in (path for path in paths if not path.is_file()):
        coarse = Image.fromarray(random.integers(0, 256, (12, 12, 3), dtype=numpy.uint8)).resize((side, side), Image.Resampling.BICUBIC)
        pixels = numpy.asarray(coarse, dtype=numpy.int16) + numpy.roll(grain, int(random.integers(side)), 0)
        Image.fromarray(pixels.clip(0, 255).astype(numpy.uint8)).save(path, "PNG", compress_level=1)
    return paths


def linked(source: Path, path: Path) -> None:
    """The file under another name, without its bytes a second time where the disk can."""
    path.parent.mkdir(exist_ok=True)
    if not path.exists():
        try:
            os.link(source, path)
        except OSError:
            shutil.copy(source, path)


def made_gallery(folder: Path, cells: int, side: int) -> Gallery:
    """A finished grid of prompts, adapters, weights and seeds."""
    axes = {
        "prompt": [f"a photograph of subject number {number}, in the morning light" for number in range(cells // 40)],
        "adapter": ["none", "ink@step-100", "ink@step-200", "ink@step-300", "ink@step-400"],
        "weight": ["0.25", "0.5", "0.75", "1"],
        "seed": ["1", "2"],
    }
    dimensions = tuple(
        Dimension(axes=(name,), values=tuple((one,) for one in labels), labels=tuple(labels)) for name, labels in axes.items()
    )
    sources = draw_images(folder / "distinct", side)
    images = []
    for number, place in enumerate(product(*(range(len(one)) for one in dimensions))):
        path = folder / "images" / f"{number}.png"
        linked(sources[number % DISTINCT], path)
        render = Render(
            base="base",
            base_sha256="a" * 64,
            steps=20,
            guidance=4.0,
            guided=True,
            width=side,
            height=side,
            seed=number,
            prompt=axes["prompt"][place[0]],
        )
        images.append(
            CellImage(
                place=place,
                key=render.key(),
                status="rendered",
                path=path,
                settings=spell_settings(render, base="base", scheduler=None),
                details={"base sha256": "a" * 64},
                parameters=f"{render.prompt}\nSteps: 20, Sampler: DDIM, CFG scale: 4, Seed: {number}",
                command=f"loraloom grid 'prompt={render.prompt}' seed={number} steps=20 guidance=4.0",
                scores={"sharpness": number * 7 % 101 / 10},
                seconds=1.0,
            )
        )
    return Gallery(
        title=f"{len(images)} cells",
        layout=choose_sides(dimensions),
        images=images,
        fixed=shared_settings([one.settings for one in images]),
        scores=(Score(name="sharpness", definition="made up", better="higher"),),
    )


def copies_ahead(folder: Path, cells: int) -> float:
    """Make the small copies of the distinct images and link them for every cell; gives CPU seconds a copy."""
    from infer.output.page.images import beside

    began = process_time()
    for number in range(DISTINCT):
        beside(folder / "report.html", folder / "images" / f"{number}.png")
    seconds = (process_time() - began) / DISTINCT
    for number in range(DISTINCT, cells):
        linked(folder / "thumbs" / f"{number % DISTINCT}.webp", folder / "thumbs" / f"{number}.webp")
    return seconds


def opened(path: Path, window: tuple[int, int]) -> dict[str, Any]:
    """The page's times in a new browser."""
    from playwright.sync_api import sync_playwright

    program = os.environ.get("LORALOOM_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=options)
        page = browser.new_page(viewport={"width": window[0], "height": window[1]})
        began = perf_counter()
        page.goto(path.as_uri(), wait_until="commit")
        page.wait_for_function(READY, polling=20)
        ready = perf_counter() - began
        script = page.evaluate("performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd / 1000")
        page.wait_for_timeout(500)
        times, work = {}, {}
        for pixels in (24, 120):
            browser.start_tracing(page=page, categories=["toplevel"])
            times[pixels] = page.evaluate(SCROLL, [FRAMES, pixels])
            work[pixels] = cpu_a_frame(browser.stop_tracing())
        filled = page.locator(".cell").count()
        began = perf_counter()
        page.locator("#view").select_option("ranking")
        page.wait_for_function(READY, polling=20)
        ranking = perf_counter() - began
        browser.close()
    found: dict[str, Any] = {
        "ready_s": round(ready, 2),
        "dom_s": round(script, 2),
        "other_view_s": round(ranking, 2),
        "cells_in_dom": filled,
    }
    for pixels, frames in times.items():
        ordered = sorted(frames)
        found[f"frame_ms_{pixels}px"] = {
            "median": round(statistics.median(frames), 1),
            "p95": round(ordered[int(0.95 * len(ordered))], 1),
            "max": round(ordered[-1], 1),
            "over_20": sum(one > 20 for one in frames),
            "cpu_ms": work[pixels],
        }
    return found


def cpu_a_frame(trace: bytes) -> dict[str, float]:
    """CPU milliseconds a frame of the page's main thread, and of the threads that decode, raster and compose for it."""
    events = json.loads(trace)["traceEvents"]
    threads = {(one["pid"], one["tid"]): one["args"]["name"] for one in events if one.get("name") == "thread_name"}
    found = {"main_thread": 0.0, "other_threads": 0.0}
    for one in events:
        thread = threads.get((one["pid"], one["tid"]), "")
        if one.get("ph") == "X" and one["name"] in ("ThreadControllerImpl::RunTask", "ThreadPool_RunTask"):
            found["main_thread" if thread == "CrRendererMain" else "other_threads"] += one.get("tdur", 0) / 1000 / FRAMES
    return {name: round(value, 1) for name, value in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cells", type=int, default=2000)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--single-file", action="store_true")
    given = parser.parse_args()
    folder = given.folder.absolute()
    gallery = made_gallery(folder, given.cells, given.side)
    each = copies_ahead(folder, len(gallery.images))
    path = folder / ("single.html" if given.single_file else "report.html")
    began = process_time()
    notes = write_report(path, gallery, single_file=given.single_file)
    written = process_time() - began
    result = {
        "cells": len(gallery.images),
        "side": given.side,
        "small_copy_cpu_s": round(each, 4),
        "write_cpu_s": round(written, 2),
        "page_mb": round(path.stat().st_size / 1e6, 2),
        "notes": notes,
        **opened(path, (1400, 900)),
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
