import io

import numpy
import pytest
import torch
from PIL import Image

from registry.formats.image_file import Size, Unreadable, decode
from train.data.images import fit, to_pixels


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def test_exif_rotation_is_applied() -> None:
    image = Image.new("RGB", (40, 20), "red")
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees to see it upright
    upright, size = decode(encoded(image, "JPEG", exif=exif))
    assert upright.size == (20, 40) and (size.width, size.height) == (20, 40)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_alpha_lies_over_white(mode: str) -> None:
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    clear.putpixel((0, 0), (0, 0, 0, 255))
    data = encoded(clear.convert(mode)) if mode != "P" else encoded(clear.quantize(4))
    image, _ = decode(data)
    assert image.mode == "RGB"
    assert image.getpixel((3, 3)) == (255, 255, 255) and image.getpixel((0, 0)) == (0, 0, 0)


def test_half_clear_black_is_grey() -> None:
    image, _ = decode(encoded(Image.new("RGBA", (2, 2), (0, 0, 0, 128))))
    assert image.getpixel((0, 0)) == (127, 127, 127)


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    values = numpy.full((4, 4), 32768, dtype=numpy.uint16)
    image, _ = decode(encoded(Image.fromarray(values)))
    assert image.getpixel((0, 0)) == (128, 128, 128)


def test_the_short_side_is_scaled_and_the_middle_kept() -> None:
    image = Image.new("RGB", (300, 100), "red")
    image.paste("blue", (100, 0, 200, 100))
    cut = fit(image, 50)
    assert cut.size == (50, 50)
    assert cut.getpixel((25, 25)) == (0, 0, 255) and cut.getpixel((3, 25)) == (0, 0, 255)
    assert Size(300, 100).cropped == pytest.approx(2 / 3)


@pytest.mark.parametrize("size", [(33, 47), (47, 33), (32, 32), (31, 400)])
def test_every_size_fits_exactly(size: tuple[int, int]) -> None:
    assert fit(Image.new("RGB", size), 32).size == (32, 32)


def test_a_square_of_the_right_size_is_not_touched() -> None:
    random = numpy.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=numpy.uint8)
    assert (numpy.asarray(fit(Image.fromarray(random), 16)) == random).all()


def test_pixels_span_minus_one_to_one() -> None:
    pixels = to_pixels(Image.fromarray(numpy.array([[[0, 255, 51]]], dtype=numpy.uint8)))
    assert torch.equal(pixels, torch.tensor([-1.0, 1.0, -0.6]).view(3, 1, 1))


@pytest.mark.parametrize(
    ("data", "why"), [(b"", "empty"), (b"not a picture", "no image format"), (b"\x89PNG\r\n\x1a\nrest", "cannot be decoded")]
)
def test_what_is_no_image_says_why(data: bytes, why: str) -> None:
    with pytest.raises(Unreadable, match=why):
        decode(data)


def test_a_cut_off_file_is_not_half_an_image() -> None:
    data = encoded(Image.effect_noise((64, 64), 50).convert("RGB"), "JPEG")
    with pytest.raises(Unreadable, match="decoded"):
        decode(data[: len(data) // 2])
