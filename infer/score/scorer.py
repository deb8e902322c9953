"""What a score is: a sentence that defines it, and a function from one image of a grid to a number.

    @SCORES.add("contrast")
    def contrast(scene: Scene) -> Scorer:
        return of_pixels("Standard deviation of the luma.", unit="0 to 127.5", better=None, measure=deviation)

The options of a score are the keyword-only parameters of its function, the first of them the one that `{name: VALUE}` gives. The function
checks them and reads no weights; `open` does, when a number is wanted that is not kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from registry.options import OptionTable

if TYPE_CHECKING:
    from PIL.Image import Image

    from registry.store import Store

Better: TypeAlias = Literal["higher", "lower"]
Plain: TypeAlias = str | int | float | bool | list[Any] | dict[str, Any] | None


@dataclass(frozen=True)
class Found:
    """A score's number for one image, and a text that stands beside it ("nearest to cat.png")."""

    value: float
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One image of a grid as a score sees it."""

    key: str
    sha256: str  # of its pixels
    image: Callable[[], Image]  # RGB; decoded when it is called
    prompt: str | None  # as a person typed it, without the marks of a dialect
    seconds: float | None  # that drawing it took, where that is known
    first: Callable[[str | None], Subject | None]  # the image that it is held against: see infer.score.subjects
    files: Mapping[str, str] = field(default_factory=dict)  # sha256 of its input images by what they are: init
    inputs: Mapping[str, Callable[[], Image]] = field(default_factory=dict)  # the same, decoded when called


Value: TypeAlias = Callable[[Subject], Found]


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """A score with its options, ready to be computed. `identity` is all that its numbers come of beside the image and `inputs`."""

    definition: str
    unit: str
    better: Better | None
    open: Callable[[], Value]
    identity: Mapping[str, Plain] = field(default_factory=dict)
    inputs: Callable[[Subject], Mapping[str, Plain] | None] = lambda _: {}  # what else it reads of a cell; None: it has no number there
    lacks: str = ""  # why `inputs` may be None: "no image of the first value"
    model: Mapping[str, Plain] | None = None  # path, kind, sha256
    notes: tuple[str, ...] = ()
    name: str = ""  # its key in cells.jsonl
    kind: str = ""  # its name in the table
    kept: bool = True  # whether its numbers follow from content alone

    def to_json(self) -> dict[str, Any]:
        """Plain values with stable keys."""
        return {
            "name": self.name,
            "score": self.kind,
            "definition": self.definition,
            "unit": self.unit,
            "better": self.better,
            "options": dict(self.identity),
            "model": None if self.model is None else dict(self.model),
        }


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What a score may ask while it is checked: the grid's prompts and adapters, the home's models, the device."""

    prompts: tuple[str, ...] = ()
    axes: tuple[str, ...] = ()  # that are varied
    adapters: tuple[str, ...] = ()  # sha256 of their files
    store: Store | None = None
    device: str = "cpu"
    opened: dict[str, Any] = field(default_factory=dict, compare=False)  # models that several scores share, by path and use


Opener: TypeAlias = Callable[..., Scorer]
SCORES: OptionTable[Opener] = OptionTable("score")


def of_pixels(definition: str, *, unit: str, better: Better | None, measure: Callable[[Any], float]) -> Scorer:
    """A score of the pixels alone. `measure` gets them as (H, W, 3) float64 in 0..255, sRGB."""

    def value(subject: Subject) -> Found:
        import numpy

        return Found(measure(numpy.asarray(subject.image(), dtype=numpy.float64)))

    return Scorer(definition=definition, unit=unit, better=better, open=lambda: value)
