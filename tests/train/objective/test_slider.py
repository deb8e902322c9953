"""A slider's targets and prompts on literals; what cannot be a slider is refused."""

import pytest
import torch

from registry.errors import Faults
from train.objective.slider import ends_of, sampler_step, signs_of, slider


def test_the_ends_lie_on_both_sides_of_the_base() -> None:
    base, positive, negative = torch.tensor([1.0, 2.0]), torch.tensor([1.5, 2.0]), torch.tensor([0.5, 3.0])
    more, less = ends_of(base, positive, negative, guidance=2.0)
    assert more.tolist() == [3.0, 0.0] and less.tolist() == [-1.0, 4.0]
    half = ends_of(base.half(), positive.half(), negative.half(), guidance=2.0)
    assert half[0].dtype == torch.float32 and half[0].tolist() == [3.0, 0.0]


def test_preserved_texts_are_set_before_all_three_prompts() -> None:
    found = slider(positive="very old", negative="very young", target="person", preserve=["man", "a  woman "])
    assert found.prompts == ("man person", "man very old", "man very young", "a woman person", "a woman very old", "a woman very young")
    assert [found.held(quantile) for quantile in (0.0, 0.49, 0.5, 0.999)] == [0, 0, 1, 1]
    plain = slider(positive="night")
    assert plain.prompts == ("", "night", "") and plain.held(0.999) == 0 and plain.by_text


def test_without_prompts_it_is_one_of_images() -> None:
    assert not slider().by_text


def test_faults_are_given_together() -> None:
    with pytest.raises(Faults, match=r"preserve must be a list of texts(.|\n)*both 'night': there is no direction"):
        slider(positive="night", negative=" night ", preserve=[3])
    with pytest.raises(Faults, match="target and preserve go with prompts"):
        slider(target="a house")


def test_how_far_a_drawing_goes() -> None:
    assert [sampler_step(share, 10) for share in (1.0, 0.95, 0.9, 0.5, 0.05, 0.0)] == [0, 0, 1, 5, 9, 9]


def test_half_of_the_places_are_drawn_at_each_sign() -> None:
    assert signs_of([0, 1, 2, 3], 0) == [1, -1, 1, -1] and signs_of([2, 3], 1) == [-1, 1]
