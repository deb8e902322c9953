"""Component configs read out of the shapes of a single file in LDM names, as far as shapes show them.

What no shape shows (the number of heads, the norm groups, the activation) is the family's own constant, given by the caller.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from registry.formats.safetensors_header import TensorInfo

Shapes = Mapping[str, TensorInfo]


class NoConfig(Exception):
    """The shapes are of no known build; the message names the fault. Callers turn it into a refusal."""


def unet_sizes(shapes: Shapes) -> dict[str, Any]:
    """Levels, channels, layers, attention and widths of a UNet, names without their prefix."""
    down, transformers, layers = _unet_levels(shapes)
    up = _attended_up(shapes, levels=len(down), layers=layers)
    if "middle_block.1.proj_in.weight" not in shapes:
        raise NoConfig("the UNet has no attention in its middle block")
    channels = tuple(down)
    middle = _depth(shapes, "middle_block.1")
    depths = (*(depth or 1 for depth in transformers[:-1]), transformers[-1] or middle)  # a level without attention has none to count
    if middle != depths[-1]:
        raise NoConfig(f"the UNet's middle block has {middle} transformer blocks, its last level {depths[-1]}")
    cross = next((info.shape[1] for key, info in shapes.items() if key.endswith("attn2.to_k.weight")), None)
    if cross is None:
        raise NoConfig("the UNet has no cross-attention")
    return {
        "in_channels": shapes["input_blocks.0.0.weight"].shape[1],
        "out_channels": shapes["out.2.weight"].shape[0],
        "block_out_channels": channels,
        "layers_per_block": layers,
        "down_block_types": tuple("CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in transformers),
        "up_block_types": tuple("CrossAttnUpBlock2D" if attended else "UpBlock2D" for attended in up),
        "transformer_layers_per_block": depths[0] if len(set(depths)) == 1 else depths,
        "cross_attention_dim": cross,
        "use_linear_projection": len(shapes["middle_block.1.proj_in.weight"].shape) == 2,
    }


def _unet_levels(shapes: Shapes) -> tuple[list[int], list[int], int]:
    """Per level: channels, and transformer blocks a layer (0: none); then the layers a level."""
    channels: list[int] = []
    transformers: list[int] = []
    counts: list[int] = []
    row, fresh = 1, True
    while f"input_blocks.{row}.0.in_layers.2.weight" in shapes or f"input_blocks.{row}.0.op.weight" in shapes:
        if f"input_blocks.{row}.0.op.weight" in shapes:
            fresh = True
        else:
            width, depth = shapes[f"input_blocks.{row}.0.in_layers.2.weight"].shape[0], _depth(shapes, f"input_blocks.{row}.1")
            if fresh:
                channels, transformers, counts, fresh = [*channels, width], [*transformers, depth], [*counts, 0], False
            counts[-1] += 1
            if (width, depth) != (channels[-1], transformers[-1]):
                raise NoConfig(f"layers of level {len(channels)} of the UNet differ in width or depth")
        row += 1
    if not counts or len(set(counts)) != 1:
        raise NoConfig(f"the UNet's levels have {counts} layers")
    return channels, transformers, counts[0]


def _attended_up(shapes: Shapes, *, levels: int, layers: int) -> list[bool]:
    """Whether each level on the way up has attention."""
    return [f"output_blocks.{level * (layers + 1)}.1.proj_in.weight" in shapes for level in range(levels)]


def _depth(shapes: Shapes, prefix: str) -> int:
    """Transformer blocks at a prefix."""
    pattern = re.compile(rf"{re.escape(prefix)}\.transformer_blocks\.(\d+)\.attn2\.to_k\.weight")
    return sum(1 for key in shapes if pattern.fullmatch(key))


def vae_sizes(shapes: Shapes) -> dict[str, Any]:
    """Levels, channels, layers and latent channels of an AutoencoderKL, names without their prefix."""
    channels: list[int] = []
    while (key := f"encoder.down.{len(channels)}.block.0.conv2.weight") in shapes:
        channels.append(shapes[key].shape[0])
    layers = sum(1 for key in shapes if re.fullmatch(r"encoder\.down\.0\.block\.\d+\.conv2\.weight", key))
    if not channels or not layers:
        raise NoConfig("the VAE's encoder has no levels")
    return {
        "in_channels": shapes["encoder.conv_in.weight"].shape[1],
        "out_channels": shapes["decoder.conv_out.weight"].shape[0],
        "latent_channels": shapes["decoder.conv_in.weight"].shape[1],
        "block_out_channels": tuple(channels),
        "layers_per_block": layers,
        "down_block_types": ("DownEncoderBlock2D",) * len(channels),
        "up_block_types": ("UpDecoderBlock2D",) * len(channels),
        "mid_block_add_attention": "encoder.mid.attn_1.q.weight" in shapes,
        "use_quant_conv": "quant_conv.weight" in shapes,
        "use_post_quant_conv": "post_quant_conv.weight" in shapes,
    }


def clip_sizes(shapes: Shapes) -> dict[str, Any]:
    """Widths and layers of a CLIP text model, names with or without `text_model.`."""
    inside = {key.removeprefix("text_model."): info for key, info in shapes.items()}
    table = inside["embeddings.token_embedding.weight"].shape
    return {
        "vocab_size": table[0],
        "hidden_size": table[1],
        "intermediate_size": inside["encoder.layers.0.mlp.fc1.weight"].shape[0],
        "num_hidden_layers": sum(1 for key in inside if re.fullmatch(r"encoder\.layers\.\d+\.mlp\.fc1\.weight", key)),
        "max_position_embeddings": inside["embeddings.position_embedding.weight"].shape[0],
        "projection_dim": table[1],
    }


def open_clip_sizes(shapes: Shapes) -> dict[str, Any]:
    """Widths and layers of OpenCLIP's text tower."""
    table = shapes["token_embedding.weight"].shape
    return {
        "vocab_size": table[0],
        "hidden_size": table[1],
        "intermediate_size": shapes["transformer.resblocks.0.mlp.c_fc.weight"].shape[0],
        "num_hidden_layers": sum(1 for key in shapes if re.fullmatch(r"transformer\.resblocks\.\d+\.mlp\.c_fc\.weight", key)),
        "max_position_embeddings": shapes["positional_embedding"].shape[0],
        "projection_dim": shapes["text_projection"].shape[1] if "text_projection" in shapes else table[1],
    }
