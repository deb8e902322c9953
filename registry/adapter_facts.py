"""What an adapter is, told from its header: algorithms, rank, alpha, DoRA, components. No tensor is read."""

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from registry.formats.adapter_keys import DENOISER, SCALED, AdapterKey, dialect_of, is_language_model
from registry.header import TensorInfo


@dataclass(frozen=True)
class AdapterFacts:
    """Facts of one adapter's table of tensors. `ranks` counts modules by rank; `rank` is None when they differ."""

    algorithms: tuple[str, ...]
    components: tuple[str, ...]  # DENOISER for the trained network
    dora: bool
    rank: int | None
    ranks: Mapping[int, int]
    alpha_tensors: bool  # its alpha stands in tensors, which a header does not show
    dialect: str
    language_model: bool

    def alpha_by(self, metadata: Mapping[str, str]) -> tuple[float | None, str | None]:
        """(alpha, where it was read) with a header's metadata; the rank where there is none anywhere, since the scale is 1 then."""
        alpha, source = _alpha(metadata)
        several = any(name.endswith("lora_alpha") for name in peft_config(metadata))
        if source is None and set(self.algorithms) & SCALED and self.rank is not None and not self.alpha_tensors and not several:
            return float(self.rank), "no alpha in the file: the scale is 1"
        return alpha, source


def adapter_facts(keys: Mapping[str, AdapterKey], tensors: Mapping[str, TensorInfo]) -> AdapterFacts:
    """The facts in parsed keys and shapes."""
    ranks = Counter(module_ranks(keys, tensors).values())
    return AdapterFacts(
        algorithms=tuple(sorted(_algorithms(keys, tensors))),
        components=_components(keys, tensors),
        dora=any(key.role == "dora" for key in keys.values()),
        rank=next(iter(ranks)) if len(ranks) == 1 else None,
        ranks=dict(sorted(ranks.items())),
        alpha_tensors=any(key.role == "alpha" for key in keys.values()),
        dialect=dialect_of(keys),
        language_model=is_language_model(keys),
    )


def _algorithms(keys: Mapping[str, AdapterKey], tensors: Mapping[str, TensorInfo]) -> set[str]:
    found = {key.algorithm for key in keys.values()} - {""}
    if "oft" in found:  # one key name for both: three axes are OFT, four are BOFT
        axes = {len(tensors[name].shape) for name, key in keys.items() if key.algorithm == "oft" and key.role == "blocks"}
        found = (found - {"oft"}) | ({"boft"} if axes == {4} else {"oft", "boft"} if 4 in axes else {"oft"})
    return found


def module_ranks(keys: Mapping[str, AdapterKey], tensors: Mapping[str, TensorInfo]) -> dict[tuple[str, str], int]:
    """(component, module) -> rank, by the definition of each algorithm; modules without one are left out."""
    ranks: dict[tuple[str, str], int] = {}
    for name, key in keys.items():
        shape, place = tensors[name].shape, (key.component, key.module)
        if not shape:
            continue
        if (key.algorithm, key.role) in (("lora", "down"), ("loha", "w1_b")):
            ranks[place] = shape[0]
        elif key.algorithm == "lokr" and key.role in ("w1_b", "w2_b"):
            ranks[place] = max(shape[0], ranks.get(place, 0))
    return ranks


def _components(keys: Mapping[str, AdapterKey], tensors: Mapping[str, TensorInfo]) -> tuple[str, ...]:
    names = {key.component for key in keys.values() if key.component}
    convolution = any(key.role == "down" and len(tensors[name].shape) == 4 and tensors[name].shape[-1] > 1 for name, key in keys.items())
    order = (DENOISER, "text_encoder", "text_encoder_2", "text_encoder_3")
    return tuple(sorted(names, key=lambda name: (order.index(name) if name in order else 9, name))) + (("conv",) if convolution else ())


# --- alpha: in kohya files a tensor, elsewhere metadata; without one the scale is 1


def _alpha(metadata: Mapping[str, str]) -> tuple[float | None, str | None]:
    told = _number(metadata.get("ss_network_alpha"))
    if told is not None:
        return told, "ss_network_alpha"
    values = {value for name, value in peft_config(metadata).items() if name.rpartition(".")[2] == "lora_alpha"}
    if len(values) == 1:
        return _number(values.pop()), "lora_adapter_metadata"
    return None, None


def peft_config(metadata: Mapping[str, str]) -> dict[str, Any]:
    """diffusers' `lora_adapter_metadata`: one JSON with `<component>.<field of LoraConfig>`; {} when absent or damaged."""
    try:
        values = json.loads(metadata.get("lora_adapter_metadata", "{}"))
    except (ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def _number(value: object) -> float | None:
    try:
        number = float(value)  # type: ignore[arg-type]  # any object may be asked
    except (TypeError, ValueError):
        return None  # kohya writes "Dynamic" for adapters of several alphas
    return number if math.isfinite(number) else None
