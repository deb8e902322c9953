"""The nearest training image: a copy is found whatever its size, format and colour; a baseline says how near any image would be."""

import io

import numpy
import pytest
from PIL import Image

from registry.images.image_hash import Copies, hash_bits, small_copy


def drawn(seed: int, side: int = 96) -> Image.Image:
    """A smooth random image."""
    small = numpy.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=numpy.uint8)
    return Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC)


def test_a_copy_in_another_size_and_format_is_nearest() -> None:
    known = Copies([drawn(seed) for seed in range(8)])
    buffer = io.BytesIO()
    drawn(5).resize((61, 61)).save(buffer, "JPEG", quality=60)
    found = known.nearest(Image.open(buffer))
    assert found is not None and found.place == 5 and found.bits <= 3 and found.difference < 4
    other = known.nearest(drawn(99))
    assert other is not None and other.bits > 12


def test_of_equal_hashes_the_image_of_the_same_colours_is_nearest() -> None:
    image = drawn(1)
    darker = Image.eval(image, lambda value: value // 2)
    found = Copies([darker, image]).nearest(image)
    assert found is not None and (found.place, found.bits, found.difference) == (1, 0, 0.0)
    left_out = Copies([darker, image]).nearest(image, but=1)
    assert left_out is not None and left_out.place == 0 and left_out.difference > 20


def test_images_without_anything_in_them_have_one_hash() -> None:
    white, grey = (Image.new("RGB", (20, 30), colour) for colour in ("white", "#777"))
    assert (hash_bits(white) == hash_bits(grey)).all() and hash_bits(white).shape == (63,)
    assert Copies([]).nearest(white) is None and Copies([white]).nearest(white, but=0) is None


@pytest.mark.parametrize("size", [(256, 256), (512, 300), (256, 256 - 7), (32, 16), (128, 256), (300, 200), (16, 16), (1024, 1024)])
def test_a_small_copy_is_the_average_of_boxes(size: tuple[int, int]) -> None:
    image = Image.fromarray(numpy.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=numpy.uint8))
    for box in (None, (0.0, 0.0, float(size[0]), size[1] - 0.75)):
        assert small_copy(image, box) == image.resize((16, 16), Image.Resampling.BOX, box).tobytes()
