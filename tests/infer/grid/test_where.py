"""`where`: what it says yes to, and what it refuses to be."""

import pytest

from infer.grid.where import Where
from registry.errors import Refused

VALUES = {"weight": 0.5, "adapter": "ink", "prompt": "a cat", "seed": 3, "sampler": None}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('weight > 0 or adapter == "none"', True),
        ("not (weight > 0)", False),
        ("0 < weight <= 0.5 < seed", True),
        ("adapter in ['ink', 'hat'] and 'dog' not in prompt", True),
        ("weight > 0.5", False),
        ("weight >= 0.5", True),
        ("weight < 0.5", False),
        ("weight <= 0.5", True),
        ("seed % 2 == 1", True),
        ("weight * 2 - 1 == -0.0", True),
        ("sampler == None", True),
        ("adapter == 'none' and weight / 0 > 1", False),
    ],
)
def test_where(text: str, expected: bool) -> None:
    assert Where(text, VALUES)(VALUES) is expected


@pytest.mark.parametrize(
    "text", ["-" * 2000 + "seed > 0", "+".join(["seed"] * 2000) + " > 0", f"{'9' * 400} / seed > 0", f"{'9' * 400} * weight > 0"]
)
def test_what_python_cannot_compute_is_refused(text: str) -> None:
    with pytest.raises(Refused, match=r"does not work for .*seed=3|cannot be read"):
        Where(text, VALUES)(VALUES)


def test_a_mistyped_axis_is_answered_with_the_nearest() -> None:
    with pytest.raises(Refused, match=r"names 'wieght'.*Did you mean 'weight'"):
        Where("wieght > 0", VALUES)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os')",
        "seed.real",
        "(lambda: 1)()",
        "[seed for seed in prompt]",
        "seed if weight else 1",
        "prompt[0] == 'a'",
        "f'{seed}'",
        "2 ** 9",
        "seed := 3",
        "weight >",
        "",
        "b'x' == 1",
        "1j == 1",
        "seed; weight",
    ],
)
def test_where_is_no_program(text: str) -> None:
    with pytest.raises(Refused, match="where="):
        Where(text, VALUES)


def test_values_that_do_not_compare_are_reported() -> None:
    with pytest.raises(Refused, match="adapter='ink'"):
        Where("adapter > 3", VALUES)(VALUES)
    with pytest.raises(Refused, match="take numbers"):
        Where("prompt * 99 == ''", VALUES)(VALUES)


def test_what_is_not_given_is_null() -> None:
    values = {"init": None}
    assert Where("init == null", values)(values) and not Where("init != null", values)(values)
    assert Where("init != null", values)({"init": "p.png"}) and Where("init != 'none'", values)({"init": "p.png"})
    with pytest.raises(Refused, match="what is not given is null here"):
        Where("init != 'none'", values)(values)
