"""A folder's README.md as the hub's model and data cards have it: facts in a YAML head between two lines of dashes."""

from __future__ import annotations

from pathlib import Path

from registry.plain_values import from_yaml

CARD = "README.md"
LONGEST = 64_000  # bytes of a head that is read


def card_licence(folder: Path) -> str | None:
    """The `license:` of the folder's card: an SPDX id or the hub's id (openrail++); of `other` its `license_name`. None: none given."""
    head = _head(folder / CARD)
    if "\nlicense" not in f"\n{head}":
        return None
    try:
        values = from_yaml(head)
    except ValueError:
        return None
    if not isinstance(values, dict):
        return None
    licence, name = values.get("license"), values.get("license_name")
    chosen = name if licence == "other" and name else licence
    return str(chosen) if isinstance(chosen, (str, int, float)) else None


def _head(file: Path) -> str:
    """The text between the first two lines of dashes; "" where the file does not begin with one."""
    try:
        with file.open(encoding="utf-8", errors="replace") as text:
            begin = text.read(LONGEST)
    except OSError:
        return ""
    lines = begin.splitlines()
    if not lines or lines[0].strip() != "---":
        return ""
    end = next((number for number, line in enumerate(lines[1:], 1) if line.strip() == "---"), None)
    return "" if end is None else "\n".join(lines[1:end])
