"""The contact sheet: one PNG with every cell and every label, measured first and painted after.

Two axes make a table; each combination of further axes is a table of its own, below the last. Labels wrap and make room for
themselves: none is cut, shrunk or painted over. What does not fit under the size limit is noted.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from infer.output.gallery import CellImage, Gallery
from infer.output.lettering import Style, legible, letter, width, wrap
from registry.formats.atomic_file import atomic_file

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

LONGEST, MOST_PIXELS = 16_000, 48_000_000  # of the sheet: what viewers and web pages open without trouble
COMFORT, SMALLEST, LARGEST = 200, 48, 512  # pixels a cell: small images are enlarged to this, none is shrunk below, none is larger
MARGIN, GAP, ROOM = 36, 10, 300  # pixels: around the sheet, between cells, for a row's label
LEAST_COLUMN = 88  # pixels: a column label needs this, however small its images
FLOW = 8  # cells a line, where there is one axis

TITLE = Style(26, bold=True)
FIXED = Style(14, colour="#6e6e73")
BLOCK = Style(17, bold=True)
LABEL = Style(14)
AXIS = Style(12, colour="#8e8e93")
FAULT = Style(12, colour="#a1261b")
PAPER, FAULT_PAPER, NOTHING, EDGE = "#ffffff", "#fbecea", "#f5f5f7", "#e5e5ea"


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


def write_sheet(path: Path, gallery: Gallery) -> list[str]:
    """Write the sheet; gives notes on cells made smaller or left to the report."""
    sheet, notes = fit(gallery)
    whole = io.BytesIO()
    paint(sheet).save(whole, "PNG", compress_level=6)
    with atomic_file(path, needed=len(whole.getvalue())) as file:
        file.write(whole.getvalue())
    return notes


def fit(gallery: Gallery) -> tuple[Sheet, list[str]]:
    """The sheet with cells as large as the limits allow, and the notes on what had to give way."""
    blocks = tables(gallery)
    sizes = [_size(one) for one in gallery.images if one.path] or [(COMFORT, COMFORT)]
    native = (max(width for width, _ in sizes), max(height for _, height in sizes))
    for scale in _scales(max(native)):
        sheet = arrange(gallery, blocks, scale)
        if _fits(sheet):
            if scale < 1:
                return sheet, [
                    f"The sheet shows its cells at {round(scale * 100)} % of their size; images/ and the report have them whole."
                ]
            return sheet, []
    kept, rows = _cut(gallery, blocks, scale)
    total = sum(len(block.images) for block in blocks)
    return kept, [f"The sheet shows the first {rows} of {total} rows, so that it can be opened; images/ and the report have all."]


def _scales(side: int) -> Iterator[float]:
    """Scales to try: whole numbers for images that are small, then ever smaller ones."""
    largest = max(1, round(COMFORT / side)) if side <= COMFORT else min(1.0, LARGEST / side)
    scale = float(largest)
    while scale > 1:
        yield scale
        scale -= 1
    scale = min(scale, 1.0)
    while scale * side > SMALLEST:
        yield scale
        scale *= 0.85
    yield min(1.0, SMALLEST / side)


def _fits(sheet: Sheet) -> bool:
    return max(sheet.width, sheet.height) <= LONGEST and sheet.width * sheet.height <= MOST_PIXELS


def _cut(gallery: Gallery, blocks: Sequence[Block], scale: float) -> tuple[Sheet, int]:
    """The sheet of as many first rows as fit, at least one, and their number."""
    fewest, most = 1, sum(len(block.images) for block in blocks)
    while fewest < most:
        middle = (fewest + most + 1) // 2
        fewest, most = (middle, most) if _fits(arrange(gallery, _first(blocks, middle), scale)) else (fewest, middle - 1)
    return arrange(gallery, _first(blocks, fewest), scale), fewest


def _first(blocks: Sequence[Block], rows: int) -> list[Block]:
    kept: list[Block] = []
    for block in blocks:
        if rows > 0:
            kept.append(Block(block.title, block.rows[:rows], block.columns, block.rows_axis, block.columns_axis, block.images[:rows]))
        rows -= len(block.images)
    return kept


# --- layout


def tables(gallery: Gallery) -> list[Block]:
    """The tables of the sheet, from the places of the cells. One axis alone flows over several lines."""
    layout, at = gallery.layout, gallery.at()
    dimensions = layout.dimensions
    if not dimensions:
        return [Block("", (), (), "", "", ((at.get(()),),))]
    if len(dimensions) == 1:
        (one,) = dimensions
        lines = [range(start, min(start + FLOW, len(one))) for start in range(0, len(one), FLOW)]
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
    return blocks


def arrange(gallery: Gallery, blocks: Sequence[Block], scale: float) -> Sheet:
    """Boxes for every text and every cell at this scale; no two of them overlap."""
    sizes = [_size(one) for one in gallery.images if one.path] or [(COMFORT, COMFORT)]
    tile = (max(round(max(width for width, _ in sizes) * scale), 1), max(round(max(height for _, height in sizes) * scale), 1))
    column = max(tile[0], LEAST_COLUMN)
    side = max((width(line, LABEL) for block in blocks for label in block.rows for line in wrap(label, LABEL, ROOM)), default=0)
    side = max(side, max((width(legible(block.rows_axis, AXIS), AXIS) for block in blocks), default=0))
    side += 2 * GAP if side else 0
    across = max((len(block.images[0]) for block in blocks if block.images), default=1)
    content = max(side + across * (column + GAP) - GAP, 560)
    words: list[Words] = []
    tiles: list[Tile] = []

    def write(text: str, style: Style, left: int, top: int, room: int, *, centred: bool = False) -> int:
        """Set a text and give the height it takes."""
        lines = wrap(text, style, room)
        words.append(Words(Box(left, top, left + room, top + len(lines) * style.leading), lines, style, centred))
        return len(lines) * style.leading

    top = MARGIN
    top += write(gallery.title, TITLE, MARGIN, top, content) + 4
    top += (
        write("  ·  ".join(f"{name} {value}" for name, value in gallery.fixed.items()), FIXED, MARGIN, top, content) if gallery.fixed else 0
    )
    for block in blocks:
        top += 26 if block.title or block.columns_axis else GAP
        if block.title:
            top += write(block.title, BLOCK, MARGIN, top, content) + 8
        top = _arrange_block(block, tile, column, side, top, write, tiles)
    return Sheet(content + 2 * MARGIN, top + MARGIN, tuple(words), tuple(tiles))


def _arrange_block(block: Block, tile: tuple[int, int], column: int, side: int, top: int, write: Write, tiles: list[Tile]) -> int:
    """Set one table; gives where it ends."""
    left = MARGIN + side
    if block.rows_axis and block.rows:
        write(block.rows_axis, AXIS, MARGIN, top, max(side - 2 * GAP, 1))
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
            write(label, LABEL, MARGIN, top + (height - tall) // 2, side - 2 * GAP)
        for index, image in enumerate(images):
            x = left + index * (column + GAP) + (column - tile[0]) // 2
            y = top + (height - tile[1]) // 2
            tiles.append(Tile(Box(x, y, x + tile[0], y + tile[1]), image))
        top += height + GAP
    return top - GAP


# --- painting


def paint(sheet: Sheet) -> "Image":
    """The sheet as an image."""
    from PIL import Image, ImageDraw

    canvas = Image.new("RGB", (sheet.width, sheet.height), PAPER)
    draw = ImageDraw.Draw(canvas)
    for words in sheet.words:
        _letter(draw, words)
    for tile in sheet.tiles:
        box = tile.box
        draw.rectangle((box.left - 1, box.top - 1, box.right, box.bottom), outline=EDGE)
        if tile.image is None:
            draw.rectangle((box.left, box.top, box.right - 1, box.bottom - 1), fill=NOTHING)
        elif tile.image.path is None:
            _paint_fault(draw, box, tile.image)
        else:
            _paint_image(canvas, box, tile.image.path)
    return canvas


def _letter(draw: "ImageDraw", words: Words) -> None:
    for index, line in enumerate(words.lines):
        room = words.box.right - words.box.left
        left = words.box.left + ((room - width(line, words.style)) // 2 if words.centred else 0)
        letter(draw, left, words.box.top + index * words.style.leading, line, words.style)


def _paint_image(canvas: "Image", box: Box, path: Path) -> None:
    """The image in the middle of its box, its proportions kept; enlarged by a whole number or made smaller."""
    from PIL import Image

    with Image.open(path) as opened:
        image = opened.convert("RGB")
    scale = min((box.right - box.left) / image.width, (box.bottom - box.top) / image.height)
    size = (max(round(image.width * scale), 1), max(round(image.height * scale), 1))
    if size != image.size:
        image = image.resize(size, Image.Resampling.LANCZOS)
    canvas.paste(image, (box.left + (box.right - box.left - size[0]) // 2, box.top + (box.bottom - box.top - size[1]) // 2))


def _paint_fault(draw: "ImageDraw", box: Box, image: CellImage) -> None:
    """A cell without an image: what happened, as much of it as its box holds; the report has all."""
    draw.rectangle((box.left, box.top, box.right - 1, box.bottom - 1), fill=FAULT_PAPER)
    room = (box.right - box.left - 12, (box.bottom - box.top - 12) // FAULT.leading)
    lines = wrap(f"{image.status}\n{image.error or ''}", FAULT, max(room[0], 1))
    shown = (*lines[: max(room[1] - 1, 1)], "…") if len(lines) > room[1] else lines
    _letter(draw, Words(Box(box.left + 6, box.top + 6, box.right - 6, box.bottom - 6), shown, FAULT))


def _size(image: CellImage) -> tuple[int, int]:
    """Pixels of an image, from its PNG's header."""
    assert image.path is not None
    with image.path.open("rb") as file:
        start = file.read(24)
    return int.from_bytes(start[16:20], "big"), int.from_bytes(start[20:24], "big")
