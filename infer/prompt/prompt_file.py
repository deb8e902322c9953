"""Prompts from a file, one a line."""

from __future__ import annotations

from registry.errors import Refused
from registry.home import expanded


def prompt_lines(given: str) -> list[str]:
    """The lines of the file that "@prompts.txt" names, without empty ones and comments (#); any other text is itself. Raises Refused."""
    if not given.startswith("@"):
        return [given]
    path = expanded(given[1:])
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, ValueError) as error:
        raise Refused(f"{given!r} names a file of prompts that cannot be read ({error}). Expected @FILE, one prompt a line.") from None
    found = [line for line in lines if line and not line.startswith("#")]
    if not found:
        raise Refused(f"{path} holds no prompt. Expected one a line.")
    return found
