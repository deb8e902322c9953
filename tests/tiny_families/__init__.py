"""One module a family, found by being there: a two-layer build of it, and the stock pipeline's image to hold ours against.

A module has
    SIZE                pixels a side of its images
    VARIANTS            the builds it can make; the first is the default
    pipeline(variant)   the diffusers pipeline, seeded by its caller, with `tests.tiny.lively` weights
    LEFT_OUT            of a variant: components its folder has not and the stock pipeline must be given as None (optional)
    latents(pipeline, *, prompt, negative, guidance, steps, size, seed) -> (1, C, H, W)
                        what the stock pipeline ends with, unpacked and normalised as the seam has it; negative None is none given
    CONTROL, CONTROLS   where diffusers has one: the ControlNet pipeline, for which `latents` takes **extra, and the kinds of nets it takes
    control_net(transformer, kind)  a fresh net of a kind for this transformer
    STARTS              where diffusers has them: the image-to-image and the inpainting pipeline, for which `latents` takes **extra
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

NAMES = tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def module_of(family: str) -> ModuleType:
    """The tiny build of a family."""
    return importlib.import_module(f"tests.tiny_families.{family}")


def builds() -> list[tuple[str, str]]:
    """Every (family, variant) there is."""
    return [(name, variant) for name in NAMES for variant in module_of(name).VARIANTS]
