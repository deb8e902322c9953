import io
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image

from registry.formats.image_file import Size, Unreadable
from train.data.images import fit
from train.masks.mask import ALPHA, at_latents, decoded, read


def png(values: object, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(numpy.asarray(values, dtype=numpy.uint8)).save(buffer, format="PNG", **options)
    return buffer.getvalue()


def test_a_mask_is_grey_and_its_share_is_its_mean() -> None:
    values = [[0, 255, 255, 0], [0, 51, 0, 0]]
    mask, remarks = read("a_mask.png", lambda: png(values), Size(4, 2))
    assert mask.share == pytest.approx((2 + 0.2) / 8) and mask.box == (1, 0, 3, 2) and not remarks
    assert numpy.asarray(decoded(mask.read(), alpha=mask.name == ALPHA)).tolist() == values


def test_alpha_is_the_images_own() -> None:
    pixels = numpy.zeros((2, 2, 4), numpy.uint8)
    pixels[0, 1, 3] = 255
    mask, _ = read(ALPHA, lambda: png(pixels), Size(2, 2))
    assert mask.share == 0.25 and mask.box == (1, 0, 2, 1) and mask.identity == "alpha"
    with pytest.raises(Unreadable, match="no alpha channel"):
        read(ALPHA, lambda: png([[0, 1], [2, 3]]), Size(2, 2))


def test_masks_of_another_shape_and_empty_ones_are_no_masks() -> None:
    with pytest.raises(Unreadable, match=r"4x2 pixels and its image 2x4, the other way round: save it as its image is shown"):
        read("m.png", lambda: png(numpy.full((2, 4), 255)), Size(2, 4))
    with pytest.raises(Unreadable, match="black everywhere"):
        read("m.png", lambda: png(numpy.zeros((2, 2))), Size(2, 2))
    with pytest.raises(Unreadable, match="cannot be decoded"):
        read("m.png", lambda: b"no image", Size(2, 2))


def test_what_is_unusual_is_noted() -> None:
    assert read("m.png", lambda: png(numpy.full((8, 8), 255)), Size(8, 8))[1] == ["keeps the whole image"]
    ring = numpy.full((40, 40), 255)
    ring[8:32, 8:32] = 0
    assert "is it inverted?" in read("m.png", lambda: png(ring), Size(40, 40))[1][0]
    assert not read("m.png", lambda: png(255 - ring), Size(40, 40))[1]
    dot = numpy.zeros((40, 40))
    dot[20, 20] = 255
    assert read("m.png", lambda: png(dot), Size(40, 40))[1] == ["keeps 0.1% of its image"]


def test_a_turned_mask_is_read_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    mask, _ = read("m.png", lambda: png([[255, 0, 0]], exif=exif), Size(1, 3))
    assert numpy.asarray(decoded(mask.read(), alpha=mask.name == ALPHA)).ravel().tolist() == [255, 0, 0]


def test_a_sixteen_bit_mask_is_read_by_its_range() -> None:
    buffer = io.BytesIO()
    Image.fromarray(numpy.array([[0, 32896, 65535]], dtype=numpy.uint16)).save(buffer, format="PNG")
    mask, _ = read("m.png", buffer.getvalue, Size(3, 1))
    assert numpy.asarray(decoded(mask.read(), alpha=mask.name == ALPHA)).ravel().tolist() == [0, 128, 255]


def test_a_mask_lies_where_its_image_does() -> None:
    """A white box in an image and the same box as its mask end up on the same pixels, cropped and mirrored."""
    values = numpy.zeros((60, 100), numpy.uint8)
    values[10:40, 30:60] = 255
    image = Image.fromarray(values)
    for corner, flipped in ((None, False), ((3, 0), False), ((3, 0), True)):
        mask = numpy.asarray(fit(image, 30, 30, corner=corner, flipped=flipped, is_mask=True))
        drawn = numpy.asarray(fit(image.convert("RGB"), 30, 30, corner=corner, flipped=flipped).convert("L"))
        assert ((mask > 127) == (drawn > 127)).all() and mask.any()


def test_a_latent_has_the_mean_of_its_pixels() -> None:
    values = numpy.zeros((4, 8), numpy.uint8)
    values[0, :4] = 255
    found = at_latents(Image.fromarray(values), (1, 2))
    assert torch.equal(found, torch.tensor([[[0.25, 0.0]]])) and found.dtype == torch.float32


def test_a_mask_of_a_file_is_known_by_its_bytes(tmp_path: Path) -> None:
    one, other = (png([[value]]) for value in (200, 201))
    first, second = (read("m.png", lambda data=data: data, Size(1, 1))[0] for data in (one, other))  # type: ignore[misc]
    assert first.identity != second.identity
