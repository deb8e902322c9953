"""What a setting of an image is everywhere: on the command line, as an axis, in a report, in A1111's text and in the cell's key.

A field of Render carries it as `Annotated[type, Setting(...)]`, and config, axes, layout, gallery, infotext, reproduce and JSON
loop over the fields. So a new setting is one field, and the place where it acts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from enum import EnumType
from functools import cached_property
from types import NoneType
from typing import Annotated, Any, get_args, get_origin

from infer.draw.values import spell

UNPINNED = object()  # what `pin` gives where the field is not part of the key
UNSET = object()  # follows from the field


def pin_always(_render: Any, value: Any) -> Any:
    """The value, in every key."""
    return value


def _itself(value: Any) -> Any:
    return value


def _yes(_render: Any) -> bool:
    return True


@dataclass(frozen=True, kw_only=True)
class FieldAxis:
    """A plain axis: it sets the field and nothing else. `read` and `spell` of None are those of the field's type."""

    help: str
    name: str = ""  # one word; "": the setting's name
    read: Callable[[object], Sequence[Any]] | None = None  # one given value -> its values: "1-4" is four
    spell: Callable[[Any], str] | None = None  # a value -> its label
    across: int = 5  # see infer.grid.axes.Axis


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One field of Render, described. What is left out follows from the field's name, type and default (`settings_of`).

    `pin(render, value)` gives what enters the cell's key. By default that is the value where it is not the field's default, so that
    a new setting leaves the keys of older images as they are.
    """

    # on the command line
    help: str = ""  # "": no setting of its own
    name: str = ""
    fields: tuple[str, ...] = ()  # the fields it fills: size is width and height
    type: Any = None
    default: Any = UNSET
    choice: bool = False  # it names an entry of a table: a sweep may list several with commas
    read: Callable[[Any], Any] = _itself  # the value given -> the field's, a tuple for several fields; its own result too
    valid: Callable[[Any], bool] | None = None
    expected: str = ""  # what `valid` takes, the end of "steps is 0. Expected ..."
    axis: FieldAxis | None = None
    # in what is written
    label: str = ""  # in sheets and reports
    show: Callable[[Any], str | None] = spell  # None: not shown
    infotext: str = ""  # the key in A1111's `parameters`; "": not there, or written by infer.output.infotext.WRITERS
    infotext_value: Callable[[Any], object] | None = None  # None: as `show`
    load: Callable[[Any], Any] = _itself  # the value back from JSON
    # in the key
    pin: Callable[[Any, Any], Any] | None = None
    in_latents: Callable[[Any], bool] = _yes  # of a Render: False where it acts on the decoded image alone
    file: str = ""  # what the files it names are called: "adapter"; `reproduce` finds them by their sha256
    # filled in by settings_of
    field: str = ""
    field_default: Any = UNSET

    def fill(self, given: Any) -> dict[str, Any]:
        """The fields of a Render for a value as a person gave it. Raises Refused."""
        value = self.read(given)
        if isinstance(value, float):
            value += 0.0  # -0 is 0 in a key too
        return {self.field: value} if self.fields == (self.field,) else dict(zip(self.fields, value, strict=True))

    def value(self, render: Any) -> Any:
        """The setting's value in a Render: the field's, a tuple for several fields."""
        values = tuple(getattr(render, name) for name in self.fields)
        return values[0] if len(values) == 1 else values

    def pinned(self, render: Any) -> Any:
        """What enters the key of a Render; UNPINNED for nothing."""
        value = getattr(render, self.field)
        if self.pin is not None:
            return self.pin(render, value)
        return UNPINNED if value == self.field_default else value

    def fault(self, render: Any) -> str | None:
        """The sentence for a value out of range, or that is no member of its Enum."""
        value = self.value(render)
        if value is None:
            return None
        if isinstance(self.scalar, EnumType):
            members = list(self.scalar.__members__)
            return None if value in members else f"{self.name} is {value!r}. Expected {', '.join(members)}."
        return None if self.valid is None or self.valid(value) else f"{self.name} is {value}. Expected {self.expected}."

    @cached_property
    def scalar(self) -> Any:
        """The type of the setting without None: float of `float | None`."""
        kinds = [kind for kind in get_args(self.type) if kind is not NoneType]
        return kinds[0] if len(kinds) == 1 else self.type


def settings_of(cls: type) -> dict[str, Setting]:
    """Field name -> its Setting, of the described fields of a dataclass, in their order."""
    found: dict[str, Setting] = {}
    for one in fields(cls):
        if get_origin(one.type) is not Annotated:
            continue
        kind, described = get_args(one.type)[:2]
        name = described.name or one.name
        found[one.name] = replace(
            described,
            field=one.name,
            field_default=one.default,
            name=name,
            fields=described.fields or (one.name,),
            type=described.type or kind,
            default=one.default if described.default is UNSET else described.default,
            label=described.label or name.replace("_", " "),
        )
    return found
