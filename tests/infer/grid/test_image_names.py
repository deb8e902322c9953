"""The file names of a grid's images: after the settings, safe on every file system, and unchanged when a value is added."""

from itertools import product
from typing import Any

import pytest

from infer.draw.controls import read_controls
from infer.grid.image_names import image_name

HOSTILE = ["../../etc/passwd", "a/b", "a\\b", "a:b", "a*b?", "CON", "a cat", "A cat", "a  cat", "a_cat", "a-cat", "", " ", "猫"]
HOSTILE += ["é" * 300, "猫" * 300, "x" * 300]
LONG = ("base", "adapter", "prompt", "negative")


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({}, "image.png"),
        ({"weight": 0.6, "seed": 3}, "weight-0.6_seed-3.png"),
        ({"adapter": "ink@step-120", "size": (96, 64)}, "adapter-ink@step-120_size-96x64.png"),
        ({"guidance": -1.0, "sampler": "euler", "clipskip": 0}, "guidance--1_sampler-euler_clipskip-0.png"),
    ],
)
def test_short_plain_values_are_the_name(values: dict[str, Any], name: str) -> None:
    assert image_name(values) == name


def test_two_cells_never_share_a_name() -> None:
    names = [image_name({"prompt": text}) for text in HOSTILE]
    names += [image_name({"negative": value}) for value in (None, "none", "None")]
    names += [image_name({"init": path}) for path in ("a/cat.png", "b/cat.png", "cat.png", None)]
    names += [image_name({"control": read_controls(given)}) for given in ("canny:a/e.png", "canny:b/e.png", "canny:a/e.png:0.5")]
    names += [image_name({"prompt": text, "seed": seed}) for text, seed in product(("x" * 200, "x" * 199 + "y"), (1, 2))]
    names += [image_name(dict.fromkeys(LONG, "v" * 60)), image_name(dict.fromkeys(LONG, "v" * 61))]
    assert len({name.casefold() for name in names}) == len(names)


@pytest.mark.parametrize("text", HOSTILE)
def test_a_name_is_safe_on_every_file_system(text: str) -> None:
    name = image_name({"prompt": text, "negative": text, "seed": 1})
    assert len(name.encode()) <= 255 and not set(name) & set('/\\:*?"<>| \t\n\0') and not name.startswith(".")


def test_the_digits_are_those_of_the_values_alone() -> None:
    """A name that is in reports and scripts stays what it is: sha256 of {"prompt": "A cat"} begins so."""
    assert image_name({"prompt": "A cat"}) == "prompt-A-cat~44d84e9e1f7b.png"
