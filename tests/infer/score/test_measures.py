"""Scores of pixels, each against its formula worked by hand or another implementation of it."""

from pathlib import Path
from typing import Any

import numpy
import pytest
from PIL import Image

from infer.score.given import ready_scores
from infer.score.kinds.colour_distance import lab
from infer.score.scorer import Scene, Subject

NOISE = numpy.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=numpy.uint8)
PLAIN = Scene(axes=("guidance",))


def picture(pixels: Any) -> Image.Image:
    return Image.fromarray(numpy.asarray(pixels, dtype=numpy.uint8))


def subject(image: Image.Image, *, first: Subject | None = None, prompt: str | None = None, **inputs: Image.Image) -> Subject:
    return Subject(
        key="k",
        sha256="s",
        image=lambda: image,
        prompt=prompt,
        seconds=1.5,
        first=lambda axis: first,
        files=dict.fromkeys(inputs, "f"),
        inputs={name: lambda one=one: one for name, one in inputs.items()},  # type: ignore[misc]
    )


def number(given: object, one: Subject) -> float:
    (scorer,) = ready_scores(given, PLAIN, try_models=True)
    assert scorer.inputs(one) is not None
    return scorer.open()(one).value


def test_colourfulness_of_four_pixels_by_the_papers_formula() -> None:
    """rg: 255, 0, 0, 0; yb: 127.5, 0, -255, 255."""
    image = picture([[[255, 0, 0], [0, 0, 0]], [[0, 0, 255], [255, 255, 0]]])
    rg, yb = (255 / 4, (255**2 / 4 - (255 / 4) ** 2)), (127.5 / 4, (127.5**2 + 255**2 + 255**2) / 4 - (127.5 / 4) ** 2)
    expected = (rg[1] + yb[1]) ** 0.5 + 0.3 * (rg[0] ** 2 + yb[0] ** 2) ** 0.5
    assert number("colourfulness", subject(image)) == pytest.approx(expected)
    assert number("colourfulness", subject(picture([[[9, 9, 9]] * 2] * 2))) == 0


def test_sharpness_of_one_bright_pixel() -> None:
    """The Laplacian of a 5 x 5 image with 100 in the middle is -400, four times 100, and four times 0."""
    pixels = numpy.zeros((5, 5, 3))
    pixels[2, 2] = 100
    values = [-400.0, *[100.0] * 4, *[0.0] * 4]
    assert number("sharpness", subject(picture(pixels))) == pytest.approx(numpy.var(values))
    assert number("sharpness", subject(picture(pixels[:2]))) == 0


def test_saturation_contrast_brightness_and_seconds() -> None:
    image = picture([[[200, 100, 100], [50, 50, 50]], [[0, 0, 0], [0, 255, 0]]])
    assert number("saturation", subject(image)) == pytest.approx(100 * (0.5 + 0 + 0 + 1) / 4)
    grey = numpy.array([0.299 * 200 + 0.701 * 100, 50, 0, 0.587 * 255])
    assert number("contrast", subject(image)) == pytest.approx(grey.std())
    assert number("brightness", subject(image)) == pytest.approx(grey.mean())
    assert number("seconds", subject(image)) == 1.5


def test_saturation_is_pillows() -> None:
    own = number("saturation", subject(picture(NOISE)))
    expected = numpy.asarray(picture(NOISE).convert("HSV"))[..., 1].mean() / 2.55
    assert own == pytest.approx(expected, abs=0.3)  # Pillow's is cut to whole numbers


def test_difference_and_ssim_against_the_first_image() -> None:
    one, other = picture(NOISE), picture(255 - NOISE)
    against = subject(one, first=subject(other))
    assert number("difference", against) == pytest.approx(abs(2.0 * NOISE - 255).mean())
    assert number("difference", subject(one, first=subject(one))) == 0 and number("ssim", subject(one, first=subject(one))) == 1
    assert number({"ssim": "guidance"}, against) == pytest.approx(_ssim(NOISE, 255 - NOISE), abs=1e-9)


def _ssim(x: Any, y: Any) -> float:
    """Wang et al. 2004 by a loop over windows."""
    span = numpy.exp(-(numpy.arange(-5, 6) ** 2) / (2 * 1.5**2))
    window = numpy.outer(span, span) / span.sum() ** 2
    a, b = (numpy.asarray(one, dtype=float) @ [0.299, 0.587, 0.114] for one in (x, y))
    found = []
    for top in range(a.shape[0] - 10):
        for left in range(a.shape[1] - 10):
            p, q = a[top : top + 11, left : left + 11], b[top : top + 11, left : left + 11]
            mp, mq = (window * p).sum(), (window * q).sum()
            vp, vq, cov = (window * (p - mp) ** 2).sum(), (window * (q - mq) ** 2).sum(), (window * (p - mp) * (q - mq)).sum()
            c1, c2 = 2.55**2, 7.65**2
            found.append((2 * mp * mq + c1) * (2 * cov + c2) / ((mp**2 + mq**2 + c1) * (vp + vq + c2)))
    return float(numpy.mean(found))


def test_an_image_of_another_size_has_no_difference() -> None:
    (scorer,) = ready_scores("difference", PLAIN, try_models=True)
    assert scorer.inputs(subject(picture(NOISE), first=subject(picture(NOISE[:8])))) is None
    assert scorer.inputs(subject(picture(NOISE))) is None


def test_cielab_of_known_colours() -> None:
    """sRGB red, green, white and black (D65), to the second digit of Lindbloom's calculator."""
    found = lab(numpy.array([[255.0, 0, 0], [0, 255, 0], [255, 255, 255], [0, 0, 0]]))
    expected = [[53.24, 80.09, 67.20], [87.74, -86.18, 83.18], [100, 0, 0], [0, 0, 0]]
    assert abs(found - numpy.array(expected)).max() < 0.02


def test_colour_distance_is_scipys_and_does_not_look_at_places(tmp_path: Path) -> None:
    from scipy.stats import wasserstein_distance

    picture(255 - NOISE[:16, :16]).save(tmp_path / "a.png")
    own, other = (lab(one.astype(float)).reshape(-1, 3) for one in (NOISE[:16, :16], 255 - NOISE[:16, :16]))
    expected = numpy.mean([wasserstein_distance(own[:, channel], other[:, channel]) for channel in range(3)])
    found = number({"colour_distance": str(tmp_path)}, subject(picture(NOISE[:16, :16])))
    assert found == pytest.approx(expected, rel=0.01)  # 256 pixels: the quantiles are the pixels, interpolated
    turned = picture(NOISE[:16, :16][::-1])
    assert number({"colour_distance": str(tmp_path)}, subject(turned)) == pytest.approx(found, abs=1e-9)


def test_references_are_a_folder_a_file_or_the_input_image(tmp_path: Path) -> None:
    ramp = picture(NOISE)
    ramp.save(tmp_path / "<b>&.png")
    ramp.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "wide.png")
    (tmp_path / "a.txt").write_text("a caption")
    one = subject(ramp, init=ramp.transpose(Image.Transpose.ROTATE_180))
    assert number({"phash_distance": str(tmp_path)}, one) == 0
    assert number({"phash_distance": {"references": str(tmp_path), "take": "mean"}}, one) > 5
    assert number({"phash_distance": str(tmp_path / "wide.png")}, one) > 10
    assert number({"phash_distance": "init"}, one) > 10
    (scorer,) = ready_scores({"phash_distance": "init"}, PLAIN, try_models=True)
    assert scorer.inputs(subject(ramp)) is None


def test_the_same_references_under_other_names_are_the_same_definition(tmp_path: Path) -> None:
    for folder, name in (("one", "a.png"), ("two", "z.png")):
        (tmp_path / folder).mkdir()
        picture(NOISE).save(tmp_path / folder / name)
    one, two = (ready_scores({"colour_distance": str(tmp_path / name)}, PLAIN, try_models=True)[0] for name in ("one", "two"))
    assert one.identity == two.identity
