"""Axis values as people give them, and what each axis does to a Render."""

from dataclasses import fields
from typing import Any

import pytest

from infer.draw.files import Adapter, read_adapters
from infer.draw.render import Render
from infer.draw.values import integers, numbers, sizes, texts
from infer.grid.axes import AXES
from infer.grid.config import Axes, GridConfig
from registry.errors import Faults, Refused

RENDER = Render(base="pocket", adapters=(Adapter(reference="ink"), Adapter(reference="hat", weight=0.4)))


@pytest.mark.parametrize(
    ("given", "found"),
    [(7, [7]), ("1-4", [1, 2, 3, 4]), ("4..2", [4, 3, 2]), ("1, 2,5-7", [1, 2, 5, 6, 7]), (3.0, [3]), ("-1", [-1]), ("12", [12])],
)
def test_integers(given: object, found: list[int]) -> None:
    assert list(integers(given)) == found


@pytest.mark.parametrize("given", ["x", 1.5, True, None, "1-", "1-2-3", [1], "", "1-9999999999", f"1-{'9' * 5000}", "9" * 5000])
def test_integers_refuse(given: object) -> None:
    with pytest.raises(Refused):
        integers(given)


@pytest.mark.parametrize(
    ("given", "found"), [(1, [1.0]), ("0..1/5", [0, 0.25, 0.5, 0.75, 1]), ("-1..1/3", [-1, 0, 1]), ("0.1,2e-1", [0.1, 0.2])]
)
def test_numbers(given: object, found: list[float]) -> None:
    assert list(numbers(given)) == found


@pytest.mark.parametrize("given", ["x", True, "0..1/1", "inf", float("nan"), None, "0..1", "1..2..3/4", 10**400])
def test_numbers_refuse(given: object) -> None:
    with pytest.raises(Refused):
        numbers(given)


@pytest.mark.parametrize(
    ("given", "found"), [(64, (64, 64)), ("64", (64, 64)), ("96x64", (96, 64)), ("96 X 64", (96, 64)), ([96, 64], (96, 64))]
)
def test_sizes(given: object, found: tuple[int, int]) -> None:
    assert list(sizes(given)) == [found]


@pytest.mark.parametrize("given", ["96x", "x", [96], [96, 64, 3], 1.5, ["96", "64"], None, True, f"{'9' * 5000}x64"])
def test_sizes_refuse(given: object) -> None:
    with pytest.raises(Refused, match="96x64"):
        sizes(given)


def test_texts() -> None:
    assert [*texts("a, b"), *texts(None), *texts(2)] == ["a, b", None, "2"]
    with pytest.raises(Refused, match="quotes"):
        texts(["a"])


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("prompt", "a cat", {"prompt": "a cat"}),
        ("negative", None, {"negative": None}),
        ("seed", 9, {"seed": 9}),
        ("base", "other", {"base": "other", "base_sha256": None}),
        ("adapter", "ink:0.6+hat:0.4", {"adapters": (Adapter(reference="ink", weight=0.6), Adapter(reference="hat", weight=0.4))}),
        ("adapter", "none", {"adapters": ()}),
        ("weight", 0.5, {"adapters": (Adapter(reference="ink", weight=0.5), Adapter(reference="hat", weight=0.5))}),
        ("sampler", "euler", {"sampler": "euler"}),
        ("steps", 12, {"steps": 12}),
        ("guidance", 2.5, {"guidance": 2.5}),
        ("size", (96, 64), {"width": 96, "height": 64}),
        ("clipskip", 1, {"clip_skip": 1}),
        ("clipskip", 0, {"clip_skip": None}),
    ],
)
def test_each_axis_changes_its_own_field(name: str, value: Any, expected: dict[str, Any]) -> None:
    changed = AXES[name].apply(RENDER, value)
    assert {one.name: getattr(changed, one.name) for one in fields(Render)} == {
        one.name: expected.get(one.name, getattr(RENDER, one.name)) for one in fields(Render)
    }


def test_weight_without_adapters_is_refused() -> None:
    with pytest.raises(Refused, match="this cell has none"):
        AXES["weight"].apply(Render(base="pocket"), 0.5)


def test_an_axis_without_its_image_names_the_way_out() -> None:
    with pytest.raises(Refused, match=r"this cell has none.*leave those out: where='init != null'"):
        AXES["strength"].apply(Render(base="pocket"), 0.5)
    with pytest.raises(Refused, match=r"this cell has none.*leave those out: where='control != \"none\"'"):
        AXES["scale"].apply(Render(base="pocket"), 0.5)


def test_adapters_setting() -> None:
    assert read_adapters(["ink:0.6", "hat"]) == (Adapter(reference="ink", weight=0.6), Adapter(reference="hat"))
    assert read_adapters(None) == read_adapters("none") == read_adapters([]) == ()
    with pytest.raises(Refused):
        read_adapters(3)


def test_the_settings_have_every_axis_and_axis_names_are_one_word() -> None:
    assert [one.name for one in fields(Axes)] == list(AXES)
    assert all(name.isalpha() for name in AXES)
    assert all(one.metadata["help"] for one in (*fields(Axes), *fields(GridConfig)))


def test_settings_out_of_range_are_reported_together() -> None:
    with pytest.raises(Faults) as caught:
        GridConfig(repeats=0, device="gpu", name="../up", base=" ")
    assert [fault.split()[0] for fault in caught.value.faults] == ["name", "device", "repeats", "base"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1-10 (+2)", [1, 3, 5, 7, 9]), ("1-10 [4]", [1, 4, 7, 10]), ("10-1 (-3)", [10, 7, 4, 1]), ("2..6 step 2", [2, 4, 6])],
)
def test_a1111s_ranges_of_whole_numbers(text: str, expected: list[int]) -> None:
    assert list(integers(text)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0..1 step 0.25", [0, 0.25, 0.5, 0.75, 1]), ("1-2 (+0.5)", [1, 1.5, 2]), ("0-1 [3]", [0, 0.5, 1]), ("0..1 step 0.4", [0, 0.4, 0.8])],
)
def test_a1111s_ranges_of_numbers(text: str, expected: list[float]) -> None:
    assert list(numbers(text)) == expected


@pytest.mark.parametrize("text", ["1-10 (-2)", "1-10 (+0)", "1-10 [1]", "1-9999999 (+1)", "1-10 (+0.5)"])
def test_a_range_that_does_not_arrive_is_refused(text: str) -> None:
    with pytest.raises(Refused):
        integers(text)


def test_replace_puts_each_text_in_its_place() -> None:
    one = AXES["replace"]
    values = one.read({"cat": ["cat", "red fox"]})
    render = Render(base="b", prompt="a cat, cats", negative="no cat")
    assert [one.apply(render, value).prompt for value in values] == ["a cat, cats", "a red fox, red foxs"]
    assert one.apply(render, values[1]).negative == "no red fox" and values[1] == "red fox" and one.spell(values[1]) == "red fox"


@pytest.mark.parametrize("value", ["cat", {}, {"cat": ["a"], "dog": ["b"]}, {"": ["a"]}, {"cat": [None]}])
def test_a_replacement_that_cannot_be_read_is_refused(value: object) -> None:
    with pytest.raises(Refused):
        AXES["replace"].read(value)


def test_what_is_replaced_has_to_be_there() -> None:
    one = AXES["replace"]
    with pytest.raises(Refused, match="'dog'"):
        one.apply(Render(base="b", prompt="a cat"), one.read({"dog": "cow"})[0])


def test_the_text_weight_is_set_apart() -> None:
    render = Render(base="b", adapters=(Adapter(reference="ink", weight=0.8),))
    (found,) = AXES["textweight"].apply(render, 0.2).adapters
    assert (found.weight, found.text_weight) == (0.8, 0.2)
    with pytest.raises(Refused, match="textweight"):
        AXES["textweight"].apply(Render(base="b"), 0.2)
