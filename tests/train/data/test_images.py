import numpy
import pytest
import torch
from PIL import Image

from registry.formats.image_file import Size
from train.data.images import fit, to_pixels


def test_the_short_side_is_scaled_and_the_middle_kept() -> None:
    image = Image.new("RGB", (300, 100), "red")
    image.paste("blue", (100, 0, 200, 100))
    cut = fit(image, 50, 50)
    assert cut.size == (50, 50)
    assert cut.getpixel((25, 25)) == (0, 0, 255) and cut.getpixel((3, 25)) == (0, 0, 255)
    assert Size(300, 100).cropped == pytest.approx(2 / 3)


@pytest.mark.parametrize("size", [(33, 47), (47, 33), (32, 32), (31, 400)])
def test_every_size_fits_exactly(size: tuple[int, int]) -> None:
    assert fit(Image.new("RGB", size), 32, 32).size == (32, 32)


def test_a_square_of_the_right_size_is_not_touched() -> None:
    random = numpy.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=numpy.uint8)
    assert (numpy.asarray(fit(Image.fromarray(random), 16, 16)) == random).all()


def test_pixels_span_minus_one_to_one() -> None:
    pixels = to_pixels(Image.fromarray(numpy.array([[[0, 255, 51]]], dtype=numpy.uint8)))
    assert torch.equal(pixels, torch.tensor([-1.0, 1.0, -0.6]).view(3, 1, 1))
