"""Scores of an image beside the one that it is held against: same prompt and seed, the first value of every other axis."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

from infer.score.scorer import Better, Found, Plain, Scene, Scorer, Subject, Value
from registry.errors import Refused
from registry.names import suggest
from registry.options import Meaning

if TYPE_CHECKING:
    from PIL.Image import Image

AxisOption = Annotated[
    str | None, Meaning("the one axis whose first value it is held against; null: the first value of every axis but prompt and seed")
]


def against_first(
    definition: str, *, unit: str, better: Better | None, scene: Scene, axis: str | None, measure: Callable[[Any, Any], float]
) -> Scorer:
    """`measure` gets the pixels of the image and of the other, both (H, W, 3) float64 in 0..255."""

    def of_images(image: Image, other: Image) -> float:
        import numpy

        return measure(numpy.asarray(image, dtype=numpy.float64), numpy.asarray(other, dtype=numpy.float64))

    return against_first_images(definition, unit=unit, better=better, scene=scene, axis=axis, open=lambda: of_images)


def against_first_images(
    definition: str,
    *,
    unit: str,
    better: Better | None,
    scene: Scene,
    axis: str | None,
    open: Callable[[], Callable[[Image, Image], float]],
    model: Mapping[str, Plain] | None = None,
) -> Scorer:
    """`open` gives a function of the image and the other, both RGB and of one size."""
    check_axis(axis, scene)

    def opened() -> Value:
        compare = open()

        def value(subject: Subject) -> Found:
            other = subject.first(axis)
            assert other is not None
            return Found(compare(subject.image(), other.image()))

        return value

    return Scorer(
        definition=f"{definition} {held_against(axis)}",
        unit=unit,
        better=better,
        open=opened,
        identity={"axis": axis},
        inputs=lambda subject: same_size_first(subject, axis),
        lacks="there is no such other image, or it has another size",
        model=model,
    )


def check_axis(axis: str | None, scene: Scene) -> None:
    """Raises Refused for an axis that the grid does not vary."""
    if axis is not None and axis not in scene.axes:
        raise Refused(f"axis {axis!r} is not varied in this grid. {suggest(axis, scene.axes)}")


def held_against(axis: str | None) -> str:
    """The sentence on what the other image is."""
    if axis is not None:
        return f"The other image has the first value of the axis {axis} and all else equal."
    return "The other image has the same prompt and seed, and the first value of every other axis."


def same_size_first(subject: Subject, axis: str | None) -> Mapping[str, Plain] | None:
    """The other image by its content, None where there is none of the same size."""
    other = subject.first(axis)
    if other is None or other.image().size != subject.image().size:
        return None
    return {"other": other.sha256}
