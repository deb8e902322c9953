"""A base model from its reference to Parts: detection finds the family, the family loads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from registry.detect.inspect import refuse_partial
from registry.detect.other_families import DETECT_ONLY
from registry.errors import FamilyMismatch, NotFound, Refused, understood
from registry.families import FAMILIES
from registry.family import Family
from registry.parts import Parts
from registry.quantised.layers import Quantisation
from registry.record import OVERRIDDEN, Record

if TYPE_CHECKING:
    import torch

    from registry.store import Store


def known_family(name: str | None, path: Path) -> Family:
    """The family of this name. Raises Refused where none is known or it is not one we load, UnknownName for a typing error."""
    if name is None:
        raise Refused(f"It is not known which family {path.name} is of. Say it: --family NAME ({', '.join(sorted(FAMILIES))}).")
    if name not in FAMILIES and any(row.family == name for row in DETECT_ONLY):
        raise Refused(f"Models of {name} are recognised but not converted; families are {', '.join(sorted(FAMILIES))}.")
    return FAMILIES[name]


def family_of(record: Record) -> Family:
    """The family that loads a checkpoint; refused with the reasons when it is none, or none that we load."""
    if record.kind not in ("checkpoint", "unknown"):
        raise Refused(f"{record.name} is of kind {record.kind}, but a base is a checkpoint: a diffusers folder or a single file.")
    if record.family is not None and record.family in FAMILIES:
        return FAMILIES[record.family]
    loadable = ", ".join(sorted(FAMILIES))
    if record.family is not None:
        raise FamilyMismatch(f"{record.name} is a {record.family} model, which is detected but not loaded. Loadable families: {loadable}.")
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
    base_dtype: str | None = None,
    text_encoder_dtype: str | None = None,
    store: Store | None = None,
) -> tuple[Family, Parts]:
    """The family and the loaded Parts of a Record, a reference or a path, every weight in `dtype`, in eval mode, with no network.

    `base_config` is a diffusers folder of the same build, for single files that need its configs or tokenizers. `prediction` (epsilon,
    v_prediction) overrides what the record or its files declare. `base_dtype` and `text_encoder_dtype` (int8, fp8, nf4, nf4-dq) are what
    the linear layers are kept in. A reference is looked up in `store` (None: the home's own). Raises NotFound, FamilyMismatch, Refused.
    """
    if not isinstance(base, Record):
        from registry.store import Store

        base = (store or Store()).find(str(base))
    family = family_of(base)
    if base.path is None:
        raise NotFound(f"{base.name} is registered, but none of its files is known to this machine. Scan its folder again.")
    override = prediction or prediction_override(base)
    return family, load_family(
        family,
        Path(base.path),
        dtype=dtype,
        device=device,
        base_config=base_config,
        prediction=override,
        base_dtype=base_dtype,
        text_encoder_dtype=text_encoder_dtype,
    )


def prediction_override(record: Record) -> str | None:
    """The prediction override of a record; None where there is none."""
    return record.prediction.value if record.prediction.source == OVERRIDDEN else None


def load_family(
    family: Family,
    path: Path,
    *,
    dtype: torch.dtype,
    device: torch.device | str,
    base_config: Path | str | None,
    prediction: str | None,
    base_dtype: str | None = None,
    text_encoder_dtype: str | None = None,
) -> Parts:
    """The Parts of a path with a prediction override (None: none). Raises Refused where the family has no such prediction."""
    if prediction is not None and prediction not in family.predictions:
        raise Refused(
            f"prediction is {prediction!r}, but {family.title} predicts {' or '.join(family.predictions)}. Give one of these, or none."
        )
    refuse_partial(path)
    with understood(path, "wrong-config", "Are its config files and weights of one build? Copy it again."):
        if base_dtype is None and text_encoder_dtype is None:
            return family.load(path, dtype=dtype, device=device, base_config=base_config, prediction=prediction)
        quantised = Quantisation(denoiser=base_dtype, text_encoders=text_encoder_dtype, layers=family.quantised)
        return family.load(path, dtype=dtype, device=device, base_config=base_config, prediction=prediction, quantised=quantised)
