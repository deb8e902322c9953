"""Small adapters and a small checkpoint that they fit, for the tests of the algebra."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from tests.registry.merging.models import written

if TYPE_CHECKING:
    from torch import Tensor

QUERY = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q"  # 8 x 6
CONV = "model.diffusion_model.input_blocks.1.0.in_layers.2"  # 8 x 4, 3 x 3
TEXT = "cond_stage_model.transformer.text_model.encoder.layers.0.mlp.fc1"  # 6 x 5
NORM = "model.diffusion_model.input_blocks.1.0.in_layers.0"  # 4
SHAPES = {QUERY: (8, 6), CONV: (8, 4, 3, 3), TEXT: (6, 5), NORM: (4,)}
NAMES = {  # of the same modules, in kohya's spelling and in diffusers'
    QUERY: (
        "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q",
        "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q",
    ),
    CONV: ("lora_unet_down_blocks_0_resnets_0_conv1", "unet.down_blocks.0.resnets.0.conv1"),
    TEXT: ("lora_te_text_model_encoder_layers_0_mlp_fc1", "text_encoder.text_model.encoder.layers.0.mlp.fc1"),
}


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def checkpoint(path: Path, seed: int = 0, *, dtype: torch.dtype = torch.float32) -> Path:
    """An LDM single file of four modules, two of them with a bias, and a layer that no adapter touches."""
    values = {f"{name}.weight": random(seed + n, *shape) for n, (name, shape) in enumerate(SHAPES.items())}
    values |= {f"{CONV}.bias": random(seed + 10, 8), f"{NORM}.bias": random(seed + 11, 4)}
    values |= {
        "model.diffusion_model.input_blocks.3.0.op.weight": random(seed + 12, 4, 4, 3, 3)
    }  # the downsampler tells the layers a level
    return written(path, {name: value.to(dtype) for name, value in values.items()})


def lora(
    path: Path,
    seed: int = 100,
    *,
    rank: int = 2,
    alpha: float | None = 1.0,
    spelling: str = "kohya",
    modules: tuple[str, ...] = (QUERY, CONV, TEXT),
    dtype: torch.dtype = torch.float32,
    **metadata: str,
) -> Path:
    """A LoRA for that checkpoint; alpha None writes none."""
    values: dict[str, Tensor] = {}
    for n, module in enumerate(modules):
        out, into, *kernel = SHAPES[module]
        down, up = random(seed + n, rank, into, *kernel), random(seed + n + 50, out, rank, *[1] * len(kernel))
        name = NAMES[module][spelling != "kohya"]
        ends = ("lora_down", "lora_up") if spelling == "kohya" else ("lora_A", "lora_B")
        values |= {f"{name}.{ends[0]}.weight": down.to(dtype), f"{name}.{ends[1]}.weight": up.to(dtype)}
        if alpha is not None:
            values[f"{name}.alpha"] = torch.tensor(alpha)
    return written(path, values, **metadata)


def delta_by_hand(path: Path, module: str) -> Tensor:
    """alpha / rank times up @ down, from the file itself."""
    from safetensors.torch import load_file

    values = load_file(path)
    name, ends = next(
        (name, ends)
        for name, ends in zip(NAMES[module], (("lora_down", "lora_up"), ("lora_A", "lora_B")), strict=True)
        if f"{name}.{ends[0]}.weight" in values
    )
    down, up = values[f"{name}.{ends[0]}.weight"].float(), values[f"{name}.{ends[1]}.weight"].float()
    scale = float(values[f"{name}.alpha"]) / len(down) if f"{name}.alpha" in values else 1.0
    return (up.flatten(1) @ down.flatten(1)).reshape(SHAPES[module]) * scale
