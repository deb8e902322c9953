"""The axes of a grid: each is one function (Render, value) -> Render, and a reader of the values a person gives.

An axis that sets one field of Render is declared there (`Setting.axis`); one that does more is a decorated function here. Its name
is one word, and the setting `axes.<name>` exists by that alone. The order of this file is the order in which the axes act on a
Render: `weight` after `adapter`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from glob import glob
from itertools import product
from typing import TYPE_CHECKING, Any

from infer.draw.files import Adapter, ImageFile, check_range, file_name
from infer.draw.render import SETTINGS, Render
from infer.draw.setting import Setting
from infer.draw.values import every, integers, names, number, numbers, prompts, spell_text, texts
from infer.hires.upscalers import UPSCALERS, upscaler_name
from infer.prompt.prompt_file import prompt_lines
from registry.errors import Refused
from registry.home import expanded
from registry.merging.adapter_blocks import read_block_weights
from registry.names import Table
from registry.references import parse_adapters

if TYPE_CHECKING:
    from registry.store import Store


# how the values of an axis are read and spelt, by the type of its field
BY_TYPE: dict[Any, tuple[Callable[[object], Sequence[Any]], Callable[[Any], str]]] = {
    int: (integers, str),
    float: (numbers, number),
    str: (texts, spell_text),
}


def _just(value: Any, _store: "Store") -> Sequence[Any]:
    return (value,)


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One axis. `read` turns one given value into several ("1-4"), `widen` does so with the store ("ink@step-*").

    `apply_to` is the same for one adapter of the cell, by its reference; None where the axis is not of adapters.
    """

    name: str
    help: str
    apply: Callable[[Render, Any], Render]
    read: Callable[[object], Sequence[Any]]
    spell: Callable[[Any], str]
    widen: Callable[[Any, "Store"], Sequence[Any]]
    apply_to: Callable[[Render, str, Any], Render] | None = None
    across: int  # which axis a sheet puts across (the highest) and which down (the lowest: prompts are sentences, read at a row's side)


AXES: Table[Axis] = Table("axis")


def axis_of(name: str) -> Axis:
    """The axis of a dimension's name: `weight`, or `weight.hat` of one adapter."""
    return AXES[name.partition(".")[0]]


def is_axis(name: str) -> bool:
    """Whether a dimension's name is one of an axis; `outside` is none."""
    return name.partition(".")[0] in AXES


def applied(name: str, render: Render, value: Any) -> Render:
    """The Render with a value of the axis of that name."""
    one, reference = axis_of(name), name.partition(".")[2]
    if reference and one.apply_to is not None:
        return one.apply_to(render, reference, value)
    return one.apply(render, value)


def axis(
    name: str,
    *,
    help: str,
    read: Callable[[object], Sequence[Any]],
    spell: Callable[[Any], str] = str,
    widen: Callable[[Any, "Store"], Sequence[Any]] = _just,
    across: int = 5,
) -> Callable[[Callable[[Render, Any], Render]], Callable[[Render, Any], Render]]:
    """Register the decorated function (Render, value) -> Render as the axis of that name."""

    def keep(apply: Callable[[Render, Any], Render]) -> Callable[[Render, Any], Render]:
        AXES.add(name)(Axis(name=name, help=help, apply=apply, read=read, spell=spell, widen=widen, across=across))
        return apply

    return keep


def field_axes(
    *names: str, widen: Callable[[Any, "Store"], Sequence[Any]] = _just, after: Callable[[Render], Render] = lambda render: render
) -> None:
    """Register the plain axes of these fields of Render: each sets its field, and then does what `after` does."""
    for one in (SETTINGS[name] for name in names):
        assert one.axis is not None
        read, spell = BY_TYPE.get(one.scalar, (texts, str))
        axis(
            one.axis.name or one.name,
            help=one.axis.help,
            read=one.axis.read or read,
            spell=one.axis.spell or spell,
            widen=widen,
            across=one.axis.across,
        )(_setter(one, after))


def _setter(setting: Setting, after: Callable[[Render], Render]) -> Callable[[Render, Any], Render]:
    """A Render with the setting of this value; the sha256 of the old one is dropped."""
    found = f"{setting.field}_sha256"
    forgotten: dict[str, Any] = {found: None} if any(one.name == found for one in fields(Render)) else {}

    def apply(render: Render, value: Any) -> Render:
        return after(replace(render, **setting.fill(value), **forgotten))

    return apply


def _each_file(value: str | None, _store: "Store") -> list[str | None]:
    """The images that a pattern with `*` matches, sorted by name; any other value unchanged."""
    if value is None or "*" not in value or expanded(value).exists():
        return [value]
    found = sorted(glob(str(expanded(value))))
    if not found:
        raise Refused(f"{value!r} matches no file. Give the path of an image, or a pattern such as photos/*.png.")
    return [*found]


def _adapter_files(reference: str) -> list[str] | None:
    """The files that a pattern such as loras/*.safetensors matches, or a folder of adapters holds, by name; None for other references."""
    path = expanded(reference)
    if "*" in reference and not path.exists():
        is_path = "/" in reference or reference.endswith(".safetensors")
        found = sorted(glob(str(path))) if is_path else None
        if found == []:
            raise Refused(f"{reference!r} matches no file. Give the path of an adapter, or a pattern such as loras/*.safetensors.")
        return found
    if "/" in reference and path.is_dir() and not (path / "adapter_config.json").exists():  # a bare word is a registered name
        return [str(file) for file in sorted(path.glob("*.safetensors"))] or None
    return None


def _each_adapter(value: str | tuple[Adapter, ...], store: "Store") -> Sequence[str | tuple[Adapter, ...]]:
    """One value for each checkpoint that `@step-*` matches, each file of a pattern or a folder; any other value unchanged."""
    if isinstance(value, tuple):
        return [value]
    choices: list[list[str]] = []
    several = "*" in value
    for one in parse_adapters(value):
        files = _adapter_files(one.reference)
        if files is not None:
            names, several = files, True
        else:
            names = [record.name for record in store.expand(one.reference, kind="adapter")] if "*" in one.reference else [one.reference]
        choices.append([str(Adapter(reference=name, weight=one.weight)) for name in names])
    if not several and all(len(names) == 1 for names in choices):
        return [value]
    return ["+".join(names) for names in product(*choices)]


field_axes("base")
field_axes("adapters", widen=_each_adapter)


def adapter_axis(
    name: str, *, help: str, read: Callable[[object], Sequence[Any]] = numbers, spell: Callable[[Any], str] = number
) -> Callable[[Callable[[Adapter, Any], Adapter]], Callable[[Adapter, Any], Adapter]]:
    """Register the decorated function (Adapter, value) -> Adapter as the axis of that name, on each adapter of a cell or on a named one."""

    def keep(change: Callable[[Adapter, Any], Adapter]) -> Callable[[Adapter, Any], Adapter]:
        def apply(render: Render, value: Any) -> Render:
            return replace(render, adapters=tuple(change(one, value) for one in _adapters(render, name)))

        def apply_to(render: Render, reference: str, value: Any) -> Render:
            if all(one.reference != reference for one in render.every_adapter):
                given = ", ".join(one.reference for one in render.every_adapter) or "none"
                raise Refused(
                    f"axes.{name} names the adapter {reference}, which this cell has not (its adapters: {given}). Give it with `adapters`, "
                    f"or leave such cells out by `where`."
                )
            own, always = (
                tuple(change(one, value) if one.reference == reference else one for one in given)
                for given in (render.adapters, render.always)
            )
            return replace(render, adapters=own, always=always)

        AXES.add(name)(Axis(name=name, help=help, apply=apply, apply_to=apply_to, read=read, spell=spell, widen=_just, across=9))
        return change

    return keep


@adapter_axis("weight", help="the weight of the Render's adapters: 0.5, or 0..1/5 (five values); {hat: [0,0.5,1]} is that of one of them")
def weight(one: Adapter, value: float) -> Adapter:
    return replace(one, weight=value)


@adapter_axis("textweight", help="the weight of the adapters' part for the text encoders: 0, or 0..1/5; {hat: [0,1]}")
def text_weight(one: Adapter, value: float) -> Adapter:
    return replace(one, text_weight=value)


@adapter_axis("adapterstart", help="the share of the steps at which the adapters set in: 0..0.8/5; {hat: [0,0.5]}")
def adapter_start(one: Adapter, value: float) -> Adapter:
    return _ranged(one, value, one.end)


@adapter_axis("adapterend", help="the share of the steps at which the adapters end: 0.2..1/5; {hat: [0.5,1]}")
def adapter_end(one: Adapter, value: float) -> Adapter:
    return _ranged(one, one.start, value)


def _blocks(value: object) -> Sequence[str | None]:
    """The block weights of a text; null and "none" are 1 everywhere."""
    return (None if value in ("none", "null") else read_block_weights(value),)


@adapter_axis(
    "blocks",
    help='block weights of the adapters: null, "1,0,0,...", "IN*=0,OUT03=0.5", ramp (as lbw= and `loraloom merge` have them); {hat: [...]}',
    read=_blocks,
    spell=lambda value: value or "all 1",
)
def blocks(one: Adapter, value: str | None) -> Adapter:
    return replace(one, blocks=value)


def _ranged(one: Adapter, start: float, end: float) -> Adapter:
    """The adapter on that part of the steps. Raises Refused where it is none."""
    check_range(one.reference, start, end)
    return replace(one, start=start, end=end)


def _adapters(render: Render, axis: str) -> tuple[Adapter, ...]:
    """The cell's adapters, which an axis weighs. Raises Refused where there are none."""
    if not render.adapters:
        raise Refused(
            f"axes.{axis} changes the adapters, and this cell has none. Give `adapters`; of an axis of"
            " adapter with cells without one, leave those out: where='adapter != \"none\"' (a weight of 0 is the base alone)."
        )
    return render.adapters


field_axes("prompt", widen=lambda value, _store: prompt_lines(value))
field_axes("negative")


class Replacement(str):
    """A text that takes the place of another in prompts."""

    sought: str

    def __new__(cls, text: str, sought: str) -> "Replacement":
        made = super().__new__(cls, text)
        made.sought = sought
        return made


def _replacements(value: object) -> Sequence[Replacement]:
    """The values of {cat: [cat, dog]}."""
    if not isinstance(value, Mapping) or len(value) != 1 or not all(isinstance(find, str) and find for find in value):
        raise Refused(f"{value!r} is no replacement. Expected one text with what takes its place: {{cat: [cat, dog, red fox]}}.")
    ((find, given),) = value.items()
    return [Replacement(text, find) for one in every(given) for text in prompts(one)]


@axis(
    "replace",
    help="Prompt S/R: {cat: [cat, dog]} puts each text in the place of cat, in the prompt and the negative one",
    read=_replacements,
    spell=spell_text,
    across=0,
)
def replace_text(render: Render, value: Replacement) -> Render:
    find = value.sought
    if find not in render.prompt and find not in (render.negative or ""):
        raise Refused(f"axes.replace looks for {find!r}, which is neither in the prompt {render.prompt!r} nor in the negative one.")
    negative = None if render.negative is None else render.negative.replace(find, value)
    return replace(render, prompt=render.prompt.replace(find, value), negative=negative)


field_axes("seed", "sampler", "steps", "guidance", "width", "clip_skip", "prompt_chunks", "embeddings", "vae")


@axis(
    "init",
    help='images to redraw: paths, "photos/*.png" (each of them); null is none',
    read=texts,
    spell=file_name,
    widen=_each_file,
    across=6,
)
def init(render: Render, value: str | None) -> Render:
    if value is None:
        return replace(render, init=None, mask=None, strength=None, paste=True, fit=render.fit if render.controls else None)
    return replace(render, init=ImageFile(path=value))


@axis("strength", help="how much of init is redrawn: 0.6, or 0.2..1/5", read=numbers, spell=number)
def strength(render: Render, value: float) -> Render:
    if render.init is None:
        raise Refused(
            "axes.strength sets how much of an image is redrawn, and this cell has none. Give init; of an axis of init"
            " with cells without one, leave those out: where='init != null'."
        )
    return replace(render, strength=value)


@axis(
    "mask",
    help="masks: init is redrawn where they are white; null is all of it",
    read=texts,
    spell=file_name,
    widen=_each_file,
    across=6,
)
def mask(render: Render, value: str | None) -> Render:
    if value is None:
        return replace(render, mask=None, paste=True)
    return replace(render, mask=ImageFile(path=value))


field_axes("hires")


def hires_axis(name: str, field: str, *, help: str, read: Callable[[object], Sequence[Any]], spell: Callable[[Any], str] = str) -> None:
    """Register the axis of that name: it sets a field of a Render's second pass."""

    def apply(render: Render, value: Any) -> Render:
        if render.hires is None:
            raise Refused(
                f"axes.{name} changes the second pass, and this cell has none. Give hires (hires=1.5); of an axis of hires with cells"
                " without one, leave those out: where='hires != null'."
            )
        unsized = {"width": None, "height": None} if field == "scale" else {}
        changes: dict[str, Any] = {field: value, **unsized}
        return replace(render, hires=replace(render.hires, **changes))

    axis(name, help=help, read=read, spell=spell)(apply)


def _upscalers(value: object) -> Sequence[str]:
    return [upscaler_name(name) for name in names(value)]


hires_axis("hiresscale", "scale", help="what the second pass makes both sides larger by: 1.5, or 1..2/3", read=numbers, spell=number)
hires_axis("hiresupscaler", "upscaler", help=f"upscalers before the second pass: {', '.join(UPSCALERS)}", read=_upscalers)
hires_axis("hiressteps", "steps", help="steps that the second pass walks: 10, or 5-8", read=integers)
hires_axis("hiresstrength", "strength", help="how much the second pass redraws: 0.6, or 0.2..0.8/4", read=numbers, spell=number)

field_axes("controls", after=lambda render: render if render.images else replace(render, fit=None))


@axis("scale", help="the scale of the Render's ControlNets: 0.5, or 0..1/5 (0 is without)", read=numbers, spell=number)
def scale(render: Render, value: float) -> Render:
    if not render.controls:
        raise Refused(
            "axes.scale sets the scale of the ControlNets, and this cell has none. Give `controls`; of an axis of"
            " control with cells without one, leave those out: where='control != \"none\"'."
        )
    return replace(render, controls=tuple(replace(one, scale=value) for one in render.controls))


field_axes(*(name for name, one in SETTINGS.items() if one.axis is not None and (one.axis.name or one.name) not in AXES))  # all others
