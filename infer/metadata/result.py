"""The settings that an image's metadata states, in one form for all programs, and by name and value what could not be read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from infer.draw.render import Render


HEX = re.compile(r"(?:[a-z0-9_]{1,20}:)?(?:0x)?([0-9a-fA-F]{8,64})")  # blake3:..., 0x...
SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".gguf", ".sft")


def bare_name(name: str) -> str:
    """A file's name as people know the model: without folders, of either system, and without a model file's ending."""
    last = name.replace("\\", "/").rstrip("/").rpartition("/")[2]
    return next((last[: -len(ending)] for ending in SUFFIXES if last.lower().endswith(ending)), last)


def hex_digits(value: object) -> str | None:
    """The digits of a hash, as programs spell it; None of anything else."""
    match = HEX.fullmatch(value.strip()) if isinstance(value, str) else None
    return match[1].lower() if match else None


@dataclass(frozen=True, kw_only=True)
class ModelName:
    """A model as the metadata names it. `digits` are the first hex digits of one of its hashes, which one is not said."""

    name: str | None = None
    digits: str | None = None

    def __str__(self) -> str:
        return " ".join([self.name or "without a name", *([f"[{self.digits}]"] if self.digits else [])])


@dataclass(frozen=True, kw_only=True)
class LoraName(ModelName):
    """A LoRA and its weights on the denoiser and on the text encoders (None: the same), and by block (None: 1 everywhere)."""

    weight: float = 1.0
    text_weight: float | None = None
    blocks: str | None = None
    start: float = 0.0  # shares of the steps
    end: float = 1.0


@dataclass(frozen=True, kw_only=True)
class ControlName(ModelName):
    """A ControlNet unit: its image is in no metadata."""

    scale: float = 1.0
    start: float = 0.0
    end: float = 1.0
    module: str | None = None  # what made the hint of its image
    image: str | None = None  # the file's name, where it is stated


@dataclass(frozen=True, kw_only=True)
class SecondPass:
    """A second pass at a larger size. `scale`, or the size in pixels (0: by the other side); None: as the first pass has it.

    `upscaler`, `sampler` and `schedule` are spelt as the program spells them, an upscaler of ComfyUI's nodes as it is called here.
    """

    scale: float | None = None
    width: int | None = None
    height: int | None = None
    upscaler: str | None = None
    steps: int | None = None  # that are walked
    strength: float | None = None
    sampler: str | None = None
    schedule: str | None = None
    guidance: float | None = None
    seed: int | None = None


@dataclass(frozen=True, kw_only=True)
class Unread:
    """Something that the metadata states and that is not drawn with here, and why."""

    name: str
    value: str
    why: str = "there is no such setting here"

    def __str__(self) -> str:
        return f"{self.name}: {self.value} ({self.why})"


@dataclass(frozen=True, kw_only=True)
class ImageMetadata:
    """How an image was made. None: not stated.

    `sampler` and `schedule` are spelt as the program spells them. `clip_skip` counts as A1111 does: 1 is the last layer. `guidance` is the
    scale of classifier-free guidance, `distilled` the one that is embedded. `noise` is the device that draws the noise.
    """

    tool: str
    source: str  # the text of the image that was read: parameters, prompt, ...
    version: str | None = None
    dialect: str = "plain"  # of its prompts: plain, a1111, a1111_no_norm, comfy
    typed: str | None = None  # the prompt as the program has it, where `prompt` is without its tags or in another grammar
    prompt: str | None = None
    negative: str | None = None
    seed: int | None = None
    steps: int | None = None
    sampler: str | None = None
    schedule: str | None = None
    guidance: float | None = None
    distilled: float | None = None
    rescale: float | None = None
    eta: float | None = None
    sigma_min: float | None = None
    sigma_max: float | None = None
    width: int | None = None
    height: int | None = None
    clip_skip: int | None = None
    model: ModelName | None = None
    vae: ModelName | None = None
    loras: tuple[LoraName, ...] = ()
    unread_loras: tuple[Unread, ...] = ()  # what names a LoRA and cannot be read
    embeddings: tuple[ModelName, ...] = ()
    controls: tuple[ControlName, ...] = ()
    init: str | None = None  # what is said of an image that was redrawn; its pixels are in no metadata
    strength: float | None = None
    second: SecondPass | None = None
    hires: Mapping[str, str] = field(default_factory=dict)  # the settings of a second pass that cannot be drawn here
    noise: str | None = None  # CPU, GPU, NV
    unread: tuple[Unread, ...] = ()
    render: Render | None = None  # of an image that was drawn here: everything

    def to_json(self) -> dict[str, Any]:
        """Plain values with stable keys."""
        values = asdict(self)
        del values["render"]
        return values
