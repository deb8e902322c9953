"""The base model: found by reference, loaded as a skeleton without weights for the plan, and with weights for the run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from registry.detect.loading import family_of, load_family, prediction_override
from registry.errors import NotFound, Refused
from registry.family import Family
from registry.parts import Parts
from registry.record import Record
from train.config import Precision, TrainConfig
from train.objective.zero_terminal_snr import set_zero_terminal_snr

if TYPE_CHECKING:
    import torch

    from registry.store import Store


@dataclass(frozen=True)
class Base:
    """A base model as it was found: its Record, its family, where it lies."""

    record: Record
    family: Family
    path: Path

    @property
    def name(self) -> str:
        return self.record.name


def find_base(config: TrainConfig, store: Store) -> Base:
    """The base that the settings name. Raises NotFound, Ambiguous, FamilyMismatch, or Refused for a family that cannot be trained."""
    record = store.find(config.base, kind="checkpoint")
    family = family_of(record)
    if family.untrained is not None:
        raise Refused(f"base={config.base} is {family.title}, which is not trained: {family.untrained}.")
    if record.path is None:
        raise NotFound(f"{record.name} is registered, but none of its files is known to this machine. Scan its folder again.")
    return Base(record, family, Path(record.path))


def load(base: Base, config: TrainConfig, *, dtype: torch.dtype) -> Parts:
    """The base with all its components on the CPU, quantised as the settings say; each is moved to the device when it is used."""
    parts = _loaded(base, config, dtype=dtype, device="cpu")
    if config.compute is not None:
        from registry.quantised.products import set_compute

        set_compute(parts.denoiser, config.compute)
    return parts


def skeleton(base: Base, config: TrainConfig) -> Parts:
    """The base's structure with tokenizers and without weights (meta device): to count weights, match targets and tokenise.

    Its layers are plain ones, whatever the base is quantised to.
    """
    import torch

    return _loaded(base, config, dtype=torch.float32, device="meta")


def _loaded(base: Base, config: TrainConfig, *, dtype: torch.dtype, device: str) -> Parts:
    said = config.prediction or prediction_override(base.record)
    parts = load_family(
        base.family,
        base.path,
        dtype=dtype,
        device=device,
        base_config=config.base_config,
        prediction=said,
        base_dtype=config.base_dtype,
        text_encoder_dtype=config.text_encoder_dtype,
    )
    if config.objective.zero_terminal_snr and parts.prediction == "v_prediction":  # the plan refuses the others
        set_zero_terminal_snr(parts)
    return replace(parts, prompt_chunks=config.prompt_chunks)


def resolve_device(wanted: str) -> torch.device:
    """The device of a setting; `auto` is a GPU if there is one. Raises Refused for a device that this machine lacks."""
    import torch

    if wanted == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    device = torch.device(wanted)
    there = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if (device.index or 0) >= there.get(device.type, 0):
        known = ", ".join(name if count == 1 else f"{name}:0..{count - 1}" for name, count in there.items() if count)
        raise Refused(f"device={wanted} is not on this machine. There are: {known}. Give one of these, or auto.")
    return device


def resolve_precision(wanted: Precision, device: torch.device) -> Precision:
    """The precision that `auto` means here. Raises Refused for fp16 without a GPU, which has no loss scaling."""
    import torch

    if wanted is Precision.auto:
        return Precision.bf16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else Precision.fp32
    if wanted is Precision.fp16 and device.type != "cuda":
        raise Refused(f"precision=fp16 needs an NVIDIA or AMD GPU for its loss scaling; the device is {device.type}. Use bf16 or fp32.")
    return wanted


def precision_dtype(precision: Precision) -> torch.dtype:
    """The dtype of the base's weights."""
    import torch

    return {Precision.fp32: torch.float32, Precision.bf16: torch.bfloat16, Precision.fp16: torch.float16}[precision]
