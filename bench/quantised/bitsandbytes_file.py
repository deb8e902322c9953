"""Write tests/registry/formats/quantised/bitsandbytes.safetensors: weights as bitsandbytes stores them, and what it makes of them again.

python -m pip install bitsandbytes==0.50.2
python bench/quantised/bitsandbytes_file.py
"""

from __future__ import annotations

from pathlib import Path

import bitsandbytes.functional as bnb
import torch
from safetensors.torch import save_file

OUT = Path(__file__).parents[2] / "tests/registry/formats/quantised/bitsandbytes.safetensors"


def main() -> None:
    weight, tensors = torch.randn(8, 128, generator=torch.Generator().manual_seed(0)), {}
    for kind in ("nf4", "fp4"):
        for nested in (False, True):
            name = f"{kind}{'_double' if nested else ''}.weight"
            packed, state = bnb.quantize_4bit(weight, blocksize=64, quant_type=kind, compress_statistics=nested)
            tensors |= {name: packed, **{f"{name}.{key}": value for key, value in state.as_dict(packed=True).items()}}
            tensors[f"expected.{name}"] = bnb.dequantize_4bit(packed, state)
    codes, rows, _ = bnb.int8_vectorwise_quant(weight.half())
    tensors |= {"int8.weight": codes, "int8.SCB": rows, "int8.weight_format": torch.tensor(0, dtype=torch.uint8)}
    tensors["expected.int8.weight"] = bnb.int8_vectorwise_dequant(codes, rows)
    save_file(tensors, OUT)


if __name__ == "__main__":
    main()
