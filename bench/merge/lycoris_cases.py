"""Makes tests/registry/adapters/lycoris.safetensors: LyCORIS's own modules, their base weights, and the weights they stand for.

python bench/merge/lycoris_cases.py tests/registry/adapters/lycoris.safetensors      (needs lycoris-lora; made with 4.1.3)

The weight is the one that LyCORIS's forward pass uses in training. Its merge_to multiplies LoHa and LoKr by alpha / rank
twice, and its strength below 1 leaves the base where a magnitude or a rescale is at work; those are not taken over.
"""

from __future__ import annotations

import contextlib
import io
import logging
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

NAME = "lora_unet_down_blocks_0_attentions_0_proj"
BASES = {
    "linear": lambda: nn.Linear(12, 16),
    "square": lambda: nn.Linear(16, 16),
    "conv": lambda: nn.Conv2d(4, 8, 3),
}
FACTORED: dict[str, dict[str, Any]] = {
    "locon": {"lora_dim": 4},
    "loha": {"lora_dim": 3},
    "lokr": {"lora_dim": 1, "factor": 4},
    "lokr-both": {"lora_dim": 1, "factor": -1, "decompose_both": True},
    "lokr-whole": {"lora_dim": 100, "factor": 2, "full_matrix": True},
}
WAYS: dict[str, dict[str, Any]] = {
    "": {},
    "tucker": {"use_tucker": True},
    "rows": {"weight_decompose": True},
    "columns": {"weight_decompose": True, "wd_on_out": False},
    "scalar": {"use_scalar": True},
}
OTHERS: dict[str, dict[str, Any]] = {
    "glora": {"lora_dim": 4},
    "ia3-outputs": {},
    "ia3-inputs": {"train_on_input": True},
    "oft": {"lora_dim": 4},
    "oft-rescaled": {"lora_dim": 4, "rescaled": True},
    "oft-constrained": {"lora_dim": 4, "constraint": 0.001},
    "boft": {"lora_dim": 4},
    "boft-rescaled": {"lora_dim": 4, "rescaled": True},
}


def classes() -> dict[str, Any]:
    from lycoris.modules.boft import ButterflyOFTModule
    from lycoris.modules.diag_oft import DiagOFTModule
    from lycoris.modules.glora import GLoRAModule
    from lycoris.modules.ia3 import IA3Module
    from lycoris.modules.locon import LoConModule
    from lycoris.modules.loha import LohaModule
    from lycoris.modules.lokr import LokrModule

    return {
        "locon": LoConModule,
        "loha": LohaModule,
        "lokr": LokrModule,
        "glora": GLoRAModule,
        "ia3": IA3Module,
        "oft": DiagOFTModule,
        "boft": ButterflyOFTModule,
    }


def made(kind: Any, base: nn.Module, seed: int, **settings: Any) -> Any:
    """A module with random numbers in every factor."""
    with contextlib.redirect_stdout(io.StringIO()):
        module = kind(NAME, base, 1.0, alpha=2, **settings)
    with torch.no_grad():
        for number, parameter in enumerate(module.parameters()):
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(100 * seed + number))
            parameter.add_(0.3 * noise) if parameter.ndim else parameter.fill_(0.7)
    return module


def stands_for(name: str, module: Any, weight: torch.Tensor) -> torch.Tensor:
    """The weight of the forward pass at strength 1."""
    if name.startswith(("loha", "lokr")):
        whole = module.get_weight(None).reshape(weight.shape) * module.scalar
        return module.apply_weight_decompose(weight + whole) if module.wd else weight + whole
    return module.get_merged_weight(1.0, shape=weight.shape)[0]


def main(path: Path) -> None:
    logging.disable(logging.WARNING)
    kinds, tensors = classes(), {}
    cases = {f"{name} {way}".strip(): {**FACTORED[name], **WAYS[way]} for name in FACTORED for way in WAYS} | OTHERS
    for seed, (case, settings) in enumerate(cases.items()):
        for layer, make in BASES.items():
            torch.manual_seed(seed)
            base = make()
            module = made(kinds[case.replace(" ", "-").partition("-")[0]], base, seed, **settings)
            place = f"{case}/{layer}"
            with torch.no_grad():
                tensors[f"{place}/base"] = base.weight.detach().clone()
                tensors[f"{place}/merged"] = stands_for(case, module, base.weight).detach().clone()
            tensors |= {f"{place}/module/{NAME}.{key}": value.detach().clone() for key, value in module.state_dict().items()}
    save_file({key: value.contiguous() for key, value in tensors.items()}, path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
