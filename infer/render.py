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
        object.__setattr__(self, "weight", float(self.weight) + 0.0)  # an int and -0.0 would give the same picture another key

    def __str__(self) -> str:
        return self.reference if self.weight == 1.0 else f"{self.reference}:{number(self.weight)}"


@dataclass(frozen=True, kw_only=True)
class Render:
    """All that one image needs. `None` is what the plain pipeline call does; `infer.resolve` puts the value in its place.

    `clip_skip` counts as diffusers does: 1 leaves out the last layer of the text encoder (A1111 calls that 2).
    """

    base: str
    base_config: str | None = None
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
    precision: str = "fp32"
    device: str = "cpu"
    guided: bool | None = None  # whether there is an unconditional pass, by the family's rule for this guidance and negative
    base_sha256: str | None = None
    base_config_sha256: str | None = None
    versions: tuple[tuple[str, str], ...] = ()  # of what computes the pixels: torch, diffusers, ..., the GPU's name

    def __post_init__(self) -> None:
        if self.guidance is not None:
            object.__setattr__(self, "guidance", float(self.guidance))

    @property
    def active(self) -> tuple[Adapter, ...]:
        """The adapters that change the picture, in the order of their contents: a weight of 0 is the base alone."""
        return tuple(sorted((one for one in self.adapters if one.weight != 0.0), key=lambda one: (one.sha256 or "", one.reference)))

    def pinned(self) -> dict[str, Any]:
        """What the pixels depend on, contents in place of names. Raises ValueError while something is still open."""
        needed = {name: getattr(self, name) for name in ("base_sha256", "steps", "guidance", "guided", "width", "height")}
        needed |= {f"sha256 of {one.reference}": one.sha256 for one in self.active}
        if self.base_config is not None:
            needed["base_config_sha256"] = self.base_config_sha256
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
        }

    def key(self) -> str:
        """sha256 of the canonical JSON of `pinned()`: equal for equal pictures, whatever the files are called."""
        text = json.dumps(self.pinned(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return sha256(text.encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Plain values with stable keys, in the order of the fields."""
        return asdict(self) | {"adapters": [asdict(one) for one in self.adapters], "versions": dict(self.versions)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Render":
        """The Render back from `to_json`; keys of a later version are left out."""
        values = {one.name: data[one.name] for one in fields(cls) if one.name in data}
        values["adapters"] = tuple(Adapter(**one) for one in data.get("adapters", ()))
        values["versions"] = tuple(sorted(dict(data.get("versions", {})).items()))
        return cls(**values)


def number(value: float) -> str:
    """A number as a person writes it, and exact: 1, 0.6, 0.05."""
    return short if float(short := f"{value:g}") == value else repr(value)


def spell_adapters(adapters: tuple[Adapter, ...]) -> str:
    """The adapters as a reference: "ink:0.6+hat:0.4", or "none"."""
    return "+".join(map(str, adapters)) or "none"
