"""What optimizers keep for the weights of a LoRA on SDXL's attention: one step on a weight of each shape, counted as often as it occurs.

python -m bench.memory.states        needs `pip install 'loraloom[optimizers,8bit]'`
"""

from __future__ import annotations

import logging
import math
import tempfile
from pathlib import Path

import torch

from bench.memory.table import folder_of
from registry.families import FAMILIES
from train.choices import moments_of
from train.config import LoraConfig, OptimConfig, TrainConfig
from train.lora import factor_shapes, matched, targets_of

RANKS = (16, 64, 128)
OPTIMIZERS = ("adamw", "adamw8bit", "adafactor", "lion", "came")


def main() -> None:
    logging.disable(logging.WARNING)
    family = FAMILIES["sdxl"]
    print("| rank | weights | gradients | " + " | ".join(f"`{name}`" for name in OPTIMIZERS) + " |")
    print("|" + "---|" * (3 + len(OPTIMIZERS)), flush=True)
    with tempfile.TemporaryDirectory() as place:
        parts = family.load(folder_of("SDXL", Path(place)), dtype=torch.float32, device="meta")
        layers = matched(parts.denoiser, targets_of(family, "attention"))
        for rank in RANKS:
            lora = LoraConfig(rank=rank)
            shapes = factor_shapes(parts.denoiser, layers, lora)
            mib = sum(math.prod(shape) * count for shape, count in shapes.items()) * 4 / 2**20
            kept = [moments_of(TrainConfig(lora=lora, optim=OptimConfig(name=name)), shapes) for name in OPTIMIZERS]
            cells = [str(rank), f"{mib:.0f}", f"{mib:.0f}", *("-" if one is None else f"{mib * one:.0f}" for one in kept)]
            print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
