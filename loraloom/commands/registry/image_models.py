"""The models that an image names in its metadata, and which of them are registered: for `registry find IMAGE`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from loraloom import console
from registry.home import expanded

if TYPE_CHECKING:
    from registry.store import Store

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".avif")


def image_named(word: str) -> Path | None:
    """The image of that path; None where the word is none."""
    path = expanded(word)
    return path if path.suffix.lower() in SUFFIXES and path.is_file() else None


def answer_models(image: Path, store: Store, arguments: argparse.Namespace) -> int:
    """Show each model with the hash or name by which it was found. A listing without one that is registered is an answer too."""
    from infer.metadata.models import find_models
    from infer.metadata.reader import read_metadata

    metadata = read_metadata(image)
    with console.progress() as report:
        found = find_models(metadata, store, report=report)
    if arguments.json:
        console.answer_json(
            {"image": str(image), "tool": metadata.tool, "source": metadata.source, "models": [one.to_json() for one in found]}
        )
        return 0
    rows = [
        [
            one.what,
            one.named.name or "",
            one.named.digits or "",
            one.reference or "not registered",
            one.by or "",
            one.record and one.record.path,
        ]
        for one in found
    ]
    console.answer_table(["", "in the image", "hash", "here", "by", "path"], rows)
    for one in found:
        if one.fault is not None:
            console.say(f"note: {one.fault.partition(' Or give ')[0]}")
    if not found:
        console.say(f"note: {image} was made by {metadata.tool}, which names no model in it.")
    return 0
