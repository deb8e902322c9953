"""Adapters as files: factors under the spelling that was asked for, with the recipe in the header, registered with their parents."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from registry.adapters.factors import Factors
from registry.adapters.reader import Adapter
from registry.detect.licences import Terms
from registry.errors import JobFailed
from registry.formats.atomic_file import write_safetensors
from registry.merging.job import RECIPE_KEY
from registry.progress import Report, silent
from registry.record import Record
from registry.tensors.mmap_files import torch_dtype

if TYPE_CHECKING:
    from torch import Tensor

    from registry.store import Store

KOHYA_PREFIX = {"denoiser": "lora_unet_", "text_encoder": "lora_te_", "text_encoder_2": "lora_te2_", "text_encoder_3": "lora_te3_"}
CARRIED = ("ss_base_model_version", "ss_sd_model_name", "ss_sd_model_hash", "ss_new_sd_model_hash", "ss_v2", "modelspec.architecture")


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One module of a result: its name as it will stand in the file, its factors, and for a report what of the change they keep."""

    name: str
    place: tuple[str, str]
    factors: Factors
    energy: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Made:
    """A finished adapter: where it lies, its hashes and numbers."""

    output: Path
    result: Mapping[str, Any]
    record: Record | None = None


def tensors_of(layers: Sequence[Layer], *, spelling: str, dtype: str) -> dict[str, Tensor]:
    """The tensors of an adapter file. The scale is 1: alpha is the rank, which kohya's spelling says and peft's need not."""
    import torch

    kind = torch_dtype(dtype)
    found: dict[str, Tensor] = {}
    for layer in layers:
        rank, kernel = layer.factors.rank, layer.factors.shape[2:]
        down, up = layer.factors.down, layer.factors.up
        if kernel:
            down, up = down.reshape(rank, layer.factors.shape[1], *kernel), up.reshape(-1, rank, *[1] * len(kernel))
        names = ("lora_down", "lora_up") if spelling == "kohya" else ("lora_A", "lora_B")
        for name, values in zip(names, (down, up), strict=True):
            found[f"{layer.name}.{name}.weight"] = held(values, kind, layer.name)
        if spelling == "kohya":
            found[f"{layer.name}.alpha"] = torch.tensor(float(rank), dtype=torch.float32)
    return found


def held(values: Tensor, dtype: Any, name: str) -> Tensor:
    """The values in the dtype. Raises JobFailed where it cannot hold them."""
    import torch

    low, high = (float(bound) for bound in torch.aminmax(values)) if values.numel() else (0.0, 0.0)
    limit = torch.finfo(dtype).max
    if not (low >= -limit and high <= limit):
        raise JobFailed(f"{name} would have {low:g} .. {high:g}, which {dtype} does not hold. Write --dtype bf16 or fp32.")
    return values.to(dtype)


def metadata_of(first: Adapter | None, recipe: Mapping[str, Any], layers: Sequence[Layer]) -> dict[str, str]:
    """What the header says: the base as the first adapter names it, rank and alpha as kohya's readers show them, and the recipe."""
    kept = {key: value for key, value in (first.metadata if first else {}).items() if key in CARRIED}
    ranks = {layer.factors.rank for layer in layers}
    said = str(next(iter(ranks))) if len(ranks) == 1 else "Dynamic"
    kept |= {"format": "pt", "ss_network_module": "networks.lora", "ss_network_dim": said, "ss_network_alpha": said}
    return kept | {RECIPE_KEY: json.dumps(portable(recipe), sort_keys=True, ensure_ascii=False)}


def portable(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe without places on this machine: sources by name and hash."""
    sources = [{"ref": source["name"], "sha256": source["sha256"]} for source in recipe["sources"]]
    return {**recipe, "sources": sources}


def save(
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    output: Path,
    store: Store,
    *,
    recipe: Mapping[str, Any],
    roles: Sequence[str],
    terms: Terms,
    family: str | None,
    name: str | None,
    began: float,
    numbers: Mapping[str, Any],
    register: bool = True,
    report: Report = silent,
) -> Made:
    """Write the file whole and register it with its parents and recipe."""
    output.parent.mkdir(parents=True, exist_ok=True)
    hashes = write_safetensors(output, tensors, metadata={**metadata, **terms.entries()})
    record = None
    if register:
        parents = [
            {"role": role, "ref": source["ref"], "sha256": source["sha256"]} for role, source in zip(roles, recipe["sources"], strict=True)
        ]
        record = store.add(
            output,
            name=name or output.stem,
            kind="adapter",
            family=family,
            parents=parents,
            recipe=recipe,
            licence=terms.licence,
            report=report,
        )
    result = {
        "output": str(output),
        "sha256": hashes.sha256,
        "tensors_sha256": hashes.tensors_sha256,
        "seconds": round(monotonic() - began, 3),
        **numbers,
    }
    return Made(output=output, result=result, record=record)
