"""Render: all that one image needs, and the key that two equal images share."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from hashlib import sha256
from typing import Any

# Counts up when our own loop changes what it draws from the same settings; every key changes with it.
LOOP = 1


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """An adapter as it was named, its weight, and the sha256 of its file once it was found."""

    reference: str
    weight: float = 1.0
    sha256: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", float(self.weight) + 0.0)  # an int and -0.0 would give the same image another key

    def __str__(self) -> str:
        return self.reference if self.weight == 1.0 else f"{self.reference}:{number(self.weight)}"


@dataclass(frozen=True, kw_only=True)
class Embedding:
    """A textual inversion embedding as it was named, its spelling in prompts (None: the file's own), and the sha256 of its file once it was found."""

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
    """A ControlNet as it was named, the image it is given, and how: `start` and `end` are shares of the steps.

    `mode` is the number of the hint's kind, for union nets. `prepare` names what makes the hint of the image; None: it is one.
    """

    reference: str
    picture: ImageFile
    scale: float = 1.0
    start: float = 0.0
    end: float = 1.0
    mode: int | None = None
    prepare: str | None = None
    sha256: str | None = None

    def __post_init__(self) -> None:
        for name in ("scale", "start", "end"):
            object.__setattr__(self, name, float(getattr(self, name)) + 0.0)

    def __str__(self) -> str:
        told = f"{self.reference}:{self.picture}:{number(self.scale)}"
        extra = [] if (self.start, self.end) == (0.0, 1.0) else [f"{number(self.start)}..{number(self.end)} of the steps"]
        extra += [f"mode {self.mode}"] if self.mode is not None else []
        extra += [self.prepare] if self.prepare else []
        return f"{told} ({', '.join(extra)})" if extra else told

    def pinned(self) -> list[Any]:
        """What the pixels depend on."""
        return [self.sha256, self.picture.sha256, self.scale, self.start, self.end, self.mode, self.prepare]


@dataclass(frozen=True, kw_only=True)
class Render:
    """All that one image needs. `None` is what the stock pipeline does; `infer.draw.resolve` puts the value in its place.

    `clip_skip` counts as diffusers does: 1 leaves out the last layer of the text encoder (A1111 calls that 2).
    `init` is the image that is drawn anew by `strength`, where `mask` is white; `paste` puts its own pixels back where it is black.
    """

    base: str
    base_config: str | None = None
    prediction: str | None = None  # what a person said that the base predicts; None: as its files say
    adapters: tuple[Adapter, ...] = ()
    prompt: str = ""
    negative: str | None = None
    seed: int = 0
    steps: int | None = None
    sampler: str | None = None
    guidance: float | None = None
    width: int | None = None
    height: int | None = None
    clip_skip: int | None = None
    init: ImageFile | None = None
    strength: float | None = None  # in (0, 1], the share of the steps that is walked
    mask: ImageFile | None = None
    paste: bool = True
    controls: tuple[ControlNet, ...] = ()
    embeddings: tuple[Embedding, ...] = ()
    vae: str | None = None  # None: the base's own
    fit: str | None = None  # how an image of another shape is made the size: stretch or crop
    precision: str = "fp32"
    device: str = "cpu"
    guided: bool | None = None  # whether there is an unconditional pass, by the family's rule for this guidance and negative
    base_sha256: str | None = None
    base_config_sha256: str | None = None
    vae_sha256: str | None = None
    versions: tuple[tuple[str, str], ...] = ()  # of what computes the pixels: torch, diffusers, ..., the GPU's name

    def __post_init__(self) -> None:
        for name in ("guidance", "strength"):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, float(value))

    @property
    def steering(self) -> tuple[ControlNet, ...]:
        """The ControlNets that change the image, in their order: a scale of 0 is none."""
        return tuple(one for one in self.controls if one.scale != 0.0)

    @property
    def images(self) -> dict[str, ImageFile]:
        """What a person calls each image that is needed: init, mask, control 1, ..."""
        given = {"init": self.init, "mask": self.mask}
        given |= {f"control {number}": one.picture for number, one in enumerate(self.controls, 1)}
        return {name: file for name, file in given.items() if file is not None}

    @property
    def active(self) -> tuple[Adapter, ...]:
        """The adapters that change the image, in the order of their contents: a weight of 0 is the base alone."""
        return tuple(sorted((one for one in self.adapters if one.weight != 0.0), key=lambda one: (one.sha256 or "", one.reference)))

    def pinned(self) -> dict[str, Any]:
        """What the pixels depend on, contents in place of names. Raises ValueError while something is still open."""
        needed = {name: getattr(self, name) for name in ("base_sha256", "steps", "guidance", "guided", "width", "height")}
        needed |= {f"sha256 of {one.reference}": one.sha256 for one in self.active}
        if self.base_config is not None:
            needed["base_config_sha256"] = self.base_config_sha256
        if self.vae is not None:
            needed["vae_sha256"] = self.vae_sha256
        needed |= {f"sha256 of {name}": file.sha256 for name, file in self.images.items()}
        needed |= {f"sha256 of {one.reference}": one.sha256 for one in self.controls}
        needed |= {f"sha256 of {one.reference}": one.sha256 and one.token for one in self.embeddings}
        if self.init is not None:
            needed["strength"] = self.strength
        if missing := [name for name, value in needed.items() if value is None]:
            raise ValueError(f"A Render has a key only when it is resolved; it lacks {', '.join(missing)}.")
        return {
            "loop": LOOP,
            "base": self.base_sha256,
            "base_config": self.base_config_sha256,
            "adapters": [[one.sha256, one.weight] for one in self.active],
            "prompt": self.prompt,
            "negative": self.negative if self.guided else None,  # without an unconditional pass it is never read
            "seed": self.seed,
            "steps": self.steps,
            "sampler": self.sampler,
            "guidance": self.guidance,
            "width": self.width,
            "height": self.height,
            "clip_skip": self.clip_skip or None,  # 0 leaves nothing out
            "precision": self.precision,
            "device": self.device.partition(":")[0],  # cuda:1 draws what cuda:0 draws; the GPU stands in the versions
            "versions": dict(self.versions),
            **self._pinned_images(),
            **({"vae": self.vae_sha256} if self.vae is not None else {}),
            **({"embeddings": [[one.sha256, one.token] for one in self.embeddings]} if self.embeddings else {}),
            **({"prediction": self.prediction} if self.prediction is not None else {}),
        }

    def _pinned_images(self) -> dict[str, Any]:
        """What the pixels depend on where images are given; nothing where none is, so that older keys stand."""
        pinned: dict[str, Any] = {}
        if self.init is not None:
            pinned |= {"init": self.init.sha256, "strength": self.strength}
        if self.mask is not None:
            pinned |= {"mask": self.mask.sha256, "paste": self.paste}
        if self.steering:
            pinned["controls"] = [one.pinned() for one in self.steering]
        if pinned and self.fit is not None:
            pinned["fit"] = self.fit
        return pinned

    def key(self) -> str:
        """sha256 of the canonical JSON of `pinned()`: equal for equal images, whatever the files are called."""
        return _digest(self.pinned())

    def latents_key(self) -> str:
        """The same of the latents: equal for images that one denoising serves, whatever VAE decodes it."""
        pinned = self.pinned()
        if not self.images:  # an image's latents are the VAE's, and some ControlNets take those of their hint
            pinned.pop("vae", None)
        return _digest(pinned)

    def to_json(self) -> dict[str, Any]:
        """Plain values with stable keys, in the order of the fields."""
        lists = {name: [asdict(one) for one in getattr(self, name)] for name in ("adapters", "controls", "embeddings")}
        return asdict(self) | lists | {"versions": dict(self.versions)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Render":
        """The Render back from `to_json`; keys of a later version are left out."""
        values = {one.name: data[one.name] for one in fields(cls) if one.name in data}
        values["adapters"] = tuple(Adapter(**one) for one in data.get("adapters", ()))
        values["embeddings"] = tuple(Embedding(**one) for one in data.get("embeddings", ()))
        values["controls"] = tuple(ControlNet(**one | {"picture": ImageFile(**one["picture"])}) for one in data.get("controls", ()))
        values |= {name: ImageFile(**data[name]) for name in ("init", "mask") if data.get(name) is not None}
        values["versions"] = tuple(sorted(dict(data.get("versions", {})).items()))
        return cls(**values)


def _digest(values: Mapping[str, Any]) -> str:
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return sha256(text.encode()).hexdigest()


def number(value: float) -> str:
    """A number as a person writes it, and exact: 1, 0.6, 0.05."""
    return short if float(short := f"{value:g}") == value else repr(value)


def spell_controls(controls: tuple[ControlNet, ...]) -> str:
    """The ControlNets as a person reads them: "canny:edges.png:0.8", or "none"."""
    return " + ".join(map(str, controls)) or "none"


def spell_adapters(adapters: tuple[Adapter, ...]) -> str:
    """The adapters as a reference: "ink:0.6+hat:0.4", or "none"."""
    return "+".join(map(str, adapters)) or "none"
