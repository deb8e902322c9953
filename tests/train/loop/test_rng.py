import torch

from train.loop.rng import drawn, draws_for, seed_of


def test_a_choice_depends_on_its_parts_and_is_uniform() -> None:
    choices = [drawn(3, "view", 0, step, 0) for step in range(3000)]
    assert min(choices.count(choice) for choice in range(3)) > 900  # 1000 each, standard deviation 26
    assert drawn(3, "view", 0, 5, 1) == drawn(3, "view", 0, 5, 1) and drawn(1, "anything") == 0


def test_a_place_gets_the_same_draw_in_whatever_pass_it_stands() -> None:
    whole = draws_for(3, 11, range(4), of=4, shape=(2, 3, 3))
    halves = [draws_for(3, 11, places, of=4, shape=(2, 3, 3)) for places in ((0, 1), (2, 3))]
    for name in ("quantiles", "posterior", "noise"):
        assert torch.equal(getattr(whole, name), torch.cat([getattr(half, name) for half in halves]))


def test_seed_step_and_place_each_change_the_noise() -> None:
    noises = [draws_for(seed, step, (place,), of=8, shape=(4,)).noise for seed, step, place in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))]
    assert all(not torch.equal(noises[0], other) for other in noises[1:])


def test_quantiles_cover_the_range_evenly_and_are_uniform() -> None:
    rows = torch.stack([draws_for(0, step, range(4), of=4, shape=(1,)).quantiles for step in range(500)])
    assert torch.equal((rows * 4).long(), torch.arange(4).expand(500, 4))
    inside = (rows * 4) % 1
    assert abs(float(inside.mean()) - 0.5) < 0.03  # 2000 draws: standard error 0.0065
    assert float(rows.min()) >= 0 and float(rows.max()) < 1


def test_noise_is_standard_normal() -> None:
    noise = draws_for(0, 0, range(8), of=8, shape=(4, 32, 32)).noise
    assert abs(float(noise.mean())) < 0.02 and abs(float(noise.std()) - 1) < 0.02


def test_seeds_are_63_bits_and_differ() -> None:
    seeds = {seed_of("noise", 0, i) for i in range(1000)}
    assert len(seeds) == 1000 and max(seeds) < 2**63
