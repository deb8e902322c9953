"""Captions and masks by a model, as jobs of the home's queue: the command lines of `loraloom data caption` and `data mask`."""

from __future__ import annotations

from loraloom.studio.routes import Ask
from registry.errors import Refused

CAPTION = {
    "model": "--model",
    "trigger": "--trigger",
    "prefix": "--prefix",
    "suffix": "--suffix",
    "prompt": "--prompt",
    "device": "--device",
}
MASK = {"model": "--model", "threshold": "--threshold", "expand": "--expand"}


def job_words(ask: Ask, folder: str) -> list[str]:
    """The words of a job, behind `loraloom`. Raises Refused for a kind that is none."""
    kind = ask.text("kind")
    options = {"caption": CAPTION, "mask": MASK}.get(kind)
    if options is None:
        raise Refused(f"kind: expected caption or mask, got {kind!r:.60}.")
    if not ask.text("model", "").strip():
        raise Refused("model: give the folder or file of a model on this machine.")
    words = ["data", kind, folder]
    for name, option in options.items():
        value = ask.text(name, "").strip()
        if value:
            words.append(f"{option}={value}")
    if kind == "mask":
        for label in (part.strip() for part in ask.text("labels", "").split(",")):
            words += [f"--label={label}"] if label else []
        words += ["--in-folder"] * ask.flag("in_folder", False)
    return words
