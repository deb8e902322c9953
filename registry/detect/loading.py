"""A base model from its reference to Parts: detection names the family, the family loads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from registry.errors import FamilyMismatch, NotFound, Refused
from registry.families import FAMILIES
from registry.family import Family
from registry.parts import Parts
from registry.record import OVERRIDDEN, Record

if TYPE_CHECKING:
    import torch


def family_of(record: Record) -> Family:
    """The family that loads a checkpoint; refused with the reasons when it is none, or none that we load."""
    if record.kind not in ("checkpoint", "unknown"):
        raise Refused(f"{record.name} is of kind {record.kind}, but a base is a checkpoint: a diffusers folder or a single file.")
    if record.family is not None and record.family in FAMILIES:
        return FAMILIES[record.family]
    loadable = ", ".join(sorted(FAMILIES))
    if record.family is not None:
        raise FamilyMismatch(f"{record.name} is a {record.family} model, which is known but not loaded yet. Loadable families: {loadable}.")
    saw = f" Candidates: {', '.join(record.candidates)}." if record.candidates else ""
    why = f" Seen: {'; '.join(record.evidence)}." if record.evidence else ""
    raise Refused(f"{record.name} is of no family we know.{saw}{why} Loadable families: {loadable}.")


def load_base(
    base: Record | Path | str,
    *,
    dtype: torch.dtype,
    device: torch.device | str,
    base_config: Path | str | None = None,
    prediction: str | None = None,
) -> tuple[Family, Parts]:
    """The family and the loaded Parts of a Record or of a path, every weight in `dtype`, in eval mode, with no network.

    `base_config` is a diffusers folder of the same build, for single files that need its configs or tokenizers. `prediction` is what
    a person says that it predicts; None: what was told of the record, else what its files say.
    """
    if not isinstance(base, Record):
        from registry.detect.inspect import inspect

        if not Path(base).exists():
            raise NotFound(f"There is no model at {base}. Give a diffusers folder or a .safetensors checkpoint.")
        base = inspect(Path(base))
    family = family_of(base)
    if base.path is None:
        raise NotFound(f"{base.name} is registered, but none of its files is known to this machine. Scan its folder again.")
    said = prediction or told_prediction(base)
    return family, load_family(family, Path(base.path), dtype=dtype, device=device, base_config=base_config, prediction=said)


def told_prediction(record: Record) -> str | None:
    """What a person said that it predicts; None where nobody did."""
    return record.prediction.value if record.prediction.source == OVERRIDDEN else None


def load_family(
    family: Family, path: Path, *, dtype: torch.dtype, device: torch.device | str, base_config: Path | str | None, prediction: str | None
) -> Parts:
    """The Parts of a path under a person's word for what it predicts (None: none was given). Refused where the family knows no such."""
    if prediction is not None and prediction not in family.predictions:
        raise Refused(
            f"prediction is {prediction!r}, but {family.title} predicts {' or '.join(family.predictions)}. Give one of these, or none."
        )
    return family.load(path, dtype=dtype, device=device, base_config=base_config, prediction=prediction)
