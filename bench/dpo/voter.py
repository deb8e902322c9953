"""Scripted voters with a known taste, who see what the voting page shows and answer by its own addresses."""

from __future__ import annotations

import io
import json
import threading
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from infer.vote.finished import read_grid
from infer.vote.page.page import server_page
from infer.vote.page.server import VotingServer
from infer.vote.page.session import Session

Taste = Callable[[Any], float]  # (pixels (h, w, 3) in 0..1) -> more is better
SAME = 0.002  # of a taste: a smaller difference is a tie
BACKGROUND = 0.08  # difference to the corner's colour from which a pixel is of the figure


def unsaturated(pixels: Any) -> float:
    """The less colour the better: minus the mean difference of the strongest and the weakest channel."""
    return float(-(pixels.max(2) - pixels.min(2)).mean())


def large_figure(pixels: Any) -> float:
    """The larger the figure the better: the share of pixels that are unlike the corners."""
    import numpy

    corners = numpy.median(pixels[[0, 0, -1, -1], [0, -1, 0, -1]], axis=0)
    return float((numpy.abs(pixels - corners).max(2) > BACKGROUND).mean())


TASTES: dict[str, Taste] = {"less saturated": unsaturated, "larger figure": large_figure}


def pixels_of(data: bytes) -> Any:
    """(h, w, 3) in 0..1."""
    import numpy
    from PIL import Image

    return numpy.asarray(Image.open(io.BytesIO(data)).convert("RGB"), dtype=numpy.float64) / 255


def vote(folder: Path, axes: Sequence[str], taste: str, count: int, *, seed: int = 0) -> int:
    """So many votes of a voter with this taste through the page's server; gives how many were cast."""
    cast = 0
    with _served(folder, axes, count, seed) as address:
        state = _post(address, "start", voter=taste)
        while (trial := state["trial"]) is not None:
            left, right = (TASTES[taste](pixels_of(_get(f"{address}image/{trial[side]}"))) for side in ("left", "right"))
            choice = "tie" if abs(left - right) < SAME else "left" if left > right else "right"
            state = _post(address, "vote", voter=taste, id=trial["id"], choice=choice, seconds=1.0)
            cast += 1
    return cast


@contextmanager
def _served(folder: Path, axes: Sequence[str], count: int, seed: int) -> Iterator[str]:
    session = Session([read_grid(folder)], tuple(axes), asked=count, seed=seed)
    with VotingServer(session, server_page(session)) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server.address
        finally:
            server.shutdown()
            thread.join()


def _get(address: str) -> bytes:
    with urllib.request.urlopen(address, timeout=30) as answer:
        data: bytes = answer.read()
        return data


def _post(address: str, name: str, **body: Any) -> Any:
    request = urllib.request.Request(address + name, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)
