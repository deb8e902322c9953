"""One LoRA in the spelling of every trainer and tool: B A alpha / R is what each of them trains, and what is compared with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from bench.adapters.case import ATTENTION, Made, layers, random, unet

R, ALPHA = 4, 8.0
State = dict[str, Tensor]


def factors(place: Path) -> tuple[State, dict[str, tuple[Tensor, Tensor]], Any]:
    """(the UNet's weights, module -> (down, up), the UNet) of the LoRA that all dialects spell."""
    model = unet(place)
    found = {
        name: (random(2 * number, R, layer.weight.shape[1]), random(2 * number + 1, layer.weight.shape[0], R))
        for number, (name, layer) in enumerate(layers(model, ATTENTION).items())
    }
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}, found, model


def plain(name_of: Callable[[str], str], down: str, up: str, *, alpha: str | None, metadata: dict[str, str] | None = None) -> Any:
    """A case of one spelling. Without `alpha`, a tensor's ending, the scale is that of the metadata, or 1 where these have none."""

    def make(place: Path, folder: Path) -> Made:
        merged, found, _model = factors(place)
        scale = ALPHA / R if alpha or metadata else 1.0
        tensors: State = {}
        for name, (a, b) in found.items():
            tensors |= {f"{name_of(name)}{down}": a, f"{name_of(name)}{up}": b}
            tensors |= {f"{name_of(name)}{alpha}": torch.tensor(ALPHA)} if alpha else {}
            merged[f"{name}.weight"] = merged[f"{name}.weight"] + scale * (b @ a)
        save_file(tensors, folder / "lora.safetensors", metadata=metadata)
        return Made(folder / "lora.safetensors", merged)

    return make


def dora(place: Path, folder: Path, *, columns: bool) -> Made:
    """kohya's names with a magnitude for each row, or, as OneTrainer trains by default, for each column."""
    merged, found, _model = factors(place)
    tensors: State = {}
    for number, (name, (a, b)) in enumerate(found.items()):
        weight = merged[f"{name}.weight"]
        moved = weight + ALPHA / R * (b @ a)
        length = moved.norm(dim=0 if columns else 1, keepdim=True)
        magnitude = weight.norm(dim=0 if columns else 1, keepdim=True) + random(number, *length.shape)
        merged[f"{name}.weight"] = moved * magnitude / length
        flat = f"lora_unet_{name.replace('.', '_')}"
        tensors |= {f"{flat}.lora_down.weight": a, f"{flat}.lora_up.weight": b, f"{flat}.alpha": torch.tensor(ALPHA)}
        tensors[f"{flat}.dora_scale"] = magnitude
    save_file(tensors, folder / "dora.safetensors")
    return Made(folder / "dora.safetensors", merged)


def extraction(place: Path, folder: Path) -> Made:
    """What ComfyUI's extraction writes: factors, a bias beside them where the layer has one, norms as differences."""
    merged, found, model = factors(place)
    tensors: State = {}
    for number, (name, (a, b)) in enumerate(found.items()):
        tensors |= {f"diffusion_model.{name}.lora_down.weight": a, f"diffusion_model.{name}.lora_up.weight": b}
        merged[f"{name}.weight"] = merged[f"{name}.weight"] + b @ a
        if f"{name}.bias" in merged:
            tensors[f"diffusion_model.{name}.diff_b"] = random(number, len(b))
            merged[f"{name}.bias"] = merged[f"{name}.bias"] + random(number, len(b))
    for number, name in enumerate(layers(model, ("norm1",))):
        for ending, word in (("diff", "weight"), ("diff_b", "bias")):
            change = random(100 + number, *merged[f"{name}.{word}"].shape)
            tensors[f"diffusion_model.{name}.{ending}"] = change
            merged[f"{name}.{word}"] = merged[f"{name}.{word}"] + change
    save_file(tensors, folder / "extracted.safetensors")
    return Made(folder / "extracted.safetensors", merged)


def _flat(prefix: str) -> Callable[[str], str]:
    return lambda name: prefix + name.replace(".", "_")


def _processor(name: str) -> str:
    """The attention processors of diffusers before 0.22."""
    block, _, layer = name.rpartition(".to_")
    return f"unet.{block}.processor.to_{layer.removesuffix('.0')}"


SETTINGS = {"lora_adapter_metadata": json.dumps({"unet.r": R, "unet.lora_alpha": ALPHA, "unet.target_modules": list(ATTENTION)})}
KOHYA = (".lora_down.weight", ".lora_up.weight")
PEFT = (".lora_A.weight", ".lora_B.weight")


def cases() -> dict[str, Callable[[Path, Path], Made]]:
    """Title -> function that makes the file in a folder, with the base at a place."""
    return {
        "kohya (sd-scripts, ComfyUI, A1111)": plain(_flat("lora_unet_"), *KOHYA, alpha=".alpha"),
        "kohya without alpha": plain(_flat("lora_unet_"), *KOHYA, alpha=None),
        "OneTrainer": plain(_flat("lora_unet_"), *KOHYA, alpha=".alpha", metadata={"ot_branch": "master"}),
        "kohya's DoRA": lambda place, folder: dora(place, folder, columns=False),
        "OneTrainer's DoRA (columns)": lambda place, folder: dora(place, folder, columns=True),
        "SimpleTuner's LyCORIS names": plain(_flat("lycoris_"), *KOHYA, alpha=".alpha"),
        "diffusers, alpha in the header": plain("unet.{}".format, *PEFT, alpha=None, metadata=SETTINGS),
        "diffusers, no alpha": plain("unet.{}".format, *PEFT, alpha=None),
        "diffusers before 0.22": plain(_processor, "_lora.down.weight", "_lora.up.weight", alpha=None),
        "peft with the adapter's name": plain("unet.{}".format, ".lora_A.default.weight", ".lora_B.default.weight", alpha=None),
        "ai-toolkit (diffusion_model., peft's factors)": plain("diffusion_model.{}".format, *PEFT, alpha=None),
        "ComfyUI's extraction (diff_b, norms)": extraction,
    }
