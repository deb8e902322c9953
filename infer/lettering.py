"""Text for pictures: a font that is always there, measured wrapping, and no sign that silently becomes a box."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

LEADING = 1.36  # line height in font sizes: room for accents and descenders


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


@cache
def font(style: Style) -> "FreeTypeFont":
    """DejaVu Sans, which travels with matplotlib and holds Latin, Greek, Cyrillic and much more."""
    from PIL import ImageFont

    return ImageFont.truetype(_file(style.bold), style.size, layout_engine=ImageFont.Layout.BASIC)


@cache
def _file(bold: bool) -> str:
    import matplotlib

    return str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / ("DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"))


@cache
def _signs(bold: bool) -> frozenset[int]:
    """The code points the font has a shape for."""
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(_file(bold)).get_charmap())


def legible(text: str, style: Style) -> str:
    """The text with each sign the font lacks as its code point, [732B]: ugly, and not lost."""
    known = _signs(style.bold)
    return "".join(sign if ord(sign) in known or sign == "\n" else " " if sign.isspace() else f"[{ord(sign):04X}]" for sign in text)


def width(text: str, style: Style) -> int:
    """Pixels from the first sign's origin to the end of the last, rounded up."""
    return -int(-font(style).getlength(text) // 1)


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
    """A word in pieces no wider than the room; at least one sign a piece."""
    pieces = [""]
    for sign in word:
        if pieces[-1] and width(pieces[-1] + sign, style) > room:
            pieces.append("")
        pieces[-1] += sign
    return pieces
