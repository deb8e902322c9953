"""What a plan shows of regularisation images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from registry.printable import counted
from train.data.dataset import Sample
from train.data.items import Item
from train.prior.drawn import DrawnImages


def prior_json(samples: Sequence[Sample], items: Sequence[Item], drawn: DrawnImages | None) -> dict[str, Any] | None:
    """Plain values, stable keys; None: there are none."""
    count = sum(sample.prior for sample in samples)
    if not count:
        return None
    prior, every = _shown(items)
    return {"pictures": count, "share": prior / every, "drawn": drawn.to_json() if drawn else None}


def prior_rows(samples: Sequence[Sample], items: Sequence[Item], drawn: DrawnImages | None) -> list[tuple[str, str]]:
    """How many there are, and what the base is still to draw."""
    count = sum(sample.prior for sample in samples)
    if not count:
        return []
    prior, every = _shown(items)
    return [("prior", f"{counted(count, 'regularisation image')}: {prior} of the {counted(every, 'image')} of an epoch{_by_base(drawn)}")]


def _by_base(drawn: DrawnImages | None) -> str:
    if drawn is None:
        return ""
    render, missing = drawn.render, len(drawn.missing)
    what = f"{render.prompt!r} at {render.width}x{render.height}, {counted(render.steps, 'step')}, guidance {render.guidance:g}"
    done = "all are drawn" if not missing else f"the base draws {missing} of them before training, the others are there"
    done = f"the base draws all {missing} before training" if missing == drawn.count else done
    return f"; {what}: {done}"


def _shown(items: Sequence[Item]) -> tuple[int, int]:
    """(regularisation images, all images) of an epoch."""
    return sum(item.sample.repeats for item in items if item.sample.prior), sum(item.sample.repeats for item in items)
