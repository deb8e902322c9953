"""Where other tools look for models, and what they read: one row a tool."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from registry.formats.dialects import DIALECTS
from registry.names import Table


@dataclass(frozen=True, kw_only=True)
class ToolLayout:
    """A tool's own folder: a subfolder for each kind, and the forms it reads as they are."""

    name: str
    title: str
    folders: Mapping[str, str]  # kind -> folder below the tool's own
    denoiser: str  # where a denoiser without VAE and text encoders goes
    adapter: str  # dialect that other adapters are converted to
    checkpoint: str | None  # form that diffusers folders are converted to; None: folders are read
    gguf: bool = False  # whether it reads GGUF files, with an extension that is common

    def reads(self, dialect: str | None) -> bool:
        """Whether it reads adapters of this dialect as they are, with rank and alpha as they are meant."""
        return dialect is not None and dialect in DIALECTS and self.name in DIALECTS[dialect].read_by

    def place(self, kind: str, *, denoiser_alone: bool) -> PurePosixPath | None:
        """The folder of a kind; None where the tool has none."""
        if kind == "checkpoint" and denoiser_alone:
            return PurePosixPath(self.denoiser)
        return PurePosixPath(self.folders[kind]) if kind in self.folders else None


LAYOUTS: Table[ToolLayout] = Table("layout")

LAYOUTS.add("comfyui")(
    ToolLayout(
        name="comfyui",
        title="ComfyUI",
        folders={
            "checkpoint": "models/checkpoints",
            "adapter": "models/loras",
            "vae": "models/vae",
            "embedding": "models/embeddings",
            "controlnet": "models/controlnet",
            "text_encoder": "models/text_encoders",
        },
        denoiser="models/diffusion_models",
        adapter="kohya",
        checkpoint="single-file",
        gguf=True,
    )
)
LAYOUTS.add("a1111")(
    ToolLayout(
        name="a1111",
        title="A1111 and Forge",
        folders={
            "checkpoint": "models/Stable-diffusion",
            "adapter": "models/Lora",
            "vae": "models/VAE",
            "embedding": "embeddings",
            "controlnet": "models/ControlNet",
            "text_encoder": "models/text_encoder",
        },
        denoiser="models/Stable-diffusion",
        adapter="kohya",
        checkpoint="single-file",
    )
)
LAYOUTS.add("diffusers")(
    ToolLayout(
        name="diffusers",
        title="diffusers",
        folders={
            "checkpoint": "checkpoints",
            "adapter": "loras",
            "vae": "vae",
            "embedding": "embeddings",
            "controlnet": "controlnet",
            "text_encoder": "text_encoders",
        },
        denoiser="transformers",
        adapter="diffusers",
        checkpoint=None,
    )
)
