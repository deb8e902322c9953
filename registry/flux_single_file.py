"""FLUX.1's transformer out of a single file in Black Forest Labs' names (or in diffusers' own, with or without a prefix)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.errors import BadFile, Refused
from registry.flux_names import flux_layers, flux_norms
from registry.folder import read_json
from registry.header import TensorInfo, read_header
from registry.single_file import HINT, empty_module

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

PREFIXES = ("model.diffusion_model.", "diffusion_model.", "transformer.", "")
OWN = "transformer_blocks.0.attn.to_q.weight"  # in diffusers' names
THEIRS = "double_blocks.0.img_attn.qkv.weight"


def load_flux_transformer(path: Path, base_config: Path, *, dtype: torch.dtype, empty: bool) -> tuple[nn.Module, tuple[str, ...]]:
    """The transformer with its weights from the file and its config from the folder, and what should be said of it."""
    import diffusers

    tensors = read_header(path).tensors
    prefix = next((prefix for prefix in PREFIXES if prefix + OWN in tensors or prefix + THEIRS in tensors), None)
    if prefix is None:
        raise BadFile(path, "not-a-model", f"has no FLUX.1 transformer: neither {THEIRS} nor {OWN}, with any known prefix.")
    names = {key.removeprefix(prefix): info for key, info in tensors.items() if key.startswith(prefix)}
    config = read_json(base_config / "transformer" / "config.json")
    _same_build(path, base_config, config, names)
    module = empty_module("diffusers", diffusers.FluxTransformer2DModel, config, path=path, component="transformer")
    places = {name: (name, None, False) for name in module.state_dict()} if OWN in names else _original_places(module)
    taken = _check(path, module, places, names)
    if not empty:
        module.load_state_dict(_read(path, prefix, module, places, dtype), strict=True, assign=True)
    left = [key for key in tensors if key.removeprefix(prefix) not in taken]
    rest = (f"{len(left)} tensors of {path.name} beside its transformer are not used (first: {left[0]}).",) if left else ()
    return module, (f"{path.name} holds a transformer; text encoders, tokenizers, VAE and scheduler are those of {base_config}.", *rest)


def _same_build(path: Path, base_config: Path, config: Mapping[str, Any], names: Mapping[str, TensorInfo]) -> None:
    """Refuse a dev file with schnell's configs, or the other way round: the schedule would be wrong."""
    guided = any("guidance_in." in name or "guidance_embedder." in name for name in names)
    if guided != bool(config.get("guidance_embeds")):
        is_, other = ("dev", "schnell") if guided else ("schnell", "dev")
        raise Refused(f"{path.name} is a {is_} build, but base_config={base_config} is a {other} build. Give the folder of a {is_} build.")


Place = tuple[str, tuple[int, int] | None, bool]  # key in the file, its rows (None: all), whether its halves are swapped


def _original_places(module: Any) -> dict[str, Place]:
    """Parameter -> where it stands in Black Forest Labs' names."""
    shapes = {name: tensor.shape for name, tensor in module.state_dict().items()}
    blocks = (module.config.num_layers, module.config.num_single_layers)
    places: dict[str, Place] = {}
    for layer in flux_layers(*blocks):
        for ending in ("weight", "bias"):
            row = 0
            for own in layer.modules:
                name = f"{own}.{ending}"
                if name not in shapes:
                    continue
                rows = shapes[name][0]
                places[name] = (f"{layer.original}.{ending}", (row, row + rows) if len(layer.modules) > 1 else None, layer.swapped)
                row += rows
    return places | {f"{own}.weight": (f"{theirs}.scale", None, False) for theirs, own in flux_norms(*blocks).items()}


def _check(path: Path, module: nn.Module, places: Mapping[str, Place], names: Mapping[str, TensorInfo]) -> set[str]:
    """The names that the transformer takes; all that are missing or of another shape are told together."""
    faults: list[str] = []
    for name, empty in module.state_dict().items():
        key, rows, _swapped = places.get(name, (name, None, False))
        if key not in names:
            faults.append(f"{name} is missing ({key})")
            continue
        shape = names[key].shape
        if rows is not None:
            shape = (max(0, min(rows[1], shape[0]) - rows[0]), *shape[1:])
        if shape != tuple(empty.shape):
            faults.append(f"{name} is {shape} where {tuple(empty.shape)} was expected")
    if faults:
        shown = "; ".join(faults[:3]) + (f"; and {len(faults) - 3} more" if len(faults) > 3 else "")
        raise BadFile(path, "wrong-config", f"its transformer does not fit the config: {shown}. {HINT}")
    return {places.get(name, (name, None, False))[0] for name in module.state_dict()}


def _read(path: Path, prefix: str, module: nn.Module, places: Mapping[str, Place], dtype: torch.dtype) -> dict[str, Tensor]:
    """Every parameter in `dtype`."""
    import torch
    from safetensors import safe_open

    read: dict[str, Tensor] = {}
    with safe_open(path, framework="pt") as file:
        for name in module.state_dict():
            key, rows, swapped = places.get(name, (name, None, False))
            tensor = file.get_tensor(prefix + key)
            tensor = tensor[rows[0] : rows[1]] if rows is not None else tensor
            tensor = torch.cat(tensor.chunk(2)[::-1]) if swapped else tensor
            read[name] = tensor.to(dtype).contiguous()
    return read
