"""Text for images: installed fonts, measured wrapping, and no character that silently becomes an empty box.

DejaVu Sans, which travels with matplotlib, holds Latin, Greek, Cyrillic and much more. For what it lacks (Chinese, Japanese,
Korean, ...) the machine's own fonts are asked; what none of them holds is written as its code point.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont

LEADING = 1.36  # line height in font sizes: room for accents and descenders
FALLBACKS = (
    "cjk",
    "unifont",
    "wqy",
    "droidsansfallback",
    "msyh",
    "simsun",
    "malgun",
    "yugoth",
    "meiryo",
    "pingfang",
    "hiragino",
    "arialuni",
)


@dataclass(frozen=True)
class Style:
    """How a text is set: size in pixels, weight, colour."""

    size: int
    bold: bool = False
    colour: str = "#1d1d1f"

    @property
    def leading(self) -> int:
        """Pixels from line to line."""
        return round(self.size * LEADING)


def legible(text: str, style: Style) -> str:
    """The text with each character that no font has as its code point, [732B]: nothing is lost."""
    return "".join(
        character if character == "\n" or _file_of(character, style.bold) else " " if character.isspace() else f"[{ord(character):04X}]"
        for character in text
    )


@lru_cache(maxsize=8192)
def width(text: str, style: Style) -> int:
    """Pixels from the first character's origin to the end of the last, rounded up."""
    return -int(-sum(_font(file, style.size).getlength(run) for run, file in _runs(text, style)) // 1)


def ink(text: str, style: Style) -> tuple[int, int, int, int]:
    """The box that the letters cover, for a line whose box begins at (0, 0)."""
    boxes, x = [(0, 0, 0, 0)], 0.0
    for run, file in _runs(text, style):
        left, top, right, bottom = _font(file, style.size).getbbox(run, anchor="ls")
        boxes.append((int(x + left), int(_baseline(style) + top), -int(-(x + right) // 1), -int(-(_baseline(style) + bottom) // 1)))
        x += _font(file, style.size).getlength(run)
    lefts, tops, rights, bottoms = zip(*boxes[1:] or boxes, strict=True)
    return min(lefts), min(tops), max(rights), max(bottoms)


def letter(draw: "ImageDraw", left: int, top: int, line: str, style: Style) -> None:
    """Draw a line whose box begins at (left, top), on one baseline whatever fonts it takes."""
    x = float(left)
    for run, file in _runs(line, style):
        draw.text((round(x), top + _baseline(style)), run, font=_font(file, style.size), fill=style.colour, anchor="ls")
        x += _font(file, style.size).getlength(run)


@lru_cache(maxsize=8192)
def wrap(text: str, style: Style, room: int) -> tuple[str, ...]:
    """The text in lines no wider than `room` pixels: broken at spaces, and inside a word that is wider than a line."""
    lines: list[str] = []
    for paragraph in legible(text, style).split("\n"):
        line = ""
        for word in paragraph.split():
            if line and width(f"{line} {word}", style) <= room:
                line = f"{line} {word}"
                continue
            if line:
                lines.append(line)
            *whole, line = _pieces(word, style, room)
            lines += whole
        lines.append(line)
    while len(lines) > 1 and not lines[-1]:
        lines.pop()
    return tuple(lines)


def _pieces(word: str, style: Style, room: int) -> list[str]:
    """A word in pieces no wider than the room; at least one character a piece."""
    pieces = [""]
    for character in word:
        if pieces[-1] and width(pieces[-1] + character, style) > room:
            pieces.append("")
        pieces[-1] += character
    return pieces


# --- fonts


@cache
def _font(file: str, size: int) -> "FreeTypeFont":
    from PIL import ImageFont

    return ImageFont.truetype(file, size, layout_engine=ImageFont.Layout.BASIC)


@cache
def _baseline(style: Style) -> int:
    """Pixels from the top of a line's box to its baseline."""
    return _font(_dejavu(style.bold), style.size).getmetrics()[0]


@cache
def _dejavu(bold: bool) -> str:
    import matplotlib

    return str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / ("DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"))


@cache
def _signs(file: str) -> frozenset[int]:
    """The code points a font file has a shape for."""
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(file).get_charmap())
    except (OSError, RuntimeError):  # a font of the machine that is broken is skipped
        return frozenset()


@cache
def _others() -> tuple[str, ...]:
    """Fonts of this machine that are made for scripts DejaVu lacks, those in a regular weight first."""
    from matplotlib.font_manager import findSystemFonts

    named = [file for file in findSystemFonts() if any(word in Path(file).name.lower().replace(" ", "") for word in FALLBACKS)]
    return tuple(sorted(named, key=lambda file: ("regular" not in Path(file).name.lower(), file)))


@cache
def _file_of(character: str, bold: bool) -> str | None:
    """The font file that has the character: DejaVu before any other; None when no font has it."""
    if ord(character) in _signs(_dejavu(bold)):
        return _dejavu(bold)
    if not character.isprintable():
        return None
    return next((file for file in _others() if ord(character) in _signs(file)), None)


def _runs(text: str, style: Style) -> Iterator[tuple[str, str]]:
    """(run of characters, the font file that has them); `text` is legible."""
    for file, characters in groupby(text, lambda character: _file_of(character, style.bold) or _dejavu(style.bold)):
        yield "".join(characters), file
