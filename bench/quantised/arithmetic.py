"""A LoRA step by the arithmetic of the frozen layers: full precision, dequantised weights, products of 8-bit numbers, compiled blocks.

    OMP_NUM_THREADS=1 python -m bench.quantised.arithmetic [--device cuda] [--compiled] [--tiny] [--rows full 'int8 + compute=int8']

FLUX.1's transformer, less deep, with random weights and gradient checkpointing. The rows alternate in one process; the least of the rounds
is shown. On a CPU seconds are CPU seconds. `--tiny` is a model of a minute's compiling, to see that every line runs.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch

from registry.architectures.attention import without_cudnn
from registry.architectures.compiled import compile_blocks
from registry.families import FAMILIES
from registry.quantised.layers import QuantisedLayers
from registry.quantised.place import quantise_in_place
from registry.quantised.products import check_compute, set_compute

SHAPES: dict[str, dict[str, Any]] = {
    "cpu": {"num_layers": 1, "num_single_layers": 2, "num_attention_heads": 12, "attention_head_dim": 128, "joint_attention_dim": 512},
    "cuda": {"num_layers": 4, "num_single_layers": 8, "num_attention_heads": 24, "attention_head_dim": 128, "joint_attention_dim": 4096},
    "tiny": {"num_layers": 1, "num_single_layers": 1, "num_attention_heads": 2, "attention_head_dim": 128, "joint_attention_dim": 64},
}
TOKENS = {"cpu": (256, 64), "cuda": (4096, 512), "tiny": (16, 8)}  # of an image (1024 px: 4,096) and of a text
ROWS = ("full", "int8", "int8 + compute=int8", "fp8 + compute=fp8", "nf4")


class Contender:
    """A model and its step."""

    def __init__(self, kind: str, size: str, device: torch.device, dtype: torch.dtype, *, compiled: bool) -> None:
        from diffusers import FluxTransformer2DModel
        from peft import LoraConfig, inject_adapter_in_model

        torch.manual_seed(0)
        with device:  # drawing three billion weights takes a GPU no time
            model: Any = FluxTransformer2DModel(**SHAPES[size], pooled_projection_dim=256, in_channels=64, guidance_embeds=False)
        model = model.requires_grad_(False).to(dtype)
        base, _, compute = kind.partition(" + compute=")
        if base != "full":
            quantise_in_place(model, QuantisedLayers().choose(base))
            set_compute(model, compute or None)
        inject_adapter_in_model(LoraConfig(r=16, target_modules=["to_q", "to_k", "to_v", "to_out.0"]), model)
        self.model = model.to(device).train()
        self.learned = [weight.data.float().requires_grad_() for weight in model.parameters() if weight.requires_grad]
        for weight, own in zip((one for one in model.parameters() if one.requires_grad), self.learned, strict=True):
            weight.data = own.data
        model.enable_gradient_checkpointing()
        self.device, self.dtype, (image, text) = device, dtype, TOKENS[size]
        generator = torch.Generator().manual_seed(1)
        width = SHAPES[size]["joint_attention_dim"]
        given = {
            "hidden_states": torch.randn(1, image, 64, generator=generator),
            "encoder_hidden_states": torch.randn(1, text, width, generator=generator),
            "pooled_projections": torch.randn(1, 256, generator=generator),
        }
        ids = {"img_ids": torch.zeros(image, 3), "txt_ids": torch.zeros(text, 3), "timestep": torch.tensor([0.5])}
        self.inputs = {name: one.to(device, dtype) for name, one in given.items()} | {name: one.to(device) for name, one in ids.items()}
        self.kind, self.seconds = f"{kind}{', compiled' if compiled else ''}", float("inf")
        begun = time.perf_counter()
        if compiled:
            compile_blocks(FAMILIES["flux1"], model)
        self.step()
        self.first = time.perf_counter() - begun

    def step(self) -> None:
        """Forward and backward."""
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not torch.float32):
            found = self.model(**self.inputs, return_dict=False)[0]
        self.model.zero_grad(set_to_none=True)
        found.float().square().mean().backward()
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def timed(self, clock: Callable[[], float]) -> None:
        begun = clock()
        self.step()
        self.seconds = min(self.seconds, clock() - begun)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=ROWS)
    given = parser.parse_args()
    device = torch.device(given.device)
    size = "tiny" if given.tiny else device.type
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    print(f"{'bf16' if dtype is torch.bfloat16 else 'fp32'}, {TOKENS[size][0]} tokens of image and {TOKENS[size][1]} of text, {device}")
    print("| base | seconds a step | against full | first step, s |\n|---|---|---|---|", flush=True)
    with without_cudnn():  # as in a run
        measure(given, size, device, dtype, clock)


def measure(given: argparse.Namespace, size: str, device: torch.device, dtype: torch.dtype, clock: Callable[[], float]) -> None:
    """Print a row for each kind."""
    rows: list[Contender] = []
    for kind in given.rows:
        for compiled in (False, True) if given.compiled else (False,):
            try:
                if "compute=" in kind:
                    check_compute(kind.rpartition("=")[2], device)
                rows.append(Contender(kind, size, device, dtype, compiled=compiled))
            except Exception as error:  # of one row: the others are measured all the same
                print(f"| {kind} | {type(error).__name__}: {str(error).splitlines()[0]} | | |", flush=True)
    for _ in range(given.rounds):
        for row in rows:
            row.timed(clock)
    for row in rows:
        print(f"| {row.kind} | {row.seconds:.4g} | {rows[0].seconds / row.seconds:.2f} x | {row.first:.1f} |", flush=True)


if __name__ == "__main__":
    main()
