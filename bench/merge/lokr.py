"""Writes a LoKr of 350 modules of SDXL's sizes, random numbers under kohya's names, for `lora resize` and `lora inspect`.

python bench/merge/lokr.py /tmp/lokr.safetensors --factor 4
python -m loraloom lora resize /tmp/lokr.safetensors --rank 32 --output /tmp/lora.safetensors
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy
import torch
from diffusers import UNet2DConditionModel
from models import SDXL

from registry.formats.atomic_file import RawTensor, write_raw

MODULES = 350


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path)
    parser.add_argument("--factor", type=int, default=4)
    arguments = parser.parse_args()
    random = numpy.random.default_rng(0)

    def numbers(*shape: int) -> RawTensor:
        return RawTensor("F16", shape, memoryview((random.standard_normal(shape) * 0.1).astype(numpy.float16)).cast("B"))

    with torch.device("meta"):
        unet = UNet2DConditionModel(**SDXL)
    linear = [
        (name, module) for name, module in unet.named_modules() if isinstance(module, torch.nn.Linear) and "transformer_blocks" in name
    ]
    tensors: dict[str, RawTensor] = {}
    for name, module in linear[:MODULES]:
        rows, columns = module.weight.shape
        small = math.gcd(rows, arguments.factor), math.gcd(columns, arguments.factor)
        stem = f"lora_unet_{name.replace('.', '_')}"
        tensors[f"{stem}.lokr_w1"] = numbers(*small)
        tensors[f"{stem}.lokr_w2"] = numbers(rows // small[0], columns // small[1])
        tensors[f"{stem}.alpha"] = RawTensor("F16", (), numpy.float16(1).tobytes())
    write_raw(arguments.path, tensors, metadata={"ss_network_module": "lycoris.kohya", "ss_base_model_version": "sdxl_base_v1-0"})


if __name__ == "__main__":
    main()
