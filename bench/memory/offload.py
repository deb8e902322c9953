"""What activations in main memory save, computed: the plan's own estimate with and without, for published models on the meta device.

    python -m bench.memory.offload [BUILD ...]

bf16, rank 16, gradient checkpointing. COMPUTED, NOT MEASURED.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch

from bench.memory.cards import gib
from bench.memory.published import FOLDERS
from bench.memory.table import folder_of
from registry.families import FAMILIES
from train.config import LoraConfig, Precision, PreviewConfig, TrainConfig
from train.lora import matched, parameter_count, targets_of
from train.plan.estimate import AWAY, Model, Weights, estimate
from train.plan.traces import Traces

BUILDS = ("SDXL", "FLUX.1 dev", "Qwen-Image")
BATCHES = (1, 4)


def row(title: str, batch: int, place: Path) -> str:
    """Activations on the device without and with, and what lies in main memory then."""
    name, _variant, side, _configs = FOLDERS[title]
    family, found = FAMILIES[name], []
    for away in (False, True):
        parts = family.load(folder_of(title, place / str(away)), dtype=torch.float32, device="meta")
        lora = LoraConfig(rank=16)
        config = TrainConfig(
            batch_size=batch, lora=lora, gradient_checkpointing=True, offload_activations=away, preview=PreviewConfig(prompts=[])
        )
        targets = targets_of(family, "attention")
        count = parameter_count(parts.denoiser, matched(parts.denoiser, targets), lora)
        model = Model(
            weights=Weights(family, parts, Precision.bf16),
            traces=Traces(family, parts, targets, Precision.bf16, side),
            count=count,
            moments=2.0,  # AdamW's
            device=torch.device("cpu"),
            process=0,
        )
        found.append(estimate(model, config, images=(1, 0)))
    plain, less = found
    cells = [title, str(side), str(batch), gib(plain.activations or 0), gib(less.activations or 0), gib(less.memory[AWAY])]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    print("| model | pixels | batch | activations, GiB | with `offload_activations` | in main memory |")
    print("|---|---|---|---|---|---|", flush=True)
    for title in sys.argv[1:] or BUILDS:
        for batch in BATCHES:
            with tempfile.TemporaryDirectory() as place:
                print(row(title, batch, Path(place)), flush=True)


if __name__ == "__main__":
    main()
