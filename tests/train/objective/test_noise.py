"""What is changed in the noise of training, against the formulas and an implementation that is written anew."""

import pytest
import torch

from registry.errors import Refused
from train.loop.rng import generators_of
from train.objective.noise import NOISES, Noises, check_noises, noise_names, normal, offset, perturbation, pyramid

LATENTS = torch.full((2, 3, 8, 6), -2.0)
NOISE = torch.randn(2, 3, 8, 6, generator=torch.Generator().manual_seed(0))
PLAIN = Noises(NOISE, NOISE)


def generators(*places: int, step: int = 0) -> list[torch.Generator]:
    return generators_of("noise test", 7, step, places or (0, 1))


def channels() -> torch.Tensor:
    """The numbers that the offset draws, one a channel."""
    return torch.stack([torch.randn(3, 1, 1, generator=generator) for generator in generators()])


def test_normal_noise_is_as_it_was() -> None:
    assert normal(PLAIN, LATENTS, generators()) is PLAIN


def test_the_offset_is_one_number_a_channel_in_the_input_and_the_target() -> None:
    found = offset(PLAIN, LATENTS, generators(), offset=0.1)
    assert torch.equal(found.learned, NOISE + 0.1 * channels()) and torch.equal(found.added, found.learned)


def test_the_offset_s_strength_may_be_drawn_and_may_follow_the_latents_mean() -> None:
    drawn = offset(PLAIN, LATENTS, generators(), offset=0.1, offset_random=True)
    for number, generator in enumerate(generators()):
        strength = 0.1 * torch.rand((), generator=generator)
        torch.testing.assert_close(drawn.learned[number], NOISE[number] + strength * torch.randn(3, 1, 1, generator=generator))
    more = offset(PLAIN, LATENTS, generators(), offset=0.1, offset_adaptive=0.2)  # |mean| of every channel is 2
    torch.testing.assert_close(more.learned, NOISE + (0.1 + 0.2 * 2) * channels())
    none = offset(PLAIN, LATENTS, generators(), offset=0.1, offset_adaptive=-0.2)
    assert torch.equal(none.learned, NOISE)  # 0.1 - 0.4 is not below 0


def test_the_pyramid_is_the_sum_over_coarser_noise_at_unit_deviation() -> None:
    found = pyramid(PLAIN, LATENTS, generators(), iterations=3, discount=0.5)
    for number, generator in enumerate(generators()):
        total = NOISE[number].clone()
        for level in range(3):
            ratio = torch.rand((), generator=generator, dtype=torch.float64).item() * 2 + 2
            height, width = max(1, int(8 / ratio**level)), max(1, int(6 / ratio**level))
            up = torch.nn.Upsample(size=(8, 6), mode="bilinear")
            total += up(torch.randn(1, 3, height, width, generator=generator))[0] * 0.5**level
            if height == 1 or width == 1:
                break
        torch.testing.assert_close(found.learned[number], total / total.std())
    assert found.learned.flatten(1).std(1).tolist() == pytest.approx([1.0, 1.0])


def test_a_pyramid_has_more_of_low_frequencies_than_plain_noise() -> None:
    noise = torch.randn(64, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    found = pyramid(Noises(noise, noise), noise, generators(*range(64)), iterations=6, discount=0.8)
    plain, coarse = (tensor.mean((2, 3)).var().item() for tensor in (noise, found.learned))
    assert plain == pytest.approx(1 / 256, rel=0.3) and coarse > 10 * plain


def test_a_perturbation_is_in_the_input_alone() -> None:
    found = perturbation(PLAIN, LATENTS, generators(), perturbation=0.1)
    more = torch.stack([torch.randn(3, 8, 6, generator=generator) for generator in generators()])
    assert torch.equal(found.learned, NOISE) and torch.equal(found.added, NOISE + 0.1 * more)
    drawn = perturbation(PLAIN, LATENTS, generators(), perturbation=0.1, perturbation_random=True)
    for number, generator in enumerate(generators()):
        strength = 0.1 * torch.rand((), generator=generator)
        torch.testing.assert_close(drawn.added[number], NOISE[number] + strength * torch.randn(3, 8, 6, generator=generator))


@pytest.mark.parametrize("name", [name for name in NOISES if name != "normal"])
def test_what_an_image_gets_depends_on_its_place_and_step_alone(name: str) -> None:
    function = NOISES[name].function
    both, alone = function(PLAIN, LATENTS, generators(4, 5)), function(Noises(NOISE[1:], NOISE[1:]), LATENTS[1:], generators(5))
    assert torch.equal(both.added[1:], alone.added) and torch.equal(both.learned[1:], alone.learned)
    assert not torch.equal(both.added, function(PLAIN, LATENTS, generators(4, 5, step=1)).added)


def test_names_are_joined_and_what_does_not_suit_a_flow_is_refused() -> None:
    assert noise_names("offset + perturbation") == ["offset", "perturbation"]
    check_noises(["offset", "pyramid"], "v_prediction")
    check_noises(["perturbation"], "flow")
    for name in ("offset", "pyramid"):
        with pytest.raises(Refused, match=f"objective.noise={name}: the base is a flow model"):
            check_noises([name], "flow")
