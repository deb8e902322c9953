"""How the first pass is enlarged: its latents by torch's interpolation, or its decoded image by Pillow's; no network of its own.

The names are those of A1111 1.10 (modules/shared.py `latent_upscale_modes`, modules/upscaler.py) and of ComfyUI's LatentUpscale and
ImageScale nodes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from registry.names import Table, suggest

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Upscaler:
    """One way to enlarge. `mode` is one of torch's `interpolate` for latents, and the name of a Pillow resampling for an image."""

    title: str  # A1111's; "": it has none
    mode: str
    of_latents: bool
    antialias: bool = False
    comfy: str = ""  # the method of ComfyUI's node


UPSCALERS: Table[Upscaler] = Table("upscaler")
UPSCALERS["latent"] = Upscaler(title="Latent", mode="bilinear", of_latents=True, comfy="bilinear")
UPSCALERS["latent_antialiased"] = Upscaler(title="Latent (antialiased)", mode="bilinear", of_latents=True, antialias=True)
UPSCALERS["latent_bicubic"] = Upscaler(title="Latent (bicubic)", mode="bicubic", of_latents=True, comfy="bicubic")
UPSCALERS["latent_bicubic_antialiased"] = Upscaler(title="Latent (bicubic antialiased)", mode="bicubic", of_latents=True, antialias=True)
UPSCALERS["latent_nearest"] = Upscaler(title="Latent (nearest)", mode="nearest", of_latents=True)
UPSCALERS["latent_nearest_exact"] = Upscaler(title="Latent (nearest-exact)", mode="nearest-exact", of_latents=True, comfy="nearest-exact")
UPSCALERS["latent_area"] = Upscaler(title="", mode="area", of_latents=True, comfy="area")
UPSCALERS["lanczos"] = Upscaler(title="Lanczos", mode="LANCZOS", of_latents=False, comfy="lanczos")
UPSCALERS["nearest"] = Upscaler(title="Nearest", mode="NEAREST", of_latents=False, comfy="nearest-exact")
UPSCALERS["bilinear"] = Upscaler(title="", mode="BILINEAR", of_latents=False, comfy="bilinear")

ALIASES = {"none": "lanczos"}  # A1111's None resizes by Lanczos (modules/images.py, resize_image)
NETWORKS = ("esrgan", "2x", "4x", "8x", "swinir", "scunet", "dat", "ldsr", "/", ".pth", ".safetensors")
ANOTHER = "another network (ESRGAN and its kin)"


def upscaler_name(label: str) -> str:
    """The name of an upscaler that is given as A1111 spells it, "Latent (bicubic)"; any other text unchanged."""
    spelt = " ".join(label.split()).lower()
    named = next((name for name, one in UPSCALERS.items() if one.title and one.title.lower() == spelt), label)
    return ALIASES.get(spelt, named)


def of_comfy(method: str, *, of_latents: bool) -> str | None:
    """The name of the upscaler that is a method of ComfyUI's nodes; None where there is none."""
    return next((name for name, one in UPSCALERS.items() if one.of_latents == of_latents and one.comfy == method), None)


def upscaler_fault(name: str) -> str | None:
    """What is wrong with the name of an upscaler."""
    if name in UPSCALERS:
        return None
    known = ", ".join(UPSCALERS)
    if any(sign in name.lower() for sign in NETWORKS):
        return (
            f"hires.upscaler is {name!r}, {ANOTHER}, and none of them is loaded here. Give one of {known}; or draw without hires, enlarge"
            " the image with that network elsewhere, and redraw it: init=IMAGE strength=0.4."
        )
    return f"hires.upscaler is {name!r}. {suggest(name, UPSCALERS)} There is: {known}."


def enlarged_latents(latents: Tensor, upscaler: str, *, height: int, width: int) -> Tensor:
    """Latents (1, C, H, W) at (1, C, height, width) cells. Half precision is interpolated in float32."""
    import torch

    how = UPSCALERS[upscaler]
    options = {"antialias": True} if how.antialias else {}
    found = torch.nn.functional.interpolate(latents.float(), size=(height, width), mode=how.mode, **options)
    return found.to(latents.dtype)


def enlarged_image(image: Image, upscaler: str, *, height: int, width: int) -> Image:
    """The image at so many pixels."""
    from PIL import Image

    return image.resize((width, height), Image.Resampling[UPSCALERS[upscaler].mode])
