import numpy
import pytest
from PIL import Image

from registry.errors import JobFailed, Refused
from registry.images.model_input import Input
from train.masks.pixels import as_mask, chosen, probabilities


def test_pixels_are_normalised_by_mean_and_deviation() -> None:
    image = Image.new("RGB", (4, 2), (255, 0, 51))
    numbers = Input(2, 1, (0.5, 0.5, 0.2), (0.5, 0.25, 1.0)).numbers(image)
    assert numbers.shape == (1, 2, 3) and numbers.dtype == numpy.float32
    numpy.testing.assert_allclose(numbers[0, 0], [1.0, -2.0, 0.0], atol=1e-6)


def test_one_map_of_logits_goes_through_the_sigmoid_and_shares_stay() -> None:
    shares = numpy.array([[[0.25, 1.0]]])
    assert probabilities(shares).tolist() == shares.tolist()
    assert probabilities(numpy.array([[[0.0, -800.0, 2.0]]])).round(4).tolist() == [[[0.5, 0.0, 0.8808]]]


def test_classes_go_through_the_softmax_and_shares_stay() -> None:
    scores = numpy.array([[[1.0]], [[3.0]]])
    assert probabilities(scores).round(4).ravel().tolist() == [0.1192, 0.8808]
    shares = numpy.array([[[0.25]], [[0.75]]])
    assert probabilities(shares).ravel().tolist() == [0.25, 0.75]
    with pytest.raises(JobFailed, match="not finite"):
        probabilities(numpy.array([[[float("nan")]]]))


def test_classes_are_chosen_by_name_by_number_or_all_but_the_background() -> None:
    names = ("background", "hair", "skin")
    assert chosen((), names) == [1, 2] and chosen(("skin", "1"), names) == [2, 1] and chosen((), ("class 0",)) == [0]
    with pytest.raises(Refused, match=r"2 classes and none is the background: choose with --label\. There are: 0 cat, 1 dog"):
        chosen((), ("cat", "dog"))
    with pytest.raises(Refused, match=r"--label hiar: the model has no such class\. Did you mean 'hair'\?"):
        chosen(("hiar",), names)


def test_a_mask_has_the_images_size_a_threshold_and_grows() -> None:
    shares = numpy.zeros((5, 5))
    shares[2, 2] = 0.6
    soft = as_mask(shares, (5, 5), threshold=None, expand=0)
    assert soft.mode == "L" and soft.getpixel((2, 2)) == 153 and soft.getpixel((1, 2)) == 0
    assert as_mask(shares, (5, 5), threshold=0.61, expand=0).getbbox() is None
    grown = as_mask(shares, (5, 5), threshold=0.5, expand=1)
    assert grown.getbbox() == (1, 1, 4, 4) and grown.getextrema() == (0, 255)
    assert as_mask(shares, (50, 20), threshold=None, expand=0).size == (50, 20)
