"""Values of settings files as the types of their settings."""

from collections.abc import Mapping
from enum import Enum
from typing import Annotated, Any

import pytest

from registry.typed_values import fitted, is_number, is_of, mistyped


class Colour(Enum):
    red = "red"


@pytest.mark.parametrize(
    ("value", "hint", "found"),
    [
        ("1e3", int, 1000),
        ("1_000", int, 1000),
        ("1e-4", float, 1e-4),
        (1000.0, int, 1000),
        (3, float, 3.0),
        ("7", int | None, 7),
        (None, int | None, None),
        ([1, "2e0"], list[float] | None, [1.0, 2.0]),
        ("red", Colour, Colour.red),
        ({"a": 1}, Any, {"a": 1}),
    ],
)
def test_what_a_person_may_have_meant(value: Any, hint: Any, found: Any) -> None:
    assert fitted(value, hint) == found and type(fitted(value, hint)) is type(found)


@pytest.mark.parametrize(
    ("value", "hint", "words"),
    [
        ("abc", int, "must be a whole number, got 'abc'"),
        (1.5, int, "must be a whole number"),
        (True, int, "must be a whole number"),
        (10**400, float, "must be a number"),
        (5, str | None, "must be a text or null, got 5"),
        ("yes", bool, "must be true or false"),
        ([1, "x"], list[float], "must be a list of numbers"),
        ([1], Colour, "must be red"),
        ("a" * 5000, float, "…"),
        ("9" * 5000, int, "must be a whole number, got '9999"),
        ("1__0", int, "must be a whole number, got '1__0'"),
        ("1_", float | None, "must be a number or null, got '1_'"),
    ],
)
def test_what_is_refused_in_these_words(value: Any, hint: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        fitted(value, hint)


def test_types_as_they_are() -> None:
    assert is_of((1, 2), tuple[int, ...]) and not is_of((1, "2"), tuple[int, ...])
    assert is_of((("a", "b"),), tuple[tuple[str, str], ...]) and not is_of((("a",),), tuple[tuple[str, str], ...])
    assert is_of(1, Annotated[float | None, "x"]) and not is_of(True, Annotated[float | None, "x"])
    assert is_of({"a": 1, "b": None}, Mapping[str, int | None]) and not is_of({"a": "1"}, dict[str, int])
    assert is_of({"a": [object()]}, dict[str, Any]) and not is_of([], dict[str, Any]) and not is_of({1: 2}, dict[str, Any])


def test_every_value_of_another_type_is_named_with_the_type_that_was_expected() -> None:
    types = {"tags": list[str], "name": str | None, "rows": list[dict[str, Any]], "sizes": dict[str, int], "unused": int}
    assert mistyped({"tags": [5], "name": None, "rows": [], "sizes": {"a": 1}, "other": 5}, types) == [
        "'tags' must be a list of texts, got [5]"
    ]
    assert mistyped({"tags": [], "name": 5, "rows": {}, "sizes": []}, types) == [
        "'name' must be a text or null, got 5",
        "'rows' must be a list of objects, got {}",
        "'sizes' must be an object of whole numbers, got []",
    ]


@pytest.mark.parametrize(
    ("value", "found"), [(1, True), (-0.5, True), (True, False), ("1", False), (10**400, False), (float("inf"), False)]
)
def test_a_number_is_finite_and_no_flag(value: object, found: bool) -> None:
    assert is_number(value) is found
