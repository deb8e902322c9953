"""What cannot go with quantised weights, known before a model is loaded."""

from __future__ import annotations

from collections.abc import Mapping

from registry.errors import Refused

FP8_DEVICES = ("cpu", "cuda")  # that have torch.float8_e4m3fn


def device_faults(dtypes: Mapping[str, str | None], device: str) -> list[str]:
    """Faults of the dtypes, by the names of their settings, on a device such as cuda:1."""
    kind = device.partition(":")[0]
    return [
        f"{name}=fp8 needs torch.float8_e4m3fn, which {kind} has not. Give int8, which has as many bits."
        for name, dtype in dtypes.items()
        if dtype == "fp8" and kind not in FP8_DEVICES
    ]


def refuse_fused(reference: str, dtype: str | None) -> None:
    """Raise Refused for an adapter that is drawn in weights that are quantised."""
    if dtype is not None:
        raise Refused(
            f"The adapter {reference} is drawn in the weights themselves, and here they are kept in {dtype}: most of it would be rounded"
            " away. Fuse it into the base first (loraloom lora fuse), or leave the dtype out."
        )
