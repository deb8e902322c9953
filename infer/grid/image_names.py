"""The file name of a cell's image: its axis values, so that a value more leaves the other names as they are.

    weight-0.6_seed-3.png        prompt-a-cat-in-a-hat~5f0c4e19a2d7.png

A value of small letters, digits, `.`, `+`, `@` and `-` is written as it is. Where one is written otherwise or cut, the name ends in
`~` and 12 digits of the sha256 of the cell's values: two cells never share a name, on no file system, whatever their case.
"""

import json
import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from infer.grid.axes import axis_of, is_axis

EXACT = re.compile(r"[a-z0-9.+@-]*")
VALUE, NAME = 40, 160  # characters of a value, bytes of all: with the digits well under the 255 that file systems take


def image_name(values: Mapping[str, Any]) -> str:
    """The name of the image of the cell with these axis values, in the order of the axes; `image.png` without axes."""
    pairs = [(name, *_written(name, value)) for name, value in values.items()]
    whole = "_".join(f"{_plain(name)}-{text}" for name, text, _ in pairs) or "image"
    if len(whole) <= NAME and all(exact and EXACT.fullmatch(name) for name, _, exact in pairs):
        return f"{whole}.png"
    digits = sha256(json.dumps(dict(values), sort_keys=True, default=str).encode()).hexdigest()[:12]
    return f"{whole.encode()[:NAME].decode(errors='ignore').rstrip('-. ')}~{digits}.png"


def _written(name: str, value: Any) -> tuple[str, bool]:
    """The value for a file name, and whether it can be read back from there: no other value of the axis is written so."""
    text = axis_of(name).spell(value) if is_axis(name) else str(value)  # outside: the name of a column
    exact = EXACT.fullmatch(text) is not None and len(text) <= VALUE
    if exact and (isinstance(value, int | float) or value == text or name == "size"):
        return text, True
    return _plain(text) or "none", False


def _plain(text: str) -> str:
    """The text in characters that every file system takes."""
    return re.sub(r"[^\w.+@-]+|_+", "-", text)[:VALUE].strip("-. ")
