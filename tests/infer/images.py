"""Finished grids made of coloured squares, for the tests of sheet and report: no model, real PNG files."""

import json
import re
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from infer.draw.render import Render
from infer.grid.layout import Dimension, choose_sides
from infer.output.command import command_of
from infer.output.gallery import CellImage, Gallery, shared_settings, spell_settings
from infer.output.infotext import ModelNames
from infer.output.png import encode_png, read_png

NAMES = ModelNames(base="pocket", scheduler="DDIMScheduler", adapters={})


def resolved(**changes: Any) -> Render:
    """A Render that has a key."""
    given: dict[str, Any] = {
        "base": "pocket",
        "base_sha256": "a" * 64,
        "steps": 20,
        "guidance": 4.0,
        "width": 64,
        "height": 64,
        "prompt": "a cat",
    }
    given |= changes
    return Render(**{"guided": given["guidance"] > 1.0} | given)


def square(colour: tuple[int, int, int], size: tuple[int, int] = (64, 64)) -> Any:
    from PIL import Image

    return Image.new("RGB", size, colour)


def a1111_reads(text: str) -> dict[str, str]:
    """parse_generation_parameters of AUTOMATIC1111 1.10, as its source says it."""
    re_param = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
    found: dict[str, str] = {}
    prompt = negative = ""
    done_with_prompt = False
    *lines, lastline = text.strip().split("\n")
    if len(re_param.findall(lastline)) < 3:
        lines.append(lastline)
        lastline = ""
    for line in lines:
        line = line.strip()
        if line.startswith("Negative prompt:"):
            done_with_prompt = True
            line = line[16:].strip()
        if done_with_prompt:
            negative += ("" if negative == "" else "\n") + line
        else:
            prompt += ("" if prompt == "" else "\n") + line
    for key, value in re_param.findall(lastline):
        if value[0] == '"' and value[-1] == '"':
            value = json.loads(value)
        if match := re.fullmatch(r"(\d+)x(\d+)", value):
            found[f"{key}-1"], found[f"{key}-2"] = match[1], match[2]
        else:
            found[key] = value
    return found | {"Prompt": prompt, "Negative prompt": negative}


def a1111_weights(text: str) -> list[tuple[str, float]]:
    """parse_prompt_attention of AUTOMATIC1111 1.10: the text in pieces with their weights, by the rules of its documentation.

    `(a)` is 1.1, `[a]` is 1 / 1.1, `(a:1.5)` is 1.5; a backslash before a bracket or a backslash makes it a letter, any other is
    dropped; what is open at the end closes there.
    """
    token = re.compile(r"\\[()\[\]\\]|:\s*([+-]?[.\d]+)\s*\)|[()\[\]]|[^\\()\[\]:]+|:|\\", re.DOTALL)
    pieces: list[tuple[str, float]] = []
    opened: dict[str, list[int]] = {"(": [], "[": []}

    def weigh(start: int, by: float) -> None:
        pieces[start:] = [(piece, weight * by) for piece, weight in pieces[start:]]

    for match in token.finditer(text):
        found = match[0]
        if found[0] == "\\":  # one before any other sign is dropped
            pieces.append((found[1:], 1.0))
        elif found in opened:
            opened[found].append(len(pieces))
        elif found == ")" and opened["("]:
            weigh(opened["("].pop(), 1.1)
        elif found == "]" and opened["["]:
            weigh(opened["["].pop(), 1 / 1.1)
        elif match[1] is not None and opened["("]:
            weigh(opened["("].pop(), float(match[1]))
        else:
            pieces.append((found, 1.0))
    for start in opened["("]:
        weigh(start, 1.1)
    for start in opened["["]:
        weigh(start, 1 / 1.1)
    joined: list[tuple[str, float]] = []
    for piece, weight in pieces:
        if joined and joined[-1][1] == weight:
            joined[-1] = (joined[-1][0] + piece, weight)
        else:
            joined.append((piece, weight))
    return joined


def gallery(
    folder: Path,
    axes: Mapping[str, Sequence[Any]],
    *,
    failed: Sequence[tuple[int, ...]] = (),
    absent: Sequence[tuple[int, ...]] = (),
    size: tuple[int, int] = (64, 64),
    title: str = "a grid",
) -> Gallery:
    """A grid over `axes` (name -> labels) whose cell at place p is a square of its own colour: (40 p0, 40 p1, 40 p2)."""
    folder.mkdir(exist_ok=True)
    dimensions = tuple(
        Dimension(axes=(name,), values=tuple((one,) for one in labels), labels=tuple(map(str, labels))) for name, labels in axes.items()
    )
    images: list[CellImage] = []
    for number, place in enumerate(product(*(range(len(one)) for one in dimensions))):
        if place in absent:
            continue
        render = resolved(prompt=" ".join(one.labels[at] for one, at in zip(dimensions, place, strict=True)), seed=number)
        path = folder / f"{number}.png"
        colour = tuple((*(40 * at for at in place), 0, 0, 0)[:3])
        path.write_bytes(encode_png(square(colour, size), render, NAMES))  # type: ignore[arg-type]
        bad = place in failed
        images.append(
            CellImage(
                place=place,
                key=render.key(),
                status="failed" if bad else "rendered",
                path=None if bad else path,
                settings=spell_settings(render, base="pocket", scheduler=None),
                command=command_of(render),
                parameters="" if bad else read_png(path).parameters,
                seconds=0.25,
                error="Out of memory: <b>2 GiB</b> were asked for." if bad else None,
            )
        )
    fixed = {name: value for name, value in shared_settings([one.settings for one in images]).items() if name not in axes}
    return Gallery(
        title=title, layout=choose_sides(dimensions), images=images, fixed=fixed, result={"rendered": len(images), "seconds": 1.5}
    )
