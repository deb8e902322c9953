"""Every algorithm of LyCORIS on the layers of a tiny UNet, with the weights that its forward pass uses in training.

LyCORIS's own merge counts the scale of LoHa twice (4.1.3), so the merged weights are those that it trains.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from bench.adapters.case import ATTENTION, CONVOLUTIONS, Made, layers, unet

BOTH = (*ATTENTION, *CONVOLUTIONS)
ALGORITHMS: dict[str, tuple[str, str, tuple[str, ...], dict[str, Any]]] = {  # title -> module, class, layers, settings
    "LoCon": ("locon", "LoConModule", BOTH, {"lora_dim": 4}),
    "LoCon, Tucker": ("locon", "LoConModule", CONVOLUTIONS, {"lora_dim": 4, "use_tucker": True}),
    "LoCon, DoRA by rows": ("locon", "LoConModule", BOTH, {"lora_dim": 4, "weight_decompose": True}),
    "LoCon, DoRA by columns": ("locon", "LoConModule", BOTH, {"lora_dim": 4, "weight_decompose": True, "wd_on_out": False}),
    "DyLoRA": ("dylora", "DyLoraModule", ATTENTION, {"lora_dim": 4, "block_size": 1}),
    "DyLoRA, blocks of 2": ("dylora", "DyLoraModule", ATTENTION, {"lora_dim": 4, "block_size": 2}),
    "T-LoRA": ("tlora", "TLoraModule", ATTENTION, {"lora_dim": 4}),
    "LoHa": ("loha", "LohaModule", BOTH, {"lora_dim": 3}),
    "LoHa, Tucker": ("loha", "LohaModule", CONVOLUTIONS, {"lora_dim": 3, "use_tucker": True}),
    "LoHa, DoRA": ("loha", "LohaModule", BOTH, {"lora_dim": 3, "weight_decompose": True}),
    "LoKr": ("lokr", "LokrModule", BOTH, {"lora_dim": 1, "factor": 4}),
    "LoKr, both decomposed": ("lokr", "LokrModule", BOTH, {"lora_dim": 1, "factor": -1, "decompose_both": True}),
    "LoKr, full_matrix": ("lokr", "LokrModule", BOTH, {"lora_dim": 100, "factor": 2, "full_matrix": True}),
    "LoKr, DoRA": ("lokr", "LokrModule", BOTH, {"lora_dim": 1, "factor": 4, "weight_decompose": True}),
    "GLoRA": ("glora", "GLoRAModule", ATTENTION, {"lora_dim": 4}),
    "IA3": ("ia3", "IA3Module", ATTENTION, {}),
    "IA3 of inputs": ("ia3", "IA3Module", ATTENTION, {"train_on_input": True}),
    "Diag-OFT": ("diag_oft", "DiagOFTModule", BOTH, {"lora_dim": 4}),
    "Diag-OFT, rescaled and constrained": ("diag_oft", "DiagOFTModule", BOTH, {"lora_dim": 4, "rescaled": True, "constraint": 0.001}),
    "BOFT": ("boft", "ButterflyOFTModule", BOTH, {"lora_dim": 4}),
    "Full (diff)": ("full", "FullModule", BOTH, {}),
    "norms": ("norms", "NormModule", ("norm1", "norm2"), {}),
}


def cases() -> dict[str, Callable[[Path, Path], Made]]:
    """Title -> function that makes the file in a folder, with the base at a place."""
    return {title: _making(*row) for title, row in ALGORITHMS.items()}


def _making(module: str, kind: str, endings: tuple[str, ...], settings: dict[str, Any]) -> Callable[[Path, Path], Made]:
    return lambda place, folder: make(module, kind, endings, settings, place, folder)


def make(module: str, kind: str, endings: tuple[str, ...], settings: dict[str, Any], place: Path, folder: Path) -> Made:
    """A file in kohya's names, as sd-scripts writes LyCORIS's networks."""
    logging.disable(logging.WARNING)
    made_by = getattr(import_module(f"lycoris.modules.{module}"), kind)
    model = unet(place)
    merged = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    tensors: dict[str, Tensor] = {}
    for number, (name, layer) in enumerate(layers(model, endings).items()):
        flat = f"lora_unet_{name.replace('.', '_')}"
        torch.manual_seed(number)
        with contextlib.redirect_stdout(io.StringIO()):
            one = made_by(flat, layer, 1.0, **({} if kind == "NormModule" else {"alpha": 2}), **settings)
        if kind == "FullModule":  # before it is applied its file would hold the difference less the weight
            one.apply_to()
        _move(one, number)
        with torch.no_grad():
            weight, bias = weights_of(kind, one, layer)
        merged[f"{name}.weight"] = weight.detach().clone()
        if bias is not None:
            merged[f"{name}.bias"] = bias.detach().clone()
        tensors |= {f"{flat}.{key}": value.detach().clone().contiguous() for key, value in one.state_dict().items()}
    save_file(tensors, folder / "lycoris.safetensors", metadata={"ss_network_module": "lycoris.kohya"})
    return Made(folder / "lycoris.safetensors", merged)


def _move(one: nn.Module, number: int) -> None:
    with torch.no_grad():
        for index, parameter in enumerate(one.parameters()):
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(100 * number + index))
            parameter.add_(0.1 * noise)


def weights_of(kind: str, one: Any, layer: Any) -> tuple[Tensor, Tensor | None]:
    """(weight, bias) of the layer in the forward pass at strength 1; no bias where it stays the layer's own."""
    if kind in ("NormModule", "FullModule"):
        weight, bias = one.make_weight()
        return weight, bias
    base = layer.weight
    if kind in ("LohaModule", "LokrModule"):
        whole = one.get_weight(None).reshape(base.shape) * one.scalar
        return (one.apply_weight_decompose(base + whole) if one.wd else base + whole), None
    if kind == "TLoraModule":
        return base + one.get_diff_weight(1.0, shape=base.shape)[0], None
    ranks = {"rank": one.lora_dim - one.block_size} if kind == "DyLoraModule" else {}  # where the last block begins; else one at random
    return one.get_merged_weight(1.0, shape=base.shape, **ranks)[0], None
