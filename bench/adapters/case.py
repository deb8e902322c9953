"""One kind of adapter as a library writes it: a file for a tiny UNet, and the weights that the same library merges of it."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
CONVOLUTIONS = ("conv1", "conv2")


@dataclass(frozen=True)
class Made:
    """A file, and the UNet's weights with it; None where the library itself cannot merge it. `note` is what it said of that."""

    file: Path
    merged: Mapping[str, Tensor] | None
    note: str = ""


@cache
def base_folder(place: Path) -> Path:
    """The tiny Stable Diffusion 1 of the tests."""
    from tests.tiny import tiny_sd1

    return tiny_sd1(place / "base")


def unet(place: Path) -> Any:
    """A copy of its UNet that nothing has changed."""
    return deepcopy(_unet(place))


@cache
def _unet(place: Path) -> Any:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel.from_pretrained(base_folder(place) / "unet")


def layers(model: nn.Module, endings: tuple[str, ...]) -> dict[str, Any]:
    """The layers whose names end so."""
    return {name: layer for name, layer in model.named_modules() if any(name.endswith(f".{ending}") for ending in endings)}


def random(seed: int, *shape: int) -> Tensor:
    return 0.1 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def output(model: nn.Module) -> Tensor:
    """The UNet's answer to one input, always the same."""
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        answer: Tensor = model(torch.randn(1, 4, 8, 8, generator=draw), torch.tensor([500]), torch.randn(1, 7, 32, generator=draw)).sample
    return answer
