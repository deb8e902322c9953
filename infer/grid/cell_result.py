"""What became of a Render: drawn, found in the cell store, or failed."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from infer.draw.render import Render
from infer.draw.session import Counts
from infer.grid.cells import CellError, CellStore, Stored
from registry.errors import JobFailed, LoomError

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class CellResult:
    """The result of one Render: `status` is rendered, reused or failed; `path` is the image in the cell store."""

    key: str
    render: Render
    status: str
    seconds: float = 0.0
    error: str | None = None
    path: Path | None = None
    process: int | None = None  # which one of several has drawn it in this run


def look_up(cells: CellStore, key: str, counts: Counts) -> Stored | None:
    """The stored cell, or None where it is missing or damaged; damage is noted."""
    try:
        return cells.get(key)
    except CellError as error:
        counts.note(f"A stored cell was damaged and is drawn again: {error}.")
        return None


def failed(render: Render, error: Exception, *, began: float, strict: bool) -> CellResult:
    """The result of a cell that failed. Raises JobFailed under `strict`."""
    message = f"{error}" if isinstance(error, LoomError) else f"{type(error).__name__}: {error}"
    LOG.warning("A cell failed: %s", message)
    LOG.debug("The cell's traceback", exc_info=error)
    if strict:
        raise JobFailed(f"A cell failed, and strict=true stops there. {message} What was drawn before is kept.") from error
    return CellResult(key=render.key(), render=render, status="failed", seconds=monotonic() - began, error=message)
