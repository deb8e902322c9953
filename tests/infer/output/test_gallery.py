"""What is noted of a finished grid."""

from itertools import product
from pathlib import Path

from infer.output.gallery import CellImage, look_alikes


def image(pixels: str, **settings: str) -> CellImage:
    return CellImage(place=(), key=str(settings), status="rendered", path=Path("a.png"), settings=settings, pixels_sha256=pixels)


def test_one_cause_is_noted_once_with_the_number_of_its_places() -> None:
    cells = [
        image(f"{prompt}{seed}{'' if sampler.startswith('ddim') else sampler}", prompt=prompt, seed=seed, sampler=sampler)
        for prompt, seed, sampler in product("abc", "1234", ("ddim", "ddim too", "euler"))
    ]
    assert look_alikes(cells) == ["The same pixels, bit for bit, came of sampler 'ddim' and sampler 'ddim too', in 12 places."]


def test_different_causes_are_noted_the_most_frequent_first_and_not_all() -> None:
    cells = [image(f"p{n}", prompt=f"{n}", seed=seed) for n in range(2) for seed in ("1", "2", "3")]
    cells += [
        image("x", steps="1"),
        image("x", steps="2"),
        image("y", size="1"),
        image("y", size="2"),
        image("z", init="1"),
        image("z", init="2"),
    ]
    notes = look_alikes(cells)
    assert notes[0] == "The same pixels, bit for bit, came of seed '1' and seed '2', and of 1 more, in 2 places."
    assert len(notes) == 4 and notes[3] == "1 more differences of settings left the pixels as they were."
