"""Write tests/registry/formats/quantised/torchao.safetensors: weights as torchao stores them, and what it makes of them again.

python -m pip install --no-deps torchao==0.18.0
python bench/quantised/torchao_file.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torchao.prototype.safetensors.safetensors_support import flatten_tensor_state_dict
from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig, IntxWeightOnlyConfig, PerGroup, PerTensor, quantize_

OUT = Path(__file__).parents[2] / "tests/registry/formats/quantised/torchao.safetensors"
CONFIGS: dict[str, Any] = {
    "int8": Int8WeightOnlyConfig(),
    "int8_groups": Int8WeightOnlyConfig(granularity=PerGroup(32)),
    "intx": IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(32)),
    "fp8": Float8WeightOnlyConfig(),
    "fp8_tensor": Float8WeightOnlyConfig(granularity=PerTensor()),
}


def main() -> None:
    layers, expected = torch.nn.ModuleDict(), {}
    torch.manual_seed(0)
    for name, config in CONFIGS.items():
        layers[name] = torch.nn.Linear(64, 8, bias=False)
        quantize_(layers[name], config)
        expected[f"expected.{name}.weight"] = layers[name].weight.dequantize()
    tensors, metadata = flatten_tensor_state_dict(layers.state_dict())
    save_file({**tensors, **expected}, OUT, metadata=metadata)


if __name__ == "__main__":
    main()
