"""The same image with one setting less: how far it differs from the image, pixel by pixel."""

# h w pixels

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from infer.draw.files import Adapter, ControlNet, Embedding
from infer.draw.render import Render
from infer.draw.resolve import Resolver
from registry.errors import Faults, Refused

if TYPE_CHECKING:
    from PIL.Image import Image

NEGATIVE, GUIDANCE, START, CONTROL, EMBEDDING, ADAPTER = "negative", "guidance", "start", "control", "embedding", "adapter"


@dataclass(frozen=True, kw_only=True)
class Variant:
    """An image to draw beside the image: what is left out, and its name for people. `steps` are those that are drawn."""

    what: str  # negative, guidance, start, control, embedding, adapter
    name: str
    render: Render
    steps: int = 0
    one: ControlNet | Embedding | Adapter | None = None  # what is left out, of what an image has several of


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Two images of one size: the absolute difference of their pixels, the mean over the channels."""

    mean: float  # of 255
    largest: float  # of 255, of a pixel
    share: float  # of the pixels that differ by more than 8 of 255
    gain: float  # what the map is brighter than the differences
    map: Image  # (h, w) grey


def variants_of(render: Render, resolver: Resolver) -> tuple[list[Variant], dict[str, str]]:
    """The images to draw beside a resolved Render's, and for what is not drawn the reason: an image that is refused is left out by it."""
    why: dict[str, str] = {}
    if not render.any_guided:
        why[NEGATIVE] = why[GUIDANCE] = f"At guidance {render.guidance:g} there is no unconditional pass: no negative prompt is read."
    elif not render.negative:
        why[NEGATIVE] = "The image has no negative prompt."
    if unread := [one for one in render.embeddings if not _stands_in(one, render)]:
        words = ", ".join(f"{one.token} ({embedding_name(one, resolver)})" for one in unread)
        why[EMBEDDING] = f"No prompt that is read has the word of these embeddings: {words}."
    if not render.active:
        why[ADAPTER] = "The image has no adapter."
    found = [*_of_prompts(render), *_of_images(render, resolver), *_of_embeddings(render, resolver), *_of_adapters(render, resolver)]
    resolved = []
    for one in found:
        try:
            resolved.append(replace(one, render=resolver.resolve(one.render)))
        except Refused as error:
            faults = " ".join(error.faults if isinstance(error, Faults) else [str(error)])
            why[one.what] = " ".join([*([why[one.what]] if one.what in why else []), f"The image {one.name} is not drawn: {faults}"])
    kept = [one for one in resolved if one.what != GUIDANCE or not one.render.any_guided]
    return [replace(one, steps=drawn_steps(one.render, resolver)) for one in kept], why


def _of_prompts(render: Render) -> Iterator[Variant]:
    if render.any_guided and render.negative:
        yield Variant(what=NEGATIVE, name="without the negative prompt", render=replace(render, negative=None))
    if render.any_guided:
        yield Variant(what=GUIDANCE, name="at guidance 1", render=_unguided(render))


def _unguided(render: Render) -> Render:
    """The Render without guidance, in a second pass neither."""
    hires = None if render.hires is None else replace(render.hires, guidance=None)
    return replace(render, guidance=1.0, rescale=None, hires=hires)


def _of_images(render: Render, resolver: Resolver) -> Iterator[Variant]:
    """Without the image that is redrawn, and without each ControlNet."""
    if render.init is not None:
        bare = replace(render, init=None, mask=None, strength=None, paste=True)
        yield Variant(what=START, name="from noise alone", render=_fitting(bare))
    for one in render.steering:
        left = replace(render, controls=tuple(other for other in render.controls if other is not one))
        yield Variant(what=CONTROL, name=f"without {control_name(one, resolver)}", render=_fitting(left), one=one)


def _fitting(render: Render) -> Render:
    """`fit` is for images: without any it is refused."""
    return render if render.images else replace(render, fit=None)


def _of_embeddings(render: Render, resolver: Resolver) -> Iterator[Variant]:
    """Each word as the plain text that it is without its embedding."""
    for one in render.embeddings:
        if _stands_in(one, render):
            left = replace(render, embeddings=tuple(other for other in render.embeddings if other is not one))
            yield Variant(what=EMBEDDING, name=f"without {embedding_name(one, resolver)}", render=left, one=one)


def _of_adapters(render: Render, resolver: Resolver) -> Iterator[Variant]:
    for one in render.active:
        left = replace(
            render,
            adapters=tuple(other for other in render.adapters if other is not one),
            always=tuple(other for other in render.always if other is not one),
        )
        yield Variant(what=ADAPTER, name=f"without {name_of(one, resolver)}", render=left, one=one)


def _stands_in(one: Embedding, render: Render) -> bool:
    """Whether the word of an embedding is in a text that is read."""
    read = (render.prompt, render.negative if render.any_guided else None)
    return one.token is not None and any(one.token in text for text in read if text)


def drawn_steps(render: Render, resolver: Resolver) -> int:
    """The steps that a resolved Render is drawn in: image-to-image leaves out those before its strength, a second pass has its own."""
    steps = render.steps or 0
    if render.hires is not None:
        return steps + (render.hires.steps or 0)
    if render.init is None or render.strength is None:
        return steps
    return steps - resolver.base(render).family.start_step(steps, render.strength)


def name_of(one: Adapter, resolver: Resolver) -> str:
    """An adapter's name in the registry: an image that is read again names it by its content."""
    return resolver.adapter(one.reference).record.name


def control_name(one: ControlNet, resolver: Resolver) -> str:
    """A ControlNet's name in the registry."""
    return resolver.controlnet(one.reference).record.name


def embedding_name(one: Embedding, resolver: Resolver) -> str:
    """A textual inversion embedding's name in the registry."""
    return resolver.embedding(one.reference).record.name


def difference(one: Image, other: Image) -> Difference:
    """The difference of two RGB images of one size; its map is as bright as its largest value allows."""
    import numpy
    from PIL import Image

    first, second = (numpy.asarray(image.convert("RGB"), dtype=numpy.float64) for image in (one, other))
    apart = numpy.abs(first - second).mean(axis=-1)  # (h, w)
    largest = float(apart.max(initial=0.0))
    gain = 255 / largest if largest else 1.0
    return Difference(
        mean=round(float(apart.mean()), 4),
        largest=round(largest, 4),
        share=round(float((apart > 8).mean()), 6),
        gain=round(gain, 3),
        map=Image.fromarray((apart * gain).round().astype(numpy.uint8)),
    )


def plain(found: Difference) -> dict[str, Any]:
    """The numbers of a difference with stable keys."""
    return {"mean": found.mean, "largest": found.largest, "share": found.share, "gain": found.gain}
