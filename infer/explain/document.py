"""explain.json: an explanation as plain values with stable keys, and its images by their names. The page is made of these alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from infer.draw.files import Adapter, ControlNet, Embedding
from infer.explain.changes import ADAPTER, CONTROL, EMBEDDING, GUIDANCE, NEGATIVE, START, control_name, embedding_name, name_of, plain
from infer.explain.explain import Change, Explanation, Shown

if TYPE_CHECKING:
    from PIL.Image import Image


def pictures_of(found: Explanation) -> dict[str, Image]:
    """Every image by its name."""
    pictures = {f"frame-{place}": one.image for place, one in enumerate(found.frames)}
    for name, one in _named(found).items():
        pictures |= {name: one.image, f"{name}-map": one.difference.map}
        if one.source is not None:
            pictures[f"{name}-source"] = one.source
        if one.redrawn is not None:
            pictures[f"{name}-redrawn"] = one.redrawn.map
    if found.file is not None:
        pictures["file"] = found.file.image
        if found.file.difference is not None:
            pictures["file-map"] = found.file.difference.map
    return pictures


def document(found: Explanation, images: dict[str, str]) -> dict[str, Any]:
    """The values. `images` has the file of each image by its name."""
    plan = found.plan
    rows = {what: [_row(found, name, one, images) for name, one in _named(found, what).items()] for what in _ORDER}
    return {
        "image": str(plan.path),
        "key": plan.render.key(),
        "render": plan.render.to_json(),
        "settings": found.settings,
        "largest_difference": found.largest_difference,
        "file": _file(found, images),
        "tokens": [one.to_json() for one in found.tokens],
        "similarity": [one.to_json() for one in found.similar],
        "against": list(plan.against),
        "asked_frames": plan.frames,
        "frames": [_frame(one, images[f"frame-{number}"]) for number, one in enumerate(found.frames)],
        "negative": next(iter(rows[NEGATIVE]), None),
        "guidance": next(iter(rows[GUIDANCE]), None),
        "start": next(iter(rows[START]), None),
        "controls": rows[CONTROL],
        "embeddings": rows[EMBEDDING],
        "adapters": rows[ADAPTER],
        "not_drawn": plan.why_not,
        "forwards": found.forwards,
        "seconds": found.seconds,
        "notes": list(found.notes),
    }


_ORDER = (NEGATIVE, GUIDANCE, START, CONTROL, EMBEDDING, ADAPTER)


def _named(found: Explanation, what: str | None = None) -> dict[str, Change]:
    """The changes by the names of their images."""
    named = {f"{one.variant.what}-{number}": one for number, one in enumerate(found.changes)}
    return {name: one for name, one in named.items() if what in (None, one.variant.what)}


def _row(found: Explanation, name: str, one: Change, images: dict[str, str]) -> dict[str, Any]:
    row = {"name": one.variant.name, **plain(one.difference), "image": images[name], "map": images[f"{name}-map"]}
    if one.redrawn is not None:
        row["redrawn"] = plain(one.redrawn) | {"map": images[f"{name}-redrawn"]}
    if one.source is not None:
        row["source"] = images[f"{name}-source"]
    return _of_file(found, one) | row


def _of_file(found: Explanation, one: Change) -> dict[str, Any]:
    """What is left out: its name, its content, how strongly it acts, and the blocks that an adapter changes."""
    left, resolver = one.variant.one, found.plan.resolver
    if isinstance(left, ControlNet):
        return {"control": control_name(left, resolver), "sha256": left.sha256, "scale": left.scale}
    if isinstance(left, Embedding):
        return {"embedding": embedding_name(left, resolver), "sha256": left.sha256, "token": left.token}
    if isinstance(left, Adapter):
        blocks = [block.to_json() for block in found.blocks[left]]
        return {"adapter": name_of(left, resolver), "sha256": left.sha256, "weight": left.weight, "blocks": blocks}
    return {}


def _file(found: Explanation, images: dict[str, str]) -> dict[str, Any] | None:
    """The file's own image, where it is another than the one that is drawn, and the program that drew it."""
    if found.file is None:
        return None
    taken, apart = found.plan.taken, found.file.difference
    return {
        "image": images["file"],
        "from": None if taken is None else taken.to_json(),
        "difference": None if apart is None else plain(apart) | {"map": images["file-map"]},
    }


def _frame(one: Shown, file: str) -> dict[str, Any]:
    if one.frame is None:
        return {"call": None, "calls": None, "timestep": None, "noise": 0.0, "image": file}
    return {"call": one.frame.call, "calls": one.frame.calls, "timestep": one.frame.timestep, "noise": one.frame.noise, "image": file}
