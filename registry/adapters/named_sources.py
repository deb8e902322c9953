"""The adapters and checkpoints that a command names, found and read; all faults are collected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.adapters.reader import Adapter, read_adapter
from registry.adapters.understood import adapter_faults
from registry.errors import LoomError
from registry.formats.peft_config import peft_weights
from registry.home import expanded
from registry.merging.plan import name_faults, output_faults
from registry.record import Record
from registry.references import looks_like_path
from registry.tensors.finite import number_faults
from registry.tensors.layout import Layout, quantised, read_layout

if TYPE_CHECKING:
    from registry.references import Weighted
    from registry.store import Store


@dataclass(frozen=True)
class NamedAdapter:
    """An adapter that a command names: its Record, its modules, its weight."""

    record: Record
    adapter: Adapter
    weight: float
    reference: str = ""  # as it was given; a run's checkpoint by its own name


def find_adapters(references: Sequence[Weighted], store: Store, faults: list[str]) -> list[NamedAdapter]:
    """The adapters of these references, a run's checkpoints by `name@step-*`, a sweep's by `name@key=*`; faults are collected."""
    found = []
    for one in references:
        try:
            for record in store.expand(weights_named(one.reference), expected="adapter"):
                if record.kind not in ("adapter", "unknown"):
                    advice = " Checkpoints are merged by `loraloom merge`." if record.kind == "checkpoint" else ""
                    faults.append(f"{one.reference} is of kind {record.kind}; an adapter was expected.{advice}")
                    continue
                own = record.name if "@" in one.reference and "*" in one.reference else weights_named(one.reference)
                found.append(NamedAdapter(record, read_adapter(str(record.path)), one.weight, own))
        except LoomError as error:
            faults.append(str(error))
    families = {given.record.family for given in found if given.record.family}
    if len(families) > 1:
        found_families = ", ".join(f"{given.record.name} is {given.record.family or 'unknown'}" for given in found)
        faults.append(f"the adapters are of different families: {found_families}. Only adapters of one family can be combined.")
    return found


def weights_named(reference: str) -> str:
    """A folder that peft saved is its weights; any other reference is itself."""
    path = expanded(reference)
    inside = peft_weights(path)
    return reference if inside == path else str(inside)


def understood_faults(given: Sequence[NamedAdapter]) -> list[str]:
    """What of the adapters would be lost, whatever they are applied to, and numbers of theirs that are none."""
    return [f"{one.record.name}: {fault}" for one in given for fault in (*adapter_faults(one.adapter), *number_faults(one.adapter.path))]


def family_faults(base: Record, given: Sequence[NamedAdapter]) -> list[str]:
    """Adapters that were made for another family than the base's, where both are known."""
    return [
        f"{one.record.name} is for {one.record.family}, and {base.name} is {base.family}. Pick a {one.record.family} base."
        for one in given
        if one.record.family and base.family and one.record.family != base.family
    ]


def find_checkpoint(
    reference: str, store: Store, faults: list[str], *, expected: str = "a checkpoint was expected."
) -> tuple[Record, Layout] | None:
    """A checkpoint's Record and layout; None after a fault was added."""
    try:
        record = store.find(reference, expected="checkpoint")
        if record.kind in ("adapter", "embedding", "dataset", "run"):
            faults.append(f"{reference} is of kind {record.kind}; {expected}")
            return None
        layout = read_layout(str(record.path))
        if strange := quantised(layout.tensors):
            faults.append(
                f"{reference} is quantised ({strange}); a change of its numbers would be rounded away. Use its fp16 or bf16 version."
            )
        return record, layout
    except LoomError as error:
        faults.append(str(error))
        return None


def place_faults(output: Path, name: str | None) -> list[str]:
    """What is wrong with where an adapter would be written, and what it would be called."""
    return [*output_faults(output, [], folder=False, why="an adapter is a single file"), *name_faults(name or output.stem)]


def source_entries(records: Sequence[Record], references: Sequence[str], store: Store) -> list[dict[str, Any]]:
    """The sources as a recipe keeps them: reference, name, sha256."""
    return [
        {
            "ref": str(record.path) if looks_like_path(ref) or store.lasting(ref) != ref else ref,
            "name": record.name,
            "sha256": store.sha256(record),
        }
        for record, ref in zip(records, references, strict=True)
    ]
