"""The files that a Render names: adapters, embeddings, images and ControlNets, each as it was named and with the sha256 of its content."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import PurePath
from typing import Any

from infer.draw.values import number, texts
from infer.hints.setting import Prepare
from registry.errors import Refused
from registry.merging.adapter_blocks import read_block_weights
from registry.names import suggest
from registry.references import parse_adapters


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """An adapter as it was named, its weight, and the sha256 of its file once it was found.

    `text_weight` is the weight of its part for the text encoders; None: the same. `start` and `end` are the shares of the steps between
    which it changes the denoiser; the text encoders have it for the whole image. `blocks` are weights by block of the base, in the text
    form of `registry.merging.adapter_blocks`; None: 1 everywhere.
    """

    reference: str
    weight: float = 1.0
    sha256: str | None = None
    text_weight: float | None = None
    start: float = 0.0
    end: float = 1.0
    blocks: str | None = None

    def __post_init__(self) -> None:
        for name in ("weight", "start", "end"):
            object.__setattr__(self, name, float(getattr(self, name)) + 0.0)  # an int and -0.0 would give the same image another key
        if self.text_weight is not None:
            apart = float(self.text_weight) + 0.0
            object.__setattr__(self, "text_weight", None if apart == self.weight else apart)

    def __str__(self) -> str:
        weighted = self.reference if self.weight == 1.0 else f"{self.reference}:{number(self.weight)}"
        extra = [] if self.text_weight is None else [f"text {number(self.text_weight)}"]
        extra += [self.range_text] if self.is_ranged else []
        extra += [f"blocks {self.blocks}"] if self.blocks else []
        return f"{weighted} ({', '.join(extra)})" if extra else weighted

    @property
    def is_ranged(self) -> bool:
        """Whether it acts on a part of the steps."""
        return (self.start, self.end) != (0.0, 1.0)

    @property
    def range_text(self) -> str:
        """The part of the steps, as a person reads it."""
        return f"{number(self.start)}..{number(self.end)} of the steps"

    @property
    def acts(self) -> bool:
        """Whether it changes anything: at a weight of 0 there is the base alone."""
        return self.weight != 0.0 or self.text_weight not in (None, 0.0)

    def pinned(self) -> list[Any]:
        """What the pixels depend on."""
        blocks = [self.blocks] if self.blocks else []
        if self.is_ranged:
            return [self.sha256, self.weight, self.text_weight, self.start, self.end, *blocks]
        return [self.sha256, self.weight, *([] if self.text_weight is None else [self.text_weight]), *blocks]


@dataclass(frozen=True, kw_only=True)
class Embedding:
    """A textual inversion embedding as it was named, its token in prompts (None: the file's own), and its file's sha256 once found."""

    reference: str
    token: str | None = None
    sha256: str | None = None

    def __str__(self) -> str:
        return self.reference if self.token is None else f"{self.reference} as {self.token}"


@dataclass(frozen=True, kw_only=True)
class ImageFile:
    """An image as it was named, and the sha256 of its file once it was read."""

    path: str
    sha256: str | None = None

    def __str__(self) -> str:
        return self.path


@dataclass(frozen=True, kw_only=True)
class ControlNet:
    """A ControlNet as it was named, the image it is given, with its scale; `start` and `end` are shares of the steps.

    `mode` is the number of the hint's kind, for union nets. `prepare` is how the hint is made of the image; None: it is one.
    """

    reference: str
    picture: ImageFile
    scale: float = 1.0
    start: float = 0.0
    end: float = 1.0
    mode: int | None = None
    prepare: Prepare | None = None
    sha256: str | None = None

    def __post_init__(self) -> None:
        for name in ("scale", "start", "end"):
            object.__setattr__(self, name, float(getattr(self, name)) + 0.0)

    def __str__(self) -> str:
        text = f"{self.reference}:{self.picture}:{number(self.scale)}"
        extra = [] if (self.start, self.end) == (0.0, 1.0) else [f"{number(self.start)}..{number(self.end)} of the steps"]
        extra += [f"mode {self.mode}"] if self.mode is not None else []
        extra += [str(self.prepare)] if self.prepare else []
        return f"{text} ({', '.join(extra)})" if extra else text

    def pinned(self) -> list[Any]:
        """What the pixels depend on."""
        return [self.sha256, self.picture.sha256, self.scale, self.start, self.end, self.mode, self.prepare and self.prepare.pinned()]


def read_adapters(value: object) -> tuple[Adapter, ...]:
    """The adapters of "ink:0.6+hat:0.4", of a list of such, of "none" or None."""
    if value is None:
        return ()
    if isinstance(value, Adapter):
        return (value,)
    if isinstance(value, str):
        return tuple(Adapter(reference=one.reference, weight=one.weight) for one in parse_adapters(value))
    if isinstance(value, Mapping):
        return (_adapter_of(value),)
    if isinstance(value, Sequence):
        return tuple(found for one in value for found in read_adapters(one))
    raise Refused(f'adapters={value!r} is not a reference. Expected "ink", "ink:0.6+hat:0.4", a list of these, or none.')


def adapter_values(value: object) -> Sequence[str | tuple[Adapter, ...]]:
    """Adapters of one cell: a text, "ink:0.6+hat:0.4" (null is "none"), or a record or a list of records as `read_adapters` takes them."""
    if isinstance(value, Mapping) or (isinstance(value, Sequence) and not isinstance(value, str)):
        return (read_adapters(value),)
    return ["none" if text is None else text for text in texts(value)]


def _adapter_of(value: Mapping[Any, Any]) -> Adapter:
    """The adapter of {adapter: ink, weight: 0.8, text_weight: 0.5, start: 0, end: 0.5, blocks: {OUT*: 0}}."""
    given = {name: value[name] for name in ("weight", "text_weight", "start", "end") if value.get(name) is not None}
    numbers = all(isinstance(one, int | float) and not isinstance(one, bool) and isfinite(one) for one in given.values())
    known = ("adapter", "weight", "text_weight", "start", "end", "blocks")
    if unknown := [str(key) for key in value if key not in known]:
        raise Refused(f"An adapter's record has no {', '.join(unknown)}. {suggest(unknown[0], known, whole=True)}")
    if not isinstance(value.get("adapter"), str) or not numbers:
        raise Refused(
            f"{dict(value)} is no adapter. Expected {{adapter: NAME, weight: 0.8, text_weight: 0.5, start: 0, end: 0.5, blocks: ...}}, or "
            "NAME:0.8."
        )
    check_range(value["adapter"], given.get("start", 0.0), given.get("end", 1.0))
    return Adapter(reference=value["adapter"], blocks=read_block_weights(value.get("blocks")), **given)


def check_range(reference: str, start: float, end: float) -> None:
    """Refuse a `start` and `end` of an adapter that are no part of the steps."""
    if not 0 <= start < end <= 1:
        raise Refused(
            f"The adapter {reference} is to start at {number(start)} and end at {number(end)} of the steps. Expected two shares from 0 to"
            " 1, the first one smaller."
        )


def read_embeddings(value: object) -> tuple[Embedding, ...]:
    """The textual inversion embeddings of "badhands+goodhands", of a record {embedding, token}, of a list of either, of "none" or None."""
    if value is None:
        return ()
    if isinstance(value, Embedding):
        return (value,)
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


def read_image(value: str | ImageFile | None) -> ImageFile | None:
    """The image of a path; None of None."""
    return ImageFile(path=value) if isinstance(value, str) else value


def file_name(path: str | None) -> str:
    """The last part of a path, as a label; "none" of None."""
    return "none" if path is None else PurePath(path).name or path


def spell_controls(controls: tuple[ControlNet, ...]) -> str:
    """The ControlNets as a person reads them: "canny:edges.png:0.8", or "none"."""
    return " + ".join(map(str, controls)) or "none"


def spell_adapters(adapters: tuple[Adapter, ...]) -> str:
    """The adapters as a reference: "ink:0.6+hat:0.4", or "none"."""
    return "+".join(map(str, adapters)) or "none"


def spell_embeddings(embeddings: tuple[Embedding, ...]) -> str:
    """The embeddings as a person reads them: "badhands + soft as <soft>", or "none"."""
    return " + ".join(map(str, embeddings)) or "none"


def label_controls(controls: tuple[ControlNet, ...]) -> str:
    """`spell_controls` with the images' names for their paths."""
    return spell_controls(tuple(replace(one, picture=ImageFile(path=file_name(one.picture.path))) for one in controls))
