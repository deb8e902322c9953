"""Image files decoded: upright, in sRGB, on white, eight bits; what is lost or not applied is remarked."""

import io

import numpy
import pytest
from PIL import Image

from registry.formats.image_file import Unreadable, decode, read_image
from tests.colour_profiles import SRGB, SRGB_CURVE, adobe_rgb, display_p3, gray_profile, rgb_profile

STORED = (104, 179, 72)  # what a file in Adobe RGB holds for the sRGB colour (30, 180, 60), rounded


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


def adobe_to_srgb(stored: tuple[int, ...]) -> list[float]:
    """Adobe RGB (1998) to sRGB by their published formulas, 0 to 255."""
    linear = (numpy.array(stored) / 255) ** (563 / 256)
    xyz = numpy.array([[0.57667, 0.18556, 0.18823], [0.29734, 0.62736, 0.07529], [0.02703, 0.07069, 0.99134]]) @ linear
    rgb = numpy.array([[3.24045, -1.53714, -0.49853], [-0.96927, 1.87601, 0.04156], [0.05564, -0.20403, 1.05723]]) @ xyz
    rgb = numpy.clip(rgb, 0, 1)
    return list(numpy.where(rgb <= 0.0031308, 12.92 * rgb, 1.055 * rgb ** (1 / 2.4) - 0.055) * 255)


def test_the_formula_gives_the_colour_that_was_stored() -> None:
    assert adobe_to_srgb(STORED) == pytest.approx([30, 180, 60], abs=2)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG"])
def test_a_colour_profile_is_converted_to_srgb(kind: str) -> None:
    options: dict[str, object] = {"quality": 100} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {}
    data = encoded(Image.new("RGB", (16, 16), STORED), kind, icc_profile=adobe_rgb(), **options)
    stored = Image.open(io.BytesIO(data)).convert("RGB").getpixel((8, 8))  # a JPEG's is one or two off
    assert isinstance(stored, tuple)
    found = read_image(data)
    assert found.image.getpixel((8, 8)) == pytest.approx(adobe_to_srgb(stored), abs=1.5)
    assert found.profile == "Adobe RGB (1998)" and not found.remarks and "icc_profile" not in found.image.info


def test_a_phones_colours_are_converted() -> None:
    found = read_image(encoded(Image.new("RGB", (4, 4), (200, 150, 120)), icc_profile=display_p3()))
    assert found.image.getpixel((0, 0)) == pytest.approx((209.2, 147.4, 114.8), abs=1)  # by the matrices of CSS Color 4
    assert found.profile == "Display P3"


def test_transparent_and_indexed_images_are_converted_before_they_lie_on_white() -> None:
    clear = Image.new("RGBA", (4, 4), (*STORED, 255))
    clear.putpixel((0, 0), (0, 0, 0, 0))
    for image in (clear, clear.quantize(4)):
        found = read_image(encoded(image, icc_profile=adobe_rgb())).image
        assert found.getpixel((3, 3)) == pytest.approx(adobe_to_srgb(STORED), abs=1.5)
        assert found.getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("mode", ["L", "LA"])
def test_a_grey_profile_is_converted(mode: str) -> None:
    found = read_image(encoded(Image.new("L", (4, 4), 100).convert(mode), icc_profile=gray_profile("Gray 1.8", 1.8)))
    assert found.image.getpixel((0, 0)) == pytest.approx((119, 119, 119), abs=1)  # (100/255)^1.8 = 0.1855 linear, 118.9 in sRGB
    assert found.profile == "Gray 1.8"


def test_numbers_that_are_srgbs_stay_to_the_last_bit() -> None:
    noise = Image.fromarray(numpy.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=numpy.uint8))
    found = read_image(encoded(noise, icc_profile=rgb_profile("sRGB IEC61966-2.1", SRGB, SRGB_CURVE)))
    assert found.image.tobytes() == noise.tobytes() and found.profile is None and not found.remarks


@pytest.mark.parametrize(
    ("profile", "why"), [(b"no profile" * 20, "cannot be read"), (gray_profile("Dot Gain", 1.8), "is for GRAY and its pixels")]
)
def test_a_profile_that_cannot_be_applied_is_remarked(profile: bytes, why: str) -> None:
    found = read_image(encoded(Image.new("RGB", (4, 4), STORED), icc_profile=profile))
    assert found.image.getpixel((0, 0)) == STORED and found.profile is None
    assert why in found.remarks[0] and "taken as sRGB" in found.remarks[0]


def test_other_colours_without_a_profile_are_remarked() -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA001] = 2
    found = read_image(encoded(Image.new("RGB", (4, 4), STORED), "JPEG", exif=exif))
    assert "its EXIF names Adobe RGB, but it has no colour profile" in found.remarks[0]


def test_twelve_bits_in_sixteen_are_remarked() -> None:
    values = numpy.linspace(0, 4095, 64).reshape(8, 8).astype(numpy.uint16)
    found = read_image(encoded(Image.fromarray(values), "TIFF"))
    assert found.image.getextrema()[0] == (0, 16)
    assert found.remarks == ("its largest value is 4095 of 65535, as 12-bit data has: it is read nearly black. Save it scaled to 16 bits",)


@pytest.mark.parametrize(("values", "why"), [([-1.0, 1.0], "values from -1 to 1; all below 0 is black"), ([0.0, 1.0], None)])
def test_signed_floats_are_remarked(values: list[float], why: str | None) -> None:
    found = read_image(encoded(Image.fromarray(numpy.array([values] * 2, dtype=numpy.float32)), "TIFF"))
    assert (why in found.remarks[0]) if why else not found.remarks
    assert found.image.getpixel((0, 0)) == (0, 0, 0) and found.image.getpixel((1, 0)) == (255, 255, 255)


def test_values_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(Unreadable, match="not finite"):
        read_image(encoded(Image.fromarray(numpy.array([[numpy.nan, 1.0]], dtype=numpy.float32)), "TIFF"))


@pytest.mark.parametrize(
    ("start", "line"),
    [(b"\0\0\0\x18ftypheic", "pip install pillow-heif"), (b"\xff\x0a", "pip install pillow-jxl-plugin")],
)
def test_a_format_that_needs_a_package_names_it(start: bytes, line: str) -> None:
    with pytest.raises(Unreadable, match=line):
        read_image(start + bytes(64))
