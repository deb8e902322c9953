import numpy
import pytest
from PIL import Image

from train.output.style import StyleCurve, measures, style_curve


def image(*, colour: float, seed: int = 0) -> Image.Image:
    """Noise around grey, its colour difference about `colour`."""
    noise = numpy.random.default_rng(seed).uniform(-0.1, 0.1, (32, 32, 1))
    pixels = 0.5 + noise + colour * numpy.array([0.5, 0.0, -0.5])
    return Image.fromarray((pixels.clip(0, 1) * 255).astype(numpy.uint8))


def test_measures_of_images_that_are_known() -> None:
    assert measures(Image.new("RGB", (8, 8), "white")) == pytest.approx((1.0, 0.0, 0.0, 0.0))
    assert measures(Image.new("RGB", (8, 8), (255, 0, 0))) == pytest.approx((0.299, 0.0, 1.0, 0.0))
    stripes = Image.fromarray(numpy.tile(numpy.array([[0], [255]], dtype=numpy.uint8), (4, 8)))
    assert measures(stripes) == pytest.approx((0.5, 0.5, 0.0, 0.5))  # every step down is 1, every step across 0


def test_the_curve_follows_the_colour_to_that_of_the_held_out_images() -> None:
    heldout = [image(colour=0.1, seed=seed) for seed in range(4)]
    previews = {step: [image(colour=colour, seed=9)] for step, colour in {0: 0.9, 50: 0.5, 100: 0.2, 150: 0.1, 200: 0.1}.items()}
    found = style_curve(heldout, previews)
    assert found is not None and found.distances[50] > found.distances[100] > found.distances[150]
    assert (found.nearest, found.reached) == (150, 150) and 0.4 < found.covered(50) < 0.6


def test_a_base_that_draws_like_the_held_out_images_has_no_curve() -> None:
    heldout = [image(colour=0.1 * seed, seed=seed) for seed in range(4)]
    assert style_curve(heldout, {0: [image(colour=0.15)], 50: [image(colour=0.15)]}) is None
    assert style_curve(heldout[:1], {0: [image(colour=0.9)], 50: [image(colour=0.1)]}) is None
    assert style_curve(heldout, {50: [image(colour=0.9)]}) is None


def test_almost_as_near_as_the_nearest_is_reached() -> None:
    curve = StyleCurve(10.0, {10: 8.0, 20: 3.0, 30: 2.5, 40: 2.4})
    assert (curve.nearest, curve.reached, curve.covered(20)) == (40, 20, 0.7)
    away = StyleCurve(1.0, {10: 1.25, 20: 1.5})
    assert (away.nearest, away.reached, away.covered(10)) == (10, 10, -0.25)
