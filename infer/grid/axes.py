"""The axes of a grid: each is one function (Render, value) -> Render, and a reader of the values a person gives.

An axis is added by one decorated function; its name is one word, and the setting `axes.<name>` exists by that alone.
The order of this file is the order in which the axes act on a Render: `weight` after `adapter`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from glob import glob
from itertools import product
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from infer.draw.controls import read_controls
from infer.draw.render import Adapter, ControlNet, Embedding, ImageFile, Render, number, spell_controls
from infer.grid.values import integers, numbers, sizes, spell_size, texts
from registry.errors import Refused
from registry.names import Table

if TYPE_CHECKING:
    from registry.store import Store


def _just(value: Any, _store: "Store") -> Sequence[Any]:
    return (value,)


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One axis. `read` turns one given value into those it stands for ("1-4"), `widen` asks the store ("ink@step-*")."""

    name: str
    help: str
    apply: Callable[[Render, Any], Render]
    read: Callable[[object], Sequence[Any]]
    spell: Callable[[Any], str]
    widen: Callable[[Any, "Store"], Sequence[Any]]
    across: int  # which axis a sheet puts across (the highest) and which down (the lowest: prompts are sentences, read at a row's side)


AXES: Table[Axis] = Table("axis")


def axis(
    name: str,
    *,
    help: str,
    read: Callable[[object], Sequence[Any]],
    spell: Callable[[Any], str] = str,
    widen: Callable[[Any, "Store"], Sequence[Any]] = _just,
    across: int = 5,
) -> Callable[[Callable[[Render, Any], Render]], Callable[[Render, Any], Render]]:
    """Keep the decorated function (Render, value) -> Render as the axis of that name."""

    def keep(apply: Callable[[Render, Any], Render]) -> Callable[[Render, Any], Render]:
        AXES.add(name)(Axis(name=name, help=help, apply=apply, read=read, spell=spell, widen=widen, across=across))
        return apply

    return keep


def _names(value: object) -> Sequence[str]:
    found = [name for name in texts(value) if name is not None]
    if not found:
        raise Refused("null names nothing. Expected a name, a path or sha256:<prefix>.")
    return found


def _adapters(value: object) -> Sequence[str]:
    return ["none" if name is None else name for name in texts(value)]


def _spell_text(value: str | None) -> str:
    return "none" if value is None else value if value.strip() else f"“{value}”"


def _spell_own(value: object) -> str:
    return "base's own" if value is None else str(value)


def _each_file(value: str | None, _store: "Store") -> list[str | None]:
    """The images that a `*` stands for, in the order of their names; any other value as it is."""
    if value is None or "*" not in value or Path(value).expanduser().exists():
        return [value]
    found = sorted(glob(str(Path(value).expanduser())))
    if not found:
        raise Refused(f"{value!r} fits no file. Give the path of an image, or a pattern such as photos/*.png.")
    return [*found]


def _spell_file(value: str | None) -> str:
    return "none" if value is None else PurePath(value).name or value


def _embeddings(value: object) -> Sequence[tuple[Embedding, ...]]:
    return (read_embeddings(value),)


def _spell_several(value: tuple[Embedding, ...]) -> str:
    return " + ".join(map(str, value)) or "none"


def _spell_vae(value: str | None) -> str:
    return "base's own" if value is None else value


def _spell_controls(value: tuple[ControlNet, ...]) -> str:
    return spell_controls(tuple(replace(one, picture=ImageFile(path=_spell_file(one.picture.path))) for one in value))


def _controls(value: object) -> Sequence[tuple[ControlNet, ...]]:
    return (read_controls(value),)


def _each_checkpoint(value: str, store: "Store") -> list[str]:
    """The values a `@step-*` stands for, one for each checkpoint; any other value as it is."""
    from registry.references import parse_adapters

    choices: list[list[str]] = []
    for one in parse_adapters(value):
        names = [record.name for record in store.expand(one.reference, kind="adapter")] if "*" in one.reference else [one.reference]
        choices.append([str(Adapter(reference=name, weight=one.weight)) for name in names])
    if all(len(names) == 1 for names in choices) and "*" not in value:
        return [value]
    return ["+".join(names) for names in product(*choices)]


@axis("base", help="base models: names, paths, sha256:...", read=_names, across=7)
def base(render: Render, value: str) -> Render:
    return replace(render, base=value, base_sha256=None)


@axis(
    "adapter",
    help='adapters: "none", ink, "ink:0.6+hat:0.4", "ink@step-*" (each checkpoint)',
    read=_adapters,
    widen=_each_checkpoint,
    across=8,
)
def adapter(render: Render, value: str) -> Render:
    return replace(render, adapters=read_adapters(value))


@axis("weight", help="the weight of the Render's adapters: 0.5, or 0..1/5 (five values from 0 to 1)", read=numbers, spell=number, across=9)
def weight(render: Render, value: float) -> Render:
    if not render.adapters:
        raise Refused(
            "axes.weight sets the weight of the adapters, and this cell has none. Give `adapters` or the adapter axis,"
            " or leave such cells out: where='adapter != \"none\"' (a weight of 0 is the base alone)."
        )
    return replace(render, adapters=tuple(replace(one, weight=value) for one in render.adapters))


@axis("prompt", help="prompts, each in quotes", read=texts, spell=_spell_text, across=0)
def prompt(render: Render, value: str | None) -> Render:
    if value is None:
        raise Refused('axes.prompt holds null; an empty prompt is "".')
    return replace(render, prompt=value)


@axis("negative", help="negative prompts; null is none", read=texts, spell=_spell_text, across=0)
def negative(render: Render, value: str | None) -> Render:
    return replace(render, negative=value)


@axis("seed", help="seeds: 7, or 1-4 (1, 2, 3, 4)", read=integers, across=2)
def seed(render: Render, value: int) -> Render:
    return replace(render, seed=value)


@axis("sampler", help="samplers by name; null is the base's own", read=texts, spell=_spell_own)
def sampler(render: Render, value: str | None) -> Render:
    return replace(render, sampler=value)


@axis("steps", help="denoising steps: 20, or 10-14", read=integers)
def steps(render: Render, value: int) -> Render:
    return replace(render, steps=value)


@axis("guidance", help="guidance scales: 4, or 1..7/4", read=numbers, spell=number)
def guidance(render: Render, value: float) -> Render:
    return replace(render, guidance=value)


@axis("size", help="sizes in pixels: 64, 96x64 (width x height), [96,64]", read=sizes, spell=spell_size)
def size(render: Render, value: tuple[int, int]) -> Render:
    return replace(render, width=value[0], height=value[1])


@axis("clipskip", help="layers of the text encoder left out at its end: 0 is none, 1 is A1111's 2", read=integers)
def clipskip(render: Render, value: int) -> Render:
    return replace(render, clip_skip=value or None)


@axis(
    "embedding",
    help='textual inversion embeddings (textual inversion): "none", badhands, "badhands+goodhands"; write them in the prompts',
    read=_embeddings,
    spell=_spell_several,
    across=6,
)
def embedding(render: Render, value: tuple[Embedding, ...]) -> Render:
    return replace(render, embeddings=value)


@axis("vae", help="VAEs by name or path; null is the base's own. One denoising serves them all", read=texts, spell=_spell_vae, across=6)
def vae(render: Render, value: str | None) -> Render:
    return replace(render, vae=value, vae_sha256=None)


@axis(
    "init",
    help='images to draw anew: paths, "photos/*.png" (each of them); null is none',
    read=texts,
    spell=_spell_file,
    widen=_each_file,
    across=6,
)
def init(render: Render, value: str | None) -> Render:
    if value is None:
        return replace(render, init=None, mask=None, strength=None, paste=True, fit=render.fit if render.controls else None)
    return replace(render, init=ImageFile(path=value))


@axis("strength", help="how much of init is drawn anew: 0.6, or 0.2..1/5", read=numbers, spell=number)
def strength(render: Render, value: float) -> Render:
    if render.init is None:
        raise Refused("axes.strength says how much of an image is drawn anew, and this cell has none. Give init, or the init axis.")
    return replace(render, strength=value)


@axis(
    "mask",
    help="images that show in white where init is drawn anew; null is all of it",
    read=texts,
    spell=_spell_file,
    widen=_each_file,
    across=6,
)
def mask(render: Render, value: str | None) -> Render:
    if value is None:
        return replace(render, mask=None, paste=True)
    return replace(render, mask=ImageFile(path=value))


@axis(
    "control",
    help='ControlNets with hints: "none", canny:edges.png:0.8, "canny:e.png:0.8+depth:d.png"',
    read=_controls,
    spell=_spell_controls,
    across=6,
)
def control(render: Render, value: tuple[ControlNet, ...]) -> Render:
    return replace(render, controls=value)


@axis("scale", help="the scale of the Render's ControlNets: 0.5, or 0..1/5 (0 is without)", read=numbers, spell=number)
def scale(render: Render, value: float) -> Render:
    if not render.controls:
        raise Refused("axes.scale sets the scale of the ControlNets, and this cell has none. Give `controls`, or the control axis.")
    return replace(render, controls=tuple(replace(one, scale=value) for one in render.controls))


def read_adapters(value: object) -> tuple[Adapter, ...]:
    """The adapters of "ink:0.6+hat:0.4", of a list of such, of "none" or None."""
    from registry.references import parse_adapters

    if value is None:
        return ()
    if isinstance(value, str):
        return tuple(Adapter(reference=one.reference, weight=one.weight) for one in parse_adapters(value))
    if isinstance(value, Sequence):
        return tuple(found for one in value for found in read_adapters(one))
    raise Refused(f'adapters={value!r} is not a reference. Expected "ink", "ink:0.6+hat:0.4", a list of these, or none.')


def read_embeddings(value: object) -> tuple[Embedding, ...]:
    """The textual inversion embeddings of "badhands+goodhands", of a record {embedding, token}, of a list of either, of "none" or None."""
    from registry.references import parse_adapters

    if value is None:
        return ()
    if isinstance(value, str):
        if weighted := [str(one) for one in parse_adapters(value) if one.weight != 1.0]:
            raise Refused(f"A textual inversion embedding has no weight, but {weighted[0]} is given one. Name it alone.")
        return tuple(Embedding(reference=one.reference) for one in parse_adapters(value))
    if isinstance(value, Mapping):
        if set(value) - {"embedding", "token"} or not isinstance(value.get("embedding"), str):
            raise Refused(f"{dict(value)} is no textual inversion embedding. Expected {{embedding: NAME, token: '<word>'}}, or NAME alone.")
        return (Embedding(reference=value["embedding"], token=None if value.get("token") is None else str(value["token"])),)
    if isinstance(value, Sequence):
        return tuple(found for one in value for found in read_embeddings(one))
    raise Refused(f"{value!r} is no textual inversion embedding. Expected a name, a list of names, or {{embedding, token}}.")
