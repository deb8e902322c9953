"""Text for images: installed fonts, measured wrapping, and no character that silently becomes an empty box.

DejaVu Sans, which travels with matplotlib, holds Latin, Greek, Cyrillic and much more. For what it lacks (Chinese, Japanese,
Korean, ...) the machine's own fonts are asked; what none of them holds is written as its code point.

libraqm, where Pillow has it, joins letters and puts right-to-left text in order (Unicode Standard Annex 9), line by line in the
direction of the paragraph. Characters that override that order are written as code points. In a line that takes several fonts the parts
of one font follow one another in the line's direction.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING
from unicodedata import bidirectional, category

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
    "notosans",
    "freesans",
    "lohit",
    "nirmala",
    "leelaw",
    "segoeui",
)
OVERRIDES = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # would reorder the rest of a line
MARKS = {True: "\u200f", False: "\u200e"}  # RIGHT-TO-LEFT MARK, LEFT-TO-RIGHT MARK: no width, and a direction


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
    """The text with each character that no font has, or that would reorder a line, as its code point, [732B]: nothing is lost."""
    return "".join(
        character if character == "\n" or _file_of(character, style.bold) else " " if character.isspace() else f"[{ord(character):04X}]"
        for character in text
    )


@cache
def shapes() -> bool:
    """Whether Pillow joins letters and orders right-to-left text: it has libraqm, and FriBidi, which its wheels look for, is installed."""
    from PIL import features

    return bool(features.check("raqm"))


def needs_shaping(text: str) -> bool:
    """Whether the text is wrong without libraqm: written from right to left, or with marks that stand over or under letters."""
    return any(bidirectional(character) in ("R", "AL") or category(character)[0] == "M" for character in text)


@lru_cache(maxsize=8192)
def right_to_left(text: str) -> bool:
    """Whether the first letter of the text is of a script written from right to left (rule P2 of Annex 9; HTML's dir=auto)."""
    return next((kind != "L" for kind in map(bidirectional, text) if kind in ("L", "R", "AL")), False)


@lru_cache(maxsize=8192)
def width(text: str, style: Style) -> int:
    """Pixels from the first character's origin to the end of the last, rounded up."""
    direction = _direction(text)
    return -int(-sum(_font(file, style.size).getlength(run, direction=direction) for run, file in _runs(text, style)) // 1)


def ink(text: str, style: Style) -> tuple[int, int, int, int]:
    """The box that the letters cover, for a line whose box begins at (0, 0)."""
    boxes, x, direction = [(0, 0, 0, 0)], 0.0, _direction(text)
    for run, file in _runs(text, style):
        left, top, right, bottom = _font(file, style.size).getbbox(run, anchor="ls", direction=direction)
        boxes.append((int(x + left), int(_baseline(style) + top), -int(-(x + right) // 1), -int(-(_baseline(style) + bottom) // 1)))
        x += _font(file, style.size).getlength(run, direction=direction)
    lefts, tops, rights, bottoms = zip(*boxes[1:] or boxes, strict=True)
    return min(lefts), min(tops), max(rights), max(bottoms)


def letter(draw: "ImageDraw", left: int, top: int, line: str, style: Style) -> None:
    """Draw a line whose box begins at (left, top), on one baseline whatever fonts it takes."""
    x, direction = float(left), _direction(line)
    for run, file in _runs(line, style):
        font = _font(file, style.size)
        draw.text((round(x), top + _baseline(style)), run, font=font, fill=style.colour, anchor="ls", direction=direction)
        x += font.getlength(run, direction=direction)


@lru_cache(maxsize=8192)
def wrap(text: str, style: Style, room: int) -> tuple[str, ...]:
    """The text in lines no wider than `room` pixels: broken at spaces, and inside a word that is wider than a line."""
    lines: list[str] = []
    for paragraph in legible(text, style).split("\n"):
        line, first = "", len(lines)
        for word in paragraph.split():
            if line and width(f"{line} {word}", style) <= room:
                line = f"{line} {word}"
                continue
            if line:
                lines.append(line)
            *whole, line = _pieces(word, style, room)
            lines += whole
        lines[first:] = [_directed(one, right_to_left(paragraph)) for one in (*lines[first:], line)]
    while len(lines) > 1 and not lines[-1]:
        lines.pop()
    return tuple(lines)


def _directed(line: str, leftwards: bool) -> str:
    """A line of a paragraph with a mark before it where it alone would take the other direction."""
    return line if right_to_left(line) == leftwards or not shapes() else MARKS[leftwards] + line


def _pieces(word: str, style: Style, room: int) -> list[str]:
    """A word in pieces no wider than the room; at least one letter with its marks a piece."""
    pieces = [""]
    for character in word:
        if pieces[-1] and category(character)[0] != "M" and width(pieces[-1] + character, style) > room:
            pieces.append("")
        pieces[-1] += character
    return pieces


# --- fonts


@cache
def _font(file: str, size: int) -> "FreeTypeFont":
    from PIL import ImageFont

    return ImageFont.truetype(file, size, layout_engine=ImageFont.Layout.RAQM if shapes() else ImageFont.Layout.BASIC)


def _direction(line: str) -> str | None:
    """The direction of a line as Pillow takes it; None where it knows of none."""
    return ("rtl" if right_to_left(line) else "ltr") if shapes() else None


@cache
def _baseline(style: Style) -> int:
    """Pixels from the top of a line's box to its baseline."""
    return _font(_dejavu(style.bold), style.size).getmetrics()[0]


@cache
def _dejavu(bold: bool) -> str:
    found = find_spec("matplotlib")  # its data folder is beside its code; importing it takes a tenth of a CPU second
    assert found is not None and found.origin is not None
    return str(Path(found.origin).parent / "mpl-data" / "fonts" / "ttf" / ("DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"))


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
    """The font file that has the character: DejaVu before any other; None when no font has it, or it is an override."""
    if character in OVERRIDES:
        return None
    if (character.isascii() and character.isprintable()) or ord(character) in _signs(_dejavu(bold)):
        return _dejavu(bold)
    if not character.isprintable():
        return None
    return next((file for file in _others() if ord(character) in _signs(file)), None)


def _runs(text: str, style: Style) -> Iterator[tuple[str, str]]:
    """(run of characters, the font file that has them) from left to right; `text` is legible."""
    groups = groupby(text, lambda character: _file_of(character, style.bold) or _dejavu(style.bold))
    runs = [("".join(characters), file) for file, characters in groups]
    yield from reversed(runs) if shapes() and right_to_left(text) else runs
