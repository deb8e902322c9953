"""Writes synthetic checkpoints with the shapes of Stable Diffusion: random fp16 numbers under the real names.

python bench/merge/models.py FOLDER --kind sd15 --mib 1300 --count 3
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy
import torch

from registry.architectures.unet.ldm_names import unet_name
from registry.formats.atomic_file import RawTensor, write_raw

SD15 = {"cross_attention_dim": 768, "attention_head_dim": 8, "block_out_channels": (320, 640, 1280, 1280)}
SDXL = {
    "cross_attention_dim": 2048,
    "attention_head_dim": (5, 10, 20),
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}


def shapes(kind: str) -> dict[str, tuple[int, ...]]:
    """Name -> shape of the UNet and of CLIP's text model, made without memory."""
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(**(SD15 if kind == "sd15" else SDXL))
        clip = CLIPTextModel(CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_attention_heads=12))
    text = "cond_stage_model.transformer." if kind == "sd15" else "conditioner.embedders.0.transformer."
    found = {f"{text}{name}": tuple(value.shape) for name, value in clip.state_dict().items()}
    config = dict(unet.config)
    return found | {
        f"model.diffusion_model.{unet_name(config, name) or name}": tuple(value.shape) for name, value in unet.state_dict().items()
    }


def write(path: Path, wanted: dict[str, tuple[int, ...]], seed: int, scale: float = 0.02) -> None:
    """One file; numbers are drawn once and read from another place for each tensor, which is as good and much faster."""
    pool = (
        numpy.random.default_rng(seed).standard_normal(80_000_000 if len(wanted) > 50 else 4_000_000, dtype=numpy.float32) * scale
    ).astype(numpy.float16)
    tensors = {}
    at = 0
    for name, shape in wanted.items():
        count = int(numpy.prod(shape))
        if count > len(pool):
            raise SystemExit(f"{name} is larger than the pool of numbers")
        at = (at + 7919) % (len(pool) - count + 1)
        tensors[name] = RawTensor("F16", shape, memoryview(pool[at : at + count]).cast("B"))
    write_raw(path, tensors, metadata={"format": "pt"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kind", choices=("sd15", "sdxl"), default="sd15")
    parser.add_argument("--mib", type=int, help="stop when a file has this size; default: the whole model")
    parser.add_argument("--count", type=int, default=3)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    wanted, size = {}, 0
    for name, shape in shapes(arguments.kind).items():
        more = int(numpy.prod(shape)) * 2
        if arguments.mib is None or size + more <= arguments.mib << 20:
            wanted[name], size = shape, size + more
    for number in range(arguments.count):
        write(arguments.folder / f"{number}.safetensors", wanted, seed=number)
    print(f"{arguments.count} files of {size / (1 << 20):,.0f} MiB, {len(wanted)} tensors")


if __name__ == "__main__":
    main()
