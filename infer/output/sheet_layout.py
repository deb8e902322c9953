"""Where everything of a contact sheet is: boxes of text, cells and source images, measured before anything is painted.

Two axes make a table, a block; each combination of further axes is a block of its own, laid side by side in lines. A table that would
be a strip is cut into several blocks. Labels wrap and make room for themselves: none is cut, shrunk or painted over.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import ceil, isqrt, sqrt
from typing import Protocol

from infer.output.encoding import size_of
from infer.output.gallery import OUTSIDE, CellImage, Gallery
from infer.output.sources import SourceImage
from registry.images.lettering import Style, legible, width, wrap

COMFORT = 200  # pixels a cell: small images are enlarged to this
MARGIN, GAP, ROOM = 36, 10, 300  # pixels: around the sheet, between cells, for a row's label
BETWEEN = 40  # pixels between blocks side by side
LEAST_COLUMN = 88  # pixels: a column label needs this, however small its images
FLOW, MOST_FLOW = 8, 64  # cells a line at least and at most, where there is one axis: as many as a square page of small ones has
LONG, STRIP = 24, 3  # a table of more rows or columns than LONG, and of STRIP times the others, is cut into blocks
SOURCE = 140  # pixels of the longer side of a source image

TITLE = Style(26, bold=True)
FIXED = Style(14, colour="#6e6e73")
BLOCK = Style(17, bold=True)
LABEL = Style(14)
AXIS = Style(12, colour="#6e6e73")


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels; right and bottom are outside."""

    left: int
    top: int
    right: int
    bottom: int

    def overlaps(self, other: "Box") -> bool:
        return self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom


@dataclass(frozen=True)
class Words:
    """Lines of text in their box."""

    box: Box
    lines: tuple[str, ...]
    style: Style
    centred: bool = False


@dataclass(frozen=True)
class Tile:
    """A cell's place: its image, or None where the grid has no cell."""

    box: Box
    image: CellImage | None


@dataclass(frozen=True)
class Sheet:
    """A sheet as it will be painted."""

    width: int
    height: int
    words: tuple[Words, ...]
    tiles: tuple[Tile, ...]
    sources: tuple[tuple[Box, SourceImage], ...] = ()


class Write(Protocol):
    """Sets a text in a column `room` pixels wide and gives the height it takes."""

    def __call__(self, text: str, style: Style, left: int, top: int, room: int, *, centred: bool = False) -> int: ...


@dataclass(frozen=True)
class Block:
    """One table of the sheet."""

    title: str
    rows: tuple[str, ...]  # labels; () where there are no rows
    columns: tuple[str, ...]
    rows_axis: str
    columns_axis: str
    images: tuple[tuple[CellImage | None, ...], ...]


def tables(gallery: Gallery) -> list[Block]:
    """The tables of the sheet, from the places of the cells. One axis alone flows over several lines."""
    layout, at = gallery.layout, gallery.at()
    dimensions = layout.dimensions
    if not dimensions:
        return [Block("", (), (), "", "", ((at.get(()),),))]
    if len(dimensions) == 1:
        (one,) = dimensions
        each = min(max(FLOW, isqrt(len(one))), MOST_FLOW)
        lines = [range(start, min(start + each, len(one))) for start in range(0, len(one), each)]
        return [
            Block(
                "",
                (),
                tuple(one.labels[index] for index in line),
                "",
                "" if number else one.name,
                (tuple(at.get((index,)) for index in line),),
            )
            for number, line in enumerate(lines)
        ]
    rows, columns = layout.rows, layout.columns
    assert rows is not None and columns is not None
    blocks: list[Block] = []
    for outer in product(*(range(len(dimensions[index])) for index in layout.blocks)):
        place = dict(zip(layout.blocks, outer, strict=True))

        def cell(row: int, column: int, place: dict[int, int] = place) -> CellImage | None:
            whole = {**place, rows: row, columns: column}
            return at.get(tuple(whole[index] for index in range(len(dimensions))))

        images = tuple(tuple(cell(row, column) for column in range(len(dimensions[columns]))) for row in range(len(dimensions[rows])))
        title = "  ·  ".join(f"{dimensions[index].name} {dimensions[index].labels[number]}" for index, number in place.items())
        if any(one is not None for line in images for one in line):
            blocks.append(
                Block(title, dimensions[rows].labels, dimensions[columns].labels, dimensions[rows].name, dimensions[columns].name, images)
            )
    return _cut(blocks)


def _cut(blocks: Sequence[Block]) -> list[Block]:
    """The tables, each cut where all of them side by side, or below each other, would still be a strip."""
    rows, columns = (len(blocks[0].images), len(blocks[0].images[0])) if blocks else (0, 0)
    if rows > LONG and rows > STRIP * columns * len(blocks):
        each = ceil(rows / round(sqrt(rows / columns)))
        return [part for block in blocks for start in range(0, rows, each) for part in first_rows([block], start, each)]
    if columns > LONG and columns > STRIP * rows * len(blocks):
        return cut_columns(blocks, ceil(columns / round(sqrt(columns / rows))))
    return list(blocks)


def cut_columns(blocks: Sequence[Block], most: int) -> list[Block]:
    """The blocks, each in parts of at most so many columns."""
    return [
        replace(block, columns=block.columns[start : start + most], images=tuple(line[start : start + most] for line in block.images))
        for block in blocks
        for start in range(0, len(block.images[0]), most)
    ]


def most_columns(gallery: Gallery, blocks: Sequence[Block], scale: float, room: int) -> int:
    """How many columns of a table fit a page `room` pixels wide, at least one."""
    size = _sizes(gallery, blocks, scale)
    return max((room - 2 * MARGIN - size.side + GAP) // (size.column + GAP), 1)


@dataclass(frozen=True)
class _Sizes:
    """Pixels of the parts of a table: its cells, its columns, the labels at its side, all of it."""

    tile: tuple[int, int]
    column: int
    side: int
    block: int


def _sizes(gallery: Gallery, blocks: Sequence[Block], scale: float) -> _Sizes:
    native = largest(gallery)
    tile = (max(round(native[0] * scale), 1), max(round(native[1] * scale), 1))
    column = max(tile[0], LEAST_COLUMN)
    labels = dict.fromkeys(label for block in blocks for label in block.rows)
    side = max((width(line, LABEL) for label in labels for line in wrap(label, LABEL, ROOM)), default=0)
    side = max(side, max((width(legible(axis, AXIS), AXIS) for axis in {block.rows_axis for block in blocks}), default=0))
    side += 2 * GAP if side else 0
    across = max((len(block.images[0]) for block in blocks if block.images), default=1)
    return _Sizes(tile, column, side, side + across * (column + GAP) - GAP)


def arrange(gallery: Gallery, blocks: Sequence[Block], scale: float, *, page: str = "") -> Sheet:
    """Boxes for every text and every cell at this scale, in as many blocks a line as make the page squarest; no two overlap."""
    size = _sizes(gallery, blocks, scale)
    most = len(blocks) if len(gallery.layout.dimensions) > 1 else 1  # the lines of one axis go below each other
    found: Sheet | None = None
    for count in range(1, most + 1):
        sheet = _arrange(gallery, blocks, size, count, page)
        if found is not None and _stretch(sheet) >= _stretch(found) and sheet.width > sheet.height:
            break  # wider pages are only longer from here on
        found = sheet if found is None or _stretch(sheet) < _stretch(found) else found
    assert found is not None
    return found


def _stretch(sheet: Sheet) -> float:
    """The longer side over the shorter."""
    return max(sheet.width, sheet.height) / min(sheet.width, sheet.height)


def _arrange(gallery: Gallery, blocks: Sequence[Block], size: _Sizes, count: int, page: str) -> Sheet:
    """The sheet with `count` blocks a line."""
    content = max(min(count, len(blocks)) * (size.block + BETWEEN) - BETWEEN, 560)
    words: list[Words] = []
    tiles: list[Tile] = []

    def write(text: str, style: Style, left: int, top: int, room: int, *, centred: bool = False) -> int:
        """Set a text and give the height it takes."""
        lines = wrap(text, style, room)
        words.append(Words(Box(left, top, left + room, top + len(lines) * style.leading), lines, style, centred))
        return len(lines) * style.leading

    top = MARGIN
    top += write(f"{gallery.title}  ·  {page}" if page else gallery.title, TITLE, MARGIN, top, content) + 4
    fixed = "  ·  ".join(f"{name} {value}" for name, value in gallery.fixed.items())
    top += write(fixed, FIXED, MARGIN, top, content) if fixed else 0
    sources, top = _arrange_sources(gallery.sources, content, top, write)
    for first in range(0, len(blocks), count):
        line = blocks[first : first + count]
        top += 26 if any(block.title or block.columns_axis for block in line) else GAP
        starts = [MARGIN + index * (size.block + BETWEEN) for index in range(len(line))]
        titles = [len(wrap(block.title, BLOCK, size.block)) * BLOCK.leading + 8 if block.title else 0 for block in line]
        for block, start in zip(line, starts, strict=True):
            if block.title:
                write(block.title, BLOCK, start, top, size.block)
        top += max(titles)
        top = max(_arrange_block(block, size, start, top, write, tiles) for block, start in zip(line, starts, strict=True))
    return Sheet(content + 2 * MARGIN, top + MARGIN, tuple(words), tuple(tiles), sources)


def _arrange_sources(
    sources: Sequence[SourceImage], content: int, top: int, write: Write
) -> tuple[tuple[tuple[Box, SourceImage], ...], int]:
    """The source images in lines under the head, each over its name; gives where they end."""
    placed: list[tuple[Box, SourceImage]] = []
    each = max(content // (SOURCE + GAP), 1)
    for first in range(0, len(sources), each):
        line = [(one, _source_size(one)) for one in sources[first : first + each]]
        bottom = top + 2 * GAP + max(high for _one, (_wide, high) in line)
        heights = []
        for index, (one, (wide, high)) in enumerate(line):
            left = MARGIN + index * (SOURCE + GAP)
            placed.append((Box(left, bottom - high, left + wide, bottom), one))
            heights.append(write(one.label, AXIS, left, bottom + 4, SOURCE))
        top = bottom + 4 + max(heights)
    return tuple(placed), top


def _source_size(one: SourceImage) -> tuple[int, int]:
    """Width and height in pixels of a source image on the sheet."""
    share = SOURCE / max(one.size)
    return max(round(one.size[0] * share), 1), max(round(one.size[1] * share), 1)


def _arrange_block(block: Block, size: _Sizes, start: int, top: int, write: Write, tiles: list[Tile]) -> int:
    """Set one table from `start` on; gives where it ends."""
    tile, column, side = size.tile, size.column, size.side
    left = start + side
    if block.rows_axis and block.rows:
        write(block.rows_axis, AXIS, start, top, max(side - 2 * GAP, 1))
    if block.columns_axis:
        top += write(block.columns_axis, AXIS, left, top, max(width(legible(block.columns_axis, AXIS), AXIS), 1)) + 2
    heads = [len(wrap(label, LABEL, column)) * LABEL.leading for label in block.columns]
    tallest = max(heads, default=0)
    for index, label in enumerate(block.columns):
        write(label, LABEL, left + index * (column + GAP), top + tallest - heads[index], column, centred=True)
    top += tallest + (6 if block.columns else 0)
    for row, images in enumerate(block.images):
        label = block.rows[row] if block.rows else ""
        tall = len(wrap(label, LABEL, max(side - 2 * GAP, 1))) * LABEL.leading if label else 0
        height = max(tile[1], tall)
        if label:
            write(label, LABEL, start, top + (height - tall) // 2, side - 2 * GAP)
        for index, image in enumerate(images):
            x = left + index * (column + GAP) + (column - tile[0]) // 2
            y = top + (height - tile[1]) // 2
            tiles.append(Tile(Box(x, y, x + tile[0], y + tile[1]), image))
        top += height + GAP
    return top - GAP


def largest(gallery: Gallery) -> tuple[int, int]:
    """The largest width and height of the gallery's images in pixels; of those drawn here, where there are any."""
    shown = [one for one in gallery.images if one.path]
    drawn = [one for one in shown if one.status != OUTSIDE] or shown
    sizes = list(dict.fromkeys(_size(one) for one in drawn)) or [(COMFORT, COMFORT)]
    return (max(width for width, _ in sizes), max(height for _, height in sizes))


def first_rows(blocks: Sequence[Block], start: int, count: int) -> list[Block]:
    """The blocks of `count` rows from row `start` on, counted over all blocks."""
    kept: list[Block] = []
    for block in blocks:
        rows = slice(max(start, 0), max(start + count, 0))
        if images := block.images[rows]:
            kept.append(replace(block, rows=block.rows[rows], images=images))
        start -= len(block.images)
    return kept


def _size(image: CellImage) -> tuple[int, int]:
    """Pixels of an image, from its header."""
    assert image.path is not None
    return size_of(image.path)
