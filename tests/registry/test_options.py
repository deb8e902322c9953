"""Options read from signatures: kinds, ranges, answers, and the schema of several tables."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pytest

from registry.options import Meaning, OptionTable, option_faults, read_options
from registry.settings import given_params, params_schema

if TYPE_CHECKING:
    from torch import Tensor

Share = Annotated[float, Meaning("share that is kept", 0.0, 1.0, open_least=True)]


def example(
    values: Tensor,
    *,
    share: Share = 0.5,
    steps: Annotated[int, Meaning("steps", 1)] = 2,
    sign: Annotated[Literal["plus", "minus"], Meaning("whose sign")] = "plus",
    pair: Annotated[tuple[float, float], Meaning("two decays", 0.0)] = (0.9, 0.99),
    limit: Annotated[float | None, Meaning("largest value; null: none")] = None,
    fast: bool = False,
    known: Any = None,
) -> Tensor:
    """The values."""
    return values


OPTIONS = read_options(example, besides=("known",))


def test_the_signature_gives_kinds_defaults_and_ranges() -> None:
    found = {name: (option.kind, option.default, option.expected) for name, option in OPTIONS.items()}
    assert found == {
        "share": (float, 0.5, "a number from above 0 to 1"),
        "steps": (int, 2, "a whole number of at least 1"),
        "sign": (str, "plus", "plus or minus"),
        "pair": (tuple, (0.9, 0.99), "a list of 2 numbers of at least 0"),
        "limit": (float, None, "a number"),
        "fast": (bool, False, "true or false"),
    }


def test_annotations_that_are_imported_for_type_checkers_alone_are_not_resolved() -> None:
    assert "Tensor" not in globals() and OPTIONS["share"].meaning == "share that is kept"


@pytest.mark.parametrize(
    ("name", "value", "fault"),
    [
        ("share", 0, "params.share must be a number from above 0 to 1, got 0."),
        ("share", float("nan"), "params.share must be a number from above 0 to 1, got nan."),
        ("steps", 2.0, "params.steps must be a whole number of at least 1, got 2.0."),
        ("steps", True, "params.steps must be a whole number of at least 1, got True."),
        ("sign", "both", "params.sign must be plus or minus, got 'both'."),
        ("pair", [0.9], "params.pair must be a list of 2 numbers of at least 0, got [0.9]."),
        ("fast", 1, "params.fast must be true or false, got 1."),
        ("share", None, "params.share must be a number from above 0 to 1, got null."),
        ("shrae", 0.3, "example has no option 'shrae'. Did you mean 'share'?"),
    ],
)
def test_a_wrong_value_is_answered(name: str, value: Any, fault: str) -> None:
    assert option_faults("example", OPTIONS, {name: value}) == [fault]


@pytest.mark.parametrize(("name", "value"), [("share", 1), ("limit", None), ("limit", -3.5), ("pair", (0.0, 0.5)), ("fast", True)])
def test_a_right_value_has_no_fault(name: str, value: Any) -> None:
    assert option_faults("example", OPTIONS, {name: value}) == []


def table(kind: str, name: str, default: float) -> OptionTable[Any]:
    found: OptionTable[Any] = OptionTable(kind)

    @found.add(name)
    def entry(*, gamma: Annotated[float, Meaning("its exponent", 0.0)] = default) -> float:
        """An exponent."""
        return gamma

    return found


def test_an_entry_keeps_its_function_and_fills_its_options() -> None:
    entry = table("weighting", "power", 2.0)["power"]
    assert entry.summary == "An exponent." and entry.function(**entry.values({"gamma": 3.0, "delta": 1.0})) == 3.0
    assert entry.values({}) == {"gamma": 2.0}


def test_the_schema_has_a_typed_field_for_each_option() -> None:
    weightings = table("weighting", "power", 2.0)
    schema = params_schema("Params", [weightings], module=__name__)
    (one,) = fields(schema)
    assert one.name == "gamma" and one.metadata["help"] == "power: its exponent (default 2.0)"
    assert given_params(schema()) == {} and given_params(schema(gamma=1.5)) == {"gamma": 1.5}


def test_two_tables_cannot_have_options_of_one_name() -> None:
    with pytest.raises(ValueError, match="power and root have an option 'gamma' each"):
        params_schema("Params", [table("weighting", "power", 2.0), table("loss", "root", 0.5)], module=__name__)
