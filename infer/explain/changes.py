"""The same image with one setting less: how far it differs from the image, pixel by pixel."""

# h w pixels

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from infer.draw.files import Adapter
from infer.draw.render import Render
from infer.draw.resolve import Resolver

if TYPE_CHECKING:
    from PIL.Image import Image

NEGATIVE, GUIDANCE, ADAPTER = "negative", "guidance", "adapter"


@dataclass(frozen=True, kw_only=True)
class Variant:
    """An image to draw beside the image: what is left out (negative, guidance, adapter), and its name for people."""

    what: str
    name: str
    render: Render


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Two images of one size: the absolute difference of their pixels, the mean over the channels."""

    mean: float  # of 255
    largest: float  # of 255, of a pixel
    share: float  # of the pixels that differ by more than 8 of 255
    gain: float  # what the map is brighter than the differences
    map: Image  # (h, w) grey


def variants_of(render: Render, resolver: Resolver) -> tuple[list[Variant], dict[str, str]]:
    """The images to draw beside a resolved Render's, and for what is not drawn the reason."""
    found, why = [], {}
    if not render.guided:
        why[NEGATIVE] = why[GUIDANCE] = f"At guidance {render.guidance:g} there is no unconditional pass: no negative prompt is read."
    else:
        if render.negative:
            found.append(Variant(what=NEGATIVE, name="without the negative prompt", render=replace(render, negative=None)))
        else:
            why[NEGATIVE] = "The image has no negative prompt."
        found.append(Variant(what=GUIDANCE, name="at guidance 1", render=replace(render, guidance=1.0, rescale=None)))
    for one in render.active:
        left = replace(
            render,
            adapters=tuple(other for other in render.adapters if other is not one),
            always=tuple(other for other in render.always if other is not one),
        )
        found.append(Variant(what=ADAPTER, name=f"without {name_of(one, resolver)}", render=left))
    if not render.active:
        why[ADAPTER] = "The image has no adapter."
    resolved = [replace(one, render=resolver.resolve(one.render)) for one in found]
    return [one for one in resolved if one.what != GUIDANCE or not one.render.guided], why


def name_of(one: Adapter, resolver: Resolver) -> str:
    """An adapter's name in the registry: an image that is read again names it by its content."""
    return resolver.adapter(one.reference).record.name


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
