"""What cannot go with quantised weights, known before a model is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from registry.errors import Refused
from registry.quantised.codings import COMPUTE
from registry.quantised.skeleton import stored_titles

if TYPE_CHECKING:
    from torch import nn

FP8_DEVICES = ("cpu", "cuda")  # that have torch.float8_e4m3fn


def device_faults(dtypes: Mapping[str, str | None], device: str) -> list[str]:
    """Faults of the dtypes, by the names of their settings, on a device such as cuda:1."""
    kind = device.partition(":")[0]
    return [
        f"{name}=fp8 needs torch.float8_e4m3fn, which {kind} has not. Give int8, which has as many bits."
        for name, dtype in dtypes.items()
        if dtype == "fp8" and kind not in FP8_DEVICES
    ]


def compute_faults(compute: str | None, base_dtype: str | None, device: str) -> list[str]:
    """Faults of the arithmetic in 8 bits of a base that is kept in `base_dtype`, on a device, where a small product is tried."""
    if compute not in COMPUTE:
        return []
    if compute != base_dtype:
        is_kept = "is not given" if base_dtype is None else f"is {base_dtype}"
        return [f"compute={compute} needs base_dtype={compute}, which {is_kept}: products are of the weights as they are kept."]
    import torch

    from registry.quantised.products import check_compute

    try:
        check_compute(compute, torch.device(device))
    except Refused as error:
        return [str(error)]
    return []


def counted_titles(stored: Mapping[str, int]) -> str:
    """304 weights in fp8 scaled and 2 weights in fp8 without scales."""
    return " and ".join(f"{count} weight{'' if count == 1 else 's'} in {title}" for title, count in stored.items())


def stored_faults(component: str, module: nn.Module, dtype: str | None, device: str) -> list[str]:
    """Faults of a component that is quantised in its file: with a dtype that it is to be quantised to, on a device such as cuda:1."""
    rounded, kind = stored_titles(module, rounded=True), device.partition(":")[0]
    without = [title for title in stored_titles(module) if title.startswith("fp8") and kind not in FP8_DEVICES]
    faults = [_requantised(component, rounded)] if dtype is not None and rounded else []
    if without:
        faults.append(
            f"The {component} is kept in {without[0]} in its file, which needs torch.float8_e4m3fn, and {kind} has not. Give the bf16 file."
        )
    return faults


def refuse_requantised(component: str, stored: Mapping[str, int]) -> None:
    """Raise Refused for a component that is to be quantised, where its file keeps weights in these codings already."""
    if stored:
        raise Refused(_requantised(component, stored))


def _requantised(component: str, stored: Mapping[str, int]) -> str:
    name = "text_encoder_dtype" if component.startswith("text_encoder") else "base_dtype"
    return (
        f"{name} is given, but the {component} is quantised in its file ({counted_titles(stored)}): twice would add the errors."
        f" Leave {name} out, or give the bf16 or fp16 file."
    )


def refuse_fused(reference: str, dtype: str | None) -> None:
    """Raise Refused for an adapter that is drawn in weights that are quantised."""
    if dtype is not None:
        raise Refused(
            f"The adapter {reference} is drawn in the weights themselves, and here they are kept in {dtype}: most of it would be rounded"
            " away. Fuse it into the base first (loraloom lora fuse), or leave the dtype out."
        )
