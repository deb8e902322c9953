"""What the algebra of adapters makes, as a file: factors in a dialect, the recipe in the header, registered with its parents."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from registry.adapters.delta import bias_delta, changes_bias, changes_weight, delta, finite
from registry.adapters.factors import Factors
from registry.adapters.reader import Adapter, Module, ModuleId
from registry.adapters.writer import OutputModule, Pair, adapter_tensors
from registry.detect.licences import Terms
from registry.families import FAMILIES
from registry.formats.atomic_file import write_safetensors
from registry.formats.dialects import DENOISER, writing_of
from registry.index.written import add_written
from registry.merging.job import RECIPE_KEY
from registry.progress import Report, silent
from registry.record import Record

if TYPE_CHECKING:
    from torch import Tensor

    from registry.store import Store

CARRIED = ("ss_base_model_version", "ss_sd_model_name", "ss_sd_model_hash", "ss_new_sd_model_hash", "ss_v2", "modelspec.architecture")


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One module of a result: its name in the file, its factors, and for a report what of the change they keep."""

    name: str
    place: tuple[str, str]
    factors: Factors
    energy: float = 1.0


@dataclass(frozen=True, kw_only=True)
class AdapterResult:
    """A finished adapter: its path, hashes and numbers."""

    output: Path
    result: Mapping[str, Any]
    record: Record | None = None


def tensors_of(layers: Sequence[Layer], *, spelling: str, dtype: str) -> dict[str, Tensor]:
    """The tensors of an adapter file, spelled as a row of DIALECTS. The scale is 1: alpha is the rank."""
    modules = (OutputModule(name=layer.name, pair=_pair(layer.factors)) for layer in layers)
    return adapter_tensors(modules, writing_of(spelling), dtype=dtype)


def _pair(factors: Factors) -> Pair:
    """The factors as a file has them: those of a convolution with its kernel."""
    rank, kernel = factors.rank, factors.shape[2:]
    if not kernel:
        return Pair(factors.down, factors.up, float(rank))
    return Pair(factors.down.reshape(rank, factors.shape[1], *kernel), factors.up.reshape(-1, rank, *[1] * len(kernel)), float(rank))


def has_matrix(module: Module) -> bool:
    """Whether it changes a weight of several axes, which factors can hold: no norm, and not a bias alone."""
    whole = module.stored.get("diff")
    return changes_weight(module) and module.algorithm != "norm" and (whole is None or len(whole.info.shape) > 1)


def beside_factors(modules: Iterable[tuple[str, Sequence[tuple[Module, float]]]], spelling: str) -> Iterator[OutputModule]:
    """What factors cannot hold, summed as it is: biases, and the weights of norms. `modules` are names and weighted parts."""
    for name, parts in modules:
        found: dict[str, Tensor] = {}
        if all(module.algorithm == "norm" for module, _ in parts):
            endings = ".w_norm", ".b_norm"  # LyCORIS's words
        else:
            beside = spelling == "peft" and any(has_matrix(module) for module, _ in parts)
            endings = ".diff", ".lora_B.bias" if beside else ".diff_b"
        for module, weight in parts:
            for ending, change in _whole_changes(module, *endings):
                term = finite(change, module) * weight
                found[ending] = found[ending] + term if ending in found else term
        if found:
            yield OutputModule(name=name, raw=found)


def _whole_changes(module: Module, vector: str, bias: str) -> Iterator[tuple[str, Tensor]]:
    """(ending of its key, change) of a norm's weight and of a module's bias; fp32."""
    if changes_weight(module) and not has_matrix(module):
        yield vector, delta(module)
    if changes_bias(module):
        change = bias_delta(module)
        assert change is not None
        yield bias, change


def module_names(places: Iterable[ModuleId], family: str | None) -> dict[ModuleId, str]:
    """(component, canonical module) -> the module's name in kohya's files, with the prefixes of its family where that is known."""
    places = list(places)
    names = FAMILIES[family].adapter_names if family is not None and family in FAMILIES else None
    encoders = names.encoders if names is not None else {}
    both = any(component == "text_encoder_2" for component, _ in places)
    usual = {"text_encoder": "lora_te1_" if both else "lora_te_", "text_encoder_2": "lora_te2_", "text_encoder_3": "lora_te3_"}
    return {place: _kohya_name(place, {**usual, **encoders}) for place in places}


def is_unet(family: str | None) -> bool:
    """Whether a family's denoiser is diffusers' UNet2DConditionModel."""
    return family is not None and family in FAMILIES and FAMILIES[family].denoiser == "unet"


def _kohya_name(place: ModuleId, encoders: Mapping[str, str]) -> str:
    component, module = place
    inner = f"text_model_{module}" if component != DENOISER and module.startswith("encoder_layers") else module
    return f"{writing_of('kohya').prefix(component, DENOISER, encoders)}{inner}"


def metadata_of(first: Adapter | None, recipe: Mapping[str, Any], layers: Sequence[Layer]) -> dict[str, str]:
    """The header's metadata: the base as the first adapter names it, rank and alpha as kohya's readers show them, and the recipe."""
    kept = {key: value for key, value in (first.metadata if first else {}).items() if key in CARRIED}
    ranks = {layer.factors.rank for layer in layers}
    common = str(next(iter(ranks))) if len(ranks) == 1 else "Dynamic"
    kept |= {"format": "pt", "ss_network_module": "networks.lora", "ss_network_dim": common, "ss_network_alpha": common}
    return kept | {RECIPE_KEY: json.dumps(portable(recipe), sort_keys=True, ensure_ascii=False)}


def portable(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe without this machine's paths: sources by name and hash."""
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
) -> AdapterResult:
    """Write the file whole and register it with its parents and recipe."""
    hashes = write_safetensors(output, tensors, metadata={**metadata, **terms.entries()})
    record = None
    if register:
        parents = [
            {"role": role, "ref": source["ref"], "sha256": source["sha256"]} for role, source in zip(roles, recipe["sources"], strict=True)
        ]
        record = add_written(
            store,
            output,
            sha256=str(hashes.sha256),
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
    return AdapterResult(output=output, result=result, record=record)
