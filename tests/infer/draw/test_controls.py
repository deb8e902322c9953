"""ControlNets as they are written, and Canny's edges."""

from pathlib import Path
from typing import Any

import pytest

from infer.draw.controls import read_controls
from registry.errors import Refused


def read(value: object) -> list[tuple[str, str, float]]:
    return [(one.reference, one.picture.path, one.scale) for one in read_controls(value)]


@pytest.mark.parametrize(
    ("text", "reported"),
    [
        ("none", []),
        (None, []),
        ("canny:e.png", [("canny", "e.png", 1.0)]),
        ("canny:e.png:0.8", [("canny", "e.png", 0.8)]),
        ("canny@best:some dir/e.png:-0.5", [("canny@best", "some dir/e.png", -0.5)]),
        ("sha256:abcd12:e.png:1", [("sha256:abcd12", "e.png", 1.0)]),
        ("hf:owner/net@main:e.png", [("hf:owner/net@main", "e.png", 1.0)]),
        ("a:e.png:0.5+b:f.png:+1", [("a", "e.png", 0.5), ("b", "f.png", 1.0)]),
        ("a:e+f.png:0.5", [("a", "e+f.png", 0.5)]),
        (["a:e.png", {"net": "b", "image": "f.png", "scale": 2}], [("a", "e.png", 1.0), ("b", "f.png", 2.0)]),
    ],
)
def test_the_ways_to_write_them(text: object, reported: list[tuple[str, str, float]]) -> None:
    assert read(text) == reported


def test_a_file_that_is_there_settles_which_colon_parts(tmp_path: Path) -> None:
    image = tmp_path / "x:y.png"
    image.write_bytes(b"")
    assert read(f"net:{image}:0.5") == [("net", str(image), 0.5)]


@pytest.mark.parametrize(
    ("value", "reported"),
    [
        ("canny", "names no image"),
        ("canny:", "names no image"),
        ("a:b:c.png", "could be a with b:c.png or a:b with c.png"),
        ({"net": "a", "image": "b", "scal": 1}, "Did you mean 'scale'"),
        ({"net": "a"}, "must name net and image"),
        ({"net": "a", "image": "b", "scale": "much"}, "scale is 'much'"),
        ({"net": "a", "image": "b", "scale": 10**400}, "scale is 10{400}"),
        ({"net": "a", "image": "b", "mode": 1.5}, "mode is 1.5"),
        (7, "is no ControlNet"),
    ],
)
def test_what_cannot_be_read_is_reported(value: Any, reported: str) -> None:
    with pytest.raises(Refused, match=reported):
        read_controls(value)
