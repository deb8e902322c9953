"""The contact sheet: every label whole and legible, nothing over anything, the right image in the right place."""

import io
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest
from PIL import Image, ImageDraw, features

import infer.output.sheet
from infer.output.gallery import Gallery
from infer.output.sheet import SMALLEST, write_sheet
from infer.output.sheet import fit as pages
from infer.output.sheet_layout import Box, Sheet
from infer.output.sources import SourceImage
from registry.images import lettering
from registry.images.lettering import Style, ink, legible, letter, right_to_left, shapes, width, wrap
from tests.infer.images import gallery, square

LONG = "a very long prompt about a cat, a dog and Donaudampfschifffahrtsgesellschaftskapitänsmützenabzeichen_v2-000300.safetensors " * 3
GRIDS: dict[str, dict[str, list[object]]] = {
    "none": {},
    "one axis": {"seed": list(range(1, 21))},
    "two axes": {"prompt": ["a cat", LONG, "ein Hund, Ünï, кот, 猫"], "weight": [0, 0.5, 1]},
    "long columns": {"sampler": ["euler", LONG, "dpmpp_2m_sde_karras"], "negative": ["a", LONG]},
    "right to left": {
        "prompt": ["قطة صغيرة على سجادة حمراء " * 4, "חתול (קטן) ו-3 כלבים", "a rug, שלום"],
        "negative": ["مرحبا", "cafe\u0301"],
    },
    "three axes": {"prompt": ["a cat", "a dog"], "seed": [1, 2, 3], "weight": [0, 1]},
    "many": {"steps": list(range(20)), "guidance": list(range(16))},
}


def fit(shown: Gallery) -> tuple[Sheet, list[str]]:
    """The sheet of a gallery that has room on one page."""
    (sheet,), notes = pages(shown)
    return sheet, notes


def source(name: str, size: tuple[int, int]) -> SourceImage:
    whole = io.BytesIO()
    square((200, 100, 0), size).save(whole, "PNG")
    return SourceImage(label=name, png=whole.getvalue(), size=size)


@pytest.mark.parametrize("axes", GRIDS.values(), ids=GRIDS)
def test_nothing_overlaps_and_nothing_is_cut(tmp_path: Path, axes: dict[str, list[object]]) -> None:
    sources = [source(f"init photo-{number}.jpg {LONG[:90]}", (300 - 40 * number, 200)) for number in range(7)]
    shown = replace(gallery(tmp_path, axes, failed=[(1, 1)]), sources=sources)
    sheet, _notes = fit(shown)
    assert [one for _box, one in sheet.sources] == sources
    boxes = [one.box for one in sheet.words] + [one.box for one in sheet.tiles] + [box for box, _source in sheet.sources]
    assert not [pair for pair in combinations(boxes, 2) if pair[0].overlaps(pair[1])]
    assert all(0 < box.left < box.right < sheet.width and 0 < box.top < box.bottom < sheet.height for box in boxes)
    for words in sheet.words:
        for number, line in enumerate(words.lines):
            left, top, right, bottom = ink(line, words.style)
            assert left >= -1 and right <= words.box.right - words.box.left + 1  # the ink, not the advance: one pixel of overhang
            assert words.box.top <= words.box.top + number * words.style.leading + top
            assert words.box.top + number * words.style.leading + bottom <= words.box.bottom
            assert words.style.size >= 12
    written = "".join("".join(one.lines).replace(" ", "") for one in sheet.words)
    labels = [label for one in shown.layout.dimensions for label in one.labels]
    style = Style(14)
    assert all(legible(label, style).replace(" ", "") in written for label in labels)


@pytest.mark.slow
@pytest.mark.parametrize("axes", GRIDS.values(), ids=GRIDS)
def test_each_image_is_in_its_place(tmp_path: Path, axes: dict[str, list[object]]) -> None:
    shown = gallery(tmp_path / "images", axes)
    sheet, _ = fit(shown)
    write_sheet(tmp_path / "sheet.png", shown)
    assert {one.image.place for one in sheet.tiles if one.image} == {one.place for one in shown.images}
    with Image.open(tmp_path / "sheet.png") as painted:
        assert painted.size == (sheet.width, sheet.height)
        for tile in sheet.tiles:
            assert tile.image is not None
            middle = ((tile.box.left + tile.box.right) // 2, (tile.box.top + tile.box.bottom) // 2)
            expected = tuple(min(40 * at, 255) if 40 * at < 256 else None for at in (*tile.image.place, 0, 0, 0))[:3]
            assert all(want is None or abs(want - got) <= 1 for want, got in zip(expected, painted.getpixel(middle), strict=True))  # type: ignore[arg-type]


def test_labels_stand_beside_their_images(tmp_path: Path) -> None:
    sheet, _ = fit(gallery(tmp_path, {"prompt": ["one", "two", "three"], "weight": ["0.25", "0.75"]}))
    labels = {one.lines[0]: one.box for one in sheet.words}
    for tile in sheet.tiles:
        assert tile.image is not None
        row, column = labels[("one", "two", "three")[tile.image.place[0]]], labels[("0.25", "0.75")[tile.image.place[1]]]
        assert row.right <= tile.box.left and tile.box.top <= (row.top + row.bottom) // 2 <= tile.box.bottom
        assert column.bottom <= tile.box.top and column.left <= (tile.box.left + tile.box.right) // 2 <= column.right


def test_small_images_are_enlarged_by_a_whole_number_and_large_ones_keep_their_pixels(tmp_path: Path) -> None:
    small, _ = fit(gallery(tmp_path / "small", {"seed": [1, 2]}, size=(64, 48)))
    assert {(one.box.right - one.box.left, one.box.bottom - one.box.top) for one in small.tiles} == {(192, 144)}
    large, notes = fit(gallery(tmp_path / "large", {"seed": [1, 2]}, size=(1024, 512)))
    assert {(one.box.right - one.box.left, one.box.bottom - one.box.top) for one in large.tiles} == {(1024, 512)}
    assert notes == []


def test_large_images_keep_their_pixels_on_a_few_pages_and_are_smaller_beyond(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = gallery(tmp_path / "images", {"prompt": list("abcdef"), "seed": [1, 2]}, size=(300, 300))
    monkeypatch.setattr(infer.output.sheet, "MOST_PIXELS", 800_000)
    sheets, notes = pages(shown)
    assert len(sheets) == 3 and {one.box.right - one.box.left for sheet in sheets for one in sheet.tiles} == {300} and notes == []
    write_sheet(tmp_path / "sheet.png", shown)
    with Image.open(tmp_path / "sheet.png") as painted, Image.open(tmp_path / "images" / "3.png") as own:
        assert shown.images[3].path and painted.crop(_box(sheets[0], shown.images[3].path)).tobytes() == own.tobytes()
    monkeypatch.setattr(infer.output.sheet, "WHOLE", 2)
    sheets, notes = pages(shown)
    assert len(sheets) == 1 and "%" in notes[0]


def _box(sheet: Sheet, path: Path) -> tuple[int, int, int, int]:
    (box,) = [one.box for one in sheet.tiles if one.image and one.image.path == path]
    return box.left, box.top, box.right, box.bottom


@pytest.mark.slow
def test_blocks_are_laid_side_by_side_towards_a_square_page(tmp_path: Path) -> None:
    """4 x 3 x 6 x 4 cells were a strip of 632 x 14,655 pixels."""
    shown = gallery(
        tmp_path, {"prompt": list("abcd"), "seed": [1, 2, 3], "adapter": list("uvwxyz"), "weight": [0, 0.3, 0.6, 1]}, size=(512, 512)
    )
    sheets, notes = pages(shown)
    assert all(max(one.width, one.height) < 2 * min(one.width, one.height) for one in sheets)
    assert sum(len(one.tiles) for one in sheets) == 288
    assert {one.box.right - one.box.left for sheet in sheets for one in sheet.tiles} == {512} and len(sheets) == 2 and notes == []
    titles = [one for one in sheets[0].words if one.lines[0].startswith("seed")]
    assert len({one.box.left for one in titles}) > 1 and len({one.box.top for one in titles}) > 1


@pytest.mark.parametrize(
    "axes", [{"seed": list(range(80)), "guidance": [1, 4]}, {"prompt": ["a", "b"], "seed": list(range(80))}, {"seed": list(range(80))}]
)
def test_a_long_table_is_cut_into_blocks_and_is_no_strip(tmp_path: Path, axes: dict[str, list[object]]) -> None:
    """260 seeds by two scales were a strip of 632 x 15,970 pixels."""
    shown = gallery(tmp_path, axes)
    sheet, notes = fit(shown)
    assert max(sheet.width, sheet.height) < 2 * min(sheet.width, sheet.height) and notes == []
    assert sorted(one.image.place for one in sheet.tiles if one.image) == [one.place for one in shown.images]
    labels = [" ".join(words.lines) for words in sheet.words]
    assert all(str(seed) in labels for seed in range(80))


@pytest.mark.slow
def test_a_table_that_is_wider_than_a_page_is_cut_into_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(infer.output.sheet, "LONGEST", 2000)
    shown = gallery(tmp_path, {"steps": list(range(12)), "seed": list(range(30))})
    sheets, _notes = pages(shown)
    assert all(max(one.width, one.height) <= 2000 for one in sheets)
    assert sorted(one.image.place for sheet in sheets for one in sheet.tiles if one.image) == [one.place for one in shown.images]


@pytest.mark.slow
def test_a_sheet_that_would_be_too_large_has_several_pages_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(infer.output.sheet, "LONGEST", 2000)
    monkeypatch.setattr(infer.output.sheet, "MOST_PIXELS", 600_000)
    shown = gallery(tmp_path / "a", {"steps": list(range(60)), "guidance": [1, 2]})
    sheets, notes = pages(shown)
    assert all(max(one.width, one.height) <= 2000 and one.width * one.height <= 600_000 for one in sheets)
    assert [one.image.place for sheet in sheets for one in sheet.tiles if one.image] == [one.place for one in shown.images]
    assert len(sheets) > 1 and notes == []
    written = write_sheet(tmp_path / "sheet.png", shown)
    names = ["sheet.png", *(f"sheet-{number}.png" for number in range(2, len(sheets) + 1))]
    assert written[0] == f"The sheet has {len(sheets)} pages: sheet.png to {names[-1]}."
    assert sorted(path.name for path in tmp_path.glob("*.png")) == sorted(names)
    for name, sheet in zip(names, sheets, strict=True):
        with Image.open(tmp_path / name) as painted:
            assert painted.size == (sheet.width, sheet.height)


@pytest.mark.slow
def test_more_pages_than_anybody_opens_are_smaller_then_fewer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(infer.output.sheet, "LONGEST", 2000)
    monkeypatch.setattr(infer.output.sheet, "MOST_PIXELS", 400_000)
    monkeypatch.setattr(infer.output.sheet, "PAGES", 2)
    shown = gallery(tmp_path, {"steps": list(range(100)), "guidance": [1, 2]}, size=(96, 96))
    sheets, notes = pages(shown)
    assert len(sheets) == 2 and {one.box.right - one.box.left for sheet in sheets for one in sheet.tiles} == {SMALLEST}
    assert "50 %" in notes[0] and f"first {sum(len(one.tiles) for one in sheets) // 2} of 100 rows" in notes[1]


def test_source_images_are_painted_under_the_head(tmp_path: Path) -> None:
    shown = replace(
        gallery(tmp_path / "images", {"seed": [1, 2]}), sources=[source("init photo.jpg", (300, 150)), source("mask m.png", (64, 64))]
    )
    sheet, _ = fit(shown)
    write_sheet(tmp_path / "sheet.png", shown)
    with Image.open(tmp_path / "sheet.png") as painted:
        for box, _one in sheet.sources:
            assert max(box.right - box.left, box.bottom - box.top) == 140
            assert painted.getpixel(((box.left + box.right) // 2, (box.top + box.bottom) // 2)) == (200, 100, 0)
    assert {"init photo.jpg", "mask m.png"} <= {" ".join(one.lines) for one in sheet.words}


def test_a_cell_the_grid_does_not_have_is_empty_and_a_failed_one_says_so(tmp_path: Path) -> None:
    shown = gallery(tmp_path / "images", {"prompt": ["a", "b"], "seed": [1, 2]}, failed=[(0, 1)], absent=[(1, 0)])
    sheet, _ = fit(shown)
    assert [one.image.status if one.image else None for one in sheet.tiles] == ["rendered", "failed", None, "rendered"]
    write_sheet(tmp_path / "sheet.png", shown)
    with Image.open(tmp_path / "sheet.png") as painted:
        box = sheet.tiles[1].box
        inks = {painted.getpixel((x, y)) for x in range(box.left, box.right) for y in range(box.top, box.top + 40)}
        assert (161, 38, 27) in inks  # the fault's letters


def test_the_same_grid_gives_the_same_bytes(tmp_path: Path) -> None:
    shown = gallery(tmp_path / "images", GRIDS["three axes"])
    for name in ("one.png", "two.png"):
        write_sheet(tmp_path / name, shown)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_wrapping_loses_no_sign() -> None:
    style = Style(14)
    for text in (LONG, "word", "", "two\nlines", "猫" * 50, "a  b"):
        lines = wrap(text, style, 120)
        assert all(width(line, style) <= 120 for line in lines)
        assert "".join(lines).replace(" ", "") == legible(text, style).replace(" ", "").replace("\n", "")
    assert wrap("a cat and a dog", style, 10_000) == ("a cat and a dog",)


def drawn(*placed: tuple[int, str]) -> bytes:
    """The pixels of texts, each from its own left edge on."""
    image = Image.new("L", (200, 30), "white")
    for left, text in placed:
        letter(ImageDraw.Draw(image), left, 5, text, Style(14, colour="black"))
    return image.tobytes()


def test_text_from_right_to_left_has_its_first_letter_at_the_right_and_its_letters_joined() -> None:
    style = Style(14)
    left, right = ("ב", "א") if shapes() else ("א", "ב")
    assert drawn((10, "אב")) == drawn((10, left), (10 + round(lettering._font(lettering._dejavu(False), 14).getlength(left)), right))
    assert (width("مرحبا", style) < sum(width(one, style) for one in "مرحبا") - 4) == shapes()
    assert (drawn((10, "cafe\u0301")) == drawn((10, "café"))) == shapes()


def test_each_line_has_the_direction_of_its_paragraph() -> None:
    style = Style(14)
    first, second = wrap("שלום עולם sd_xl_base_1.0", style, 120)
    assert first == "שלום עולם" and second == ("\u200fsd_xl_base_1.0" if shapes() else "sd_xl_base_1.0")
    assert right_to_left(second) == shapes() and width(second, style) == width("sd_xl_base_1.0", style)
    assert wrap("a cat named\nשלום", style, 120) == ("a cat named", "שלום")
    assert not right_to_left("1, 2: a שלום") and right_to_left("1, 2: שלום a")


def test_what_would_reorder_a_line_is_spelt_out() -> None:
    assert legible("a\u202egnp.exe\u2066", Style(14)) == "a[202E]gnp.exe[2066]"


def test_a_piece_of_a_word_does_not_begin_with_a_mark() -> None:
    assert all(line[0] == "e" for line in wrap("e\u0301" * 40, Style(14), 30))


def test_without_libraqm_a_note_says_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = gallery(tmp_path / "images", {"prompt": ["שלום", "a cat"]})
    assert (write_sheet(tmp_path / "sheet.png", shown) == []) == shapes()
    monkeypatch.setattr(features, "check", lambda name: False)
    for kept in (lettering.shapes, lettering._font, lettering.width, lettering.wrap):
        kept.cache_clear()
    assert write_sheet(tmp_path / "sheet.png", shown) == [infer.output.sheet.UNSHAPED]
    assert write_sheet(tmp_path / "sheet.png", gallery(tmp_path / "others", {"prompt": ["a dog", "ein Hund, Ünï, кот"]})) == []
    for kept in (lettering.shapes, lettering._font, lettering.width, lettering.wrap):
        kept.cache_clear()


def test_a_sign_that_no_font_has_is_spelt_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lettering, "_others", lambda: ())
    lettering._file_of.cache_clear()
    assert legible("a 猫\t🐈é", Style(14)) == "a [732B] [1F408]é"
    lettering._file_of.cache_clear()


def test_the_machines_fonts_are_asked_for_what_ours_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = lettering._dejavu(True)  # stands for a font with more signs
    monkeypatch.setattr(lettering, "_others", lambda: (other,))
    monkeypatch.setattr(
        lettering, "_signs", lambda file: {ord("a"), ord(" ")} if file == lettering._dejavu(False) else {ord("a"), ord("ж")}
    )
    lettering._file_of.cache_clear()
    assert legible("aж я", Style(14)) == "aж [044F]"
    assert [run for run, _file in lettering._runs("aжжa", Style(14))] == ["a", "жж", "a"]
    assert width("жж", Style(14)) > 2 * width("ж", Style(14)) - 2 and ink("aж", Style(14))[2] <= width("aж", Style(14)) + 1
    lettering._file_of.cache_clear()


def test_boxes_that_touch_do_not_overlap() -> None:
    assert not Box(0, 0, 10, 10).overlaps(Box(10, 0, 20, 10)) and Box(0, 0, 10, 10).overlaps(Box(9, 9, 20, 20))
