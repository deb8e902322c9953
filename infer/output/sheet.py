"""The contact sheet: PNGs with every cell and every label, measured first and painted after.

Cells have their own pixels where a few pages hold them so. Else one PNG where the cells are readable on it, or several pages; what
does not fit under the limits even so is noted.
"""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from infer.output.gallery import CellImage, Gallery
from infer.output.sheet_layout import COMFORT, Block, Box, Sheet, Words, arrange, cut_columns, first_rows, largest, most_columns, tables
from registry.formats.atomic_file import atomic_file
from registry.images.lettering import Style, letter, needs_shaping, right_to_left, shapes, width, wrap

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

LONGEST, MOST_PIXELS = 16_000, 48_000_000  # of a page: what viewers and web pages open without trouble
SMALLEST, READABLE, LARGEST = 48, 160, 512  # pixels a cell: below READABLE only where there would be more than PAGES pages
PAGES, WHOLE = 24, 4  # pages at most, and with cells of 512 pixels and more at their own size
LEVEL = 4  # of zlib: a page in half the time of level 6, and 6 % more bytes
FAST = 8_000_000  # pixels of a page beyond which it is written in less time still, and a quarter more bytes

FAULT = Style(12, colour="#a1261b")
UNSHAPED = (
    "Pillow has no libraqm here: on the sheet, letters written from right to left (Arabic, Hebrew) are in the wrong order and not joined; "
    "the report has them right. Pillow's wheels hold libraqm and need FriBidi beside it: apt install libfribidi0, brew install fribidi."
)
PAPER, FAULT_PAPER, NOTHING, EDGE = "#ffffff", "#fbecea", "#f5f5f7", "#e5e5ea"


def write_sheet(path: Path, gallery: Gallery) -> list[str]:
    """Write the sheet, its first page at `path` and others beside it; gives notes on cells made smaller or left to the report."""
    sheets, notes = fit(gallery)
    for number, sheet in enumerate(sheets, 1):
        whole = io.BytesIO()
        paint(sheet).save(whole, "PNG", compress_level=LEVEL if sheet.width * sheet.height <= FAST else 1)
        with atomic_file(page_path(path, number), needed=len(whole.getvalue())) as file:
            file.write(whole.getvalue())
    if len(sheets) > 1:
        notes.insert(0, f"The sheet has {len(sheets)} pages: {path.name} to {page_path(path, len(sheets)).name}.")
    if not shapes() and any(needs_shaping(line) for sheet in sheets for words in sheet.words for line in words.lines):
        notes.append(UNSHAPED)
    return notes


def page_path(path: Path, number: int) -> Path:
    """The file of a page of the sheet at `path`: sheet.png, sheet-2.png, ..."""
    return path if number == 1 else path.with_stem(f"{path.stem}-{number}")


def fit(gallery: Gallery) -> tuple[list[Sheet], list[str]]:
    """The pages with cells as large as the limits allow, and the notes on what had to give way."""
    blocks = tables(gallery)
    side = max(largest(gallery))
    readable = min(READABLE, side)
    scales = list(_scales(side))
    if side > COMFORT and (whole := _whole(gallery, blocks)):
        return whole, []
    for scale in (scale for scale in scales if scale * side >= readable):
        if _fits(sheet := arrange(gallery, blocks, scale)):
            return [sheet], _smaller(scale)
    for scale in (scale for scale in scales if scale * side <= readable or scale == scales[-1]):
        parts = cut_columns(blocks, most_columns(gallery, blocks, scale, LONGEST))
        rows = sum(len(block.images) for block in parts)
        pages, shown = _pages(gallery, parts, scale)
        if shown == rows:
            break
    left_out = f"The sheet shows the first {shown} of {rows} rows, so that it can be opened; images/ and the report have all."
    return pages, [*_smaller(scale), *([left_out] if shown < rows else [])]


def _whole(gallery: Gallery, blocks: Sequence[Block]) -> list[Sheet]:
    """The pages with every cell at its own size, at most WHOLE of them; none where it takes more."""
    wide, high = largest(gallery)
    if sum(len(row) for block in blocks for row in block.images) * wide * high > WHOLE * MOST_PIXELS:
        return []
    if _fits(sheet := arrange(gallery, blocks, 1.0)):
        return [sheet]
    parts = cut_columns(blocks, most_columns(gallery, blocks, 1.0, LONGEST))
    pages, shown = _pages(gallery, parts, 1.0, most=WHOLE)
    return pages if shown == sum(len(block.images) for block in parts) and all(map(_fits, pages)) else []


def _smaller(scale: float) -> list[str]:
    if scale >= 1:
        return []
    return [f"The sheet shows its cells at {round(scale * 100)} % of their size; images/ and the report have them whole."]


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


def _pages(gallery: Gallery, blocks: Sequence[Block], scale: float, *, most: int | None = None) -> tuple[list[Sheet], int]:
    """Pages of as many rows as fit, at most `most` of them (None: PAGES), at least one row each; and the number of rows that they show."""
    total = sum(len(block.images) for block in blocks)
    pages: list[Sheet] = []
    start = 0
    while start < total and len(pages) < (PAGES if most is None else most):
        count = _most_rows(gallery, blocks, scale, start, total - start)
        pages.append(arrange(gallery, first_rows(blocks, start, count), scale, page=f"page {len(pages) + 1}"))
        start += count
    return pages, start


def _most_rows(gallery: Gallery, blocks: Sequence[Block], scale: float, start: int, left: int) -> int:
    """How many rows from `start` on one page holds: whole blocks where one fits, at least one row."""

    def fits(count: int) -> bool:
        return _fits(arrange(gallery, first_rows(blocks, start, count), scale, page="page 1"))

    fewest, most = 1, left
    while fewest < most:
        middle = (fewest + most + 1) // 2
        fewest, most = (middle, most) if fits(middle) else (fewest, middle - 1)
    ends, end = [], 0
    for block in blocks:
        end += len(block.images)
        ends.append(end - start)
    return max((one for one in ends if 0 < one <= fewest), default=fewest)


# --- painting


def paint(sheet: Sheet) -> "Image":
    """The sheet as an image."""
    from PIL import Image, ImageDraw

    canvas = Image.new("RGB", (sheet.width, sheet.height), PAPER)
    draw = ImageDraw.Draw(canvas)
    for words in sheet.words:
        _letter(draw, words)
    for box, source in sheet.sources:
        draw.rectangle((box.left - 1, box.top - 1, box.right, box.bottom), outline=EDGE)
        _paint_image(canvas, box, io.BytesIO(source.png))
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
        room = words.box.right - words.box.left - width(line, words.style)
        left = words.box.left + (room // 2 if words.centred else room if right_to_left(line) else 0)
        letter(draw, left, words.box.top + index * words.style.leading, line, words.style)


def _paint_image(canvas: "Image", box: Box, file: Path | io.BytesIO) -> None:
    """The image in the middle of its box, its proportions kept; enlarged by a whole number or made smaller."""
    from PIL import Image

    with Image.open(file) as opened:
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
