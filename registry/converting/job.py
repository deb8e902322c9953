"""A conversion as a job: what was named is found, the way is chosen by what it is and what it shall become, the result is registered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.converting.adapters import DIALECTS, AdapterPlan, plan_adapter, write_adapter
from registry.errors import Faults, Refused
from registry.folder import weight_files
from registry.merging.lora.adapter import CONFIG
from registry.merging.plan import name_faults, output_faults
from registry.progress import Report, silent
from registry.record import Record
from registry.references import looks_like_path

if TYPE_CHECKING:
    from registry.store import Store

TARGETS = (*DIALECTS,)


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What is asked for: a reference, the form it shall have, and where."""

    reference: str
    target: str
    output: Path
    base: str | None = None
    family: str | None = None
    dtype: str | None = None
    name: str | None = None
    register: bool = True


@dataclass(frozen=True, kw_only=True)
class ConvertPlan:
    """A conversion that can be run: `facts` are the plan in plain values."""

    wish: Wish
    record: Record
    name: str
    facts: Mapping[str, Any]
    notes: tuple[str, ...]
    adapter: AdapterPlan

    def to_json(self) -> dict[str, Any]:
        """Plain values with stable keys."""
        return {
            "source": str(self.record.path),
            "output": str(self.wish.output),
            "to": self.wish.target,
            "kind": self.record.kind,
            "family": self.record.family,
            **self.facts,
            "name": self.name if self.wish.register else None,
            "notes": list(self.notes),
        }

    def to_text(self) -> str:
        """The plan for a person."""
        told = ", ".join(f"{name} {value}" for name, value in self.facts.items() if value not in (None, 0))
        lines = [f"{self.record.name} ({self.record.family or 'family unknown'}) to {self.wish.target}: {self.wish.output}", f"  {told}"]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


@dataclass(frozen=True, kw_only=True)
class Converted:
    """What a conversion left: the numbers for machines, and its Record where it was registered."""

    result: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    record: Record | None = field(default=None)


def plan_convert(wish: Wish, store: Store) -> ConvertPlan:
    """Everything checked, nothing written. Raises Refused."""
    record = _found(wish, store)
    faults = output_faults(wish.output, [Path(str(record.path))], folder=wish.output.suffix != ".safetensors")
    faults += name_faults(wish.name) if wish.name else []
    if faults:
        raise Faults("This conversion was not started:", faults)
    if record.kind not in ("adapter", "unknown"):
        raise Refused(f"{wish.reference} is of kind {record.kind}; only adapters have the form {wish.target}.")
    base = Path(str(store.find(wish.base, kind="checkpoint").path)) if wish.base else None
    plan = plan_adapter(
        Path(str(record.path)), wish.output, target=wish.target, family=wish.family or record.family, base=base, dtype=wish.dtype
    )
    facts = {"from": plan.source, "dtype": plan.dtype or plan.adapter.dtype, **plan.counts()}
    return ConvertPlan(wish=wish, record=record, name=_name(wish, record, store), facts=facts, notes=plan.notes, adapter=plan)


def _found(wish: Wish, store: Store) -> Record:
    """The Record that is meant; a peft folder is its weights."""
    path = Path(wish.reference).expanduser()
    if looks_like_path(wish.reference) and path.is_dir() and (path / CONFIG).is_file():
        weights = weight_files(path)
        if not weights:
            raise Refused(f"{path} is a peft folder without safetensors weights. Name a folder with adapter_model.safetensors.")
        return store.find(str(weights[0].absolute()))
    return store.find(wish.reference)


def _name(wish: Wish, record: Record, store: Store) -> str:
    """The registered name: the one given, else the output's, with the form behind it where the source has that name."""
    stem = wish.output.stem if wish.output.suffix else wish.output.name
    return wish.name or (f"{stem}-{wish.target}" if stem == record.name.partition("@")[0] else stem)


def run_convert(plan: ConvertPlan, store: Store, *, report: Report = silent) -> Converted:
    """Write, prove and register. Raises JobFailed with nothing left behind."""
    sha256 = store.sha256(plan.record, report=report)
    source = {"role": "source", "ref": Path(str(plan.record.path)).stem, "sha256": sha256}
    kept = [dict(parent) for parent in plan.record.parents if parent.get("role") == "base"]
    written = write_adapter(plan.adapter, parents=[*kept, source], report=report)
    record = None
    if plan.wish.register:
        record = store.add(
            written.file,
            name=plan.name,
            kind="adapter",
            family=plan.adapter.family.name,
            parents=[*kept, {**source, "ref": plan.record.name}],
            recipe={
                "tool": "convert",
                "to": plan.wish.target,
                "dtype": plan.wish.dtype,
                "source": {"ref": plan.record.name, "sha256": sha256},
            },
            licence=plan.record.licence,
            triggers=plan.record.triggers,
            report=report,
        )
    result = {
        **plan.to_json(),
        "file": str(written.file),
        "sha256": written.hashes.sha256,
        "tensors_sha256": written.hashes.tensors_sha256,
        "content_sha256": written.hashes.content_sha256,
        "difference": written.difference,
        "seconds": round(written.seconds, 3),
    }
    return Converted(result=result, notes=plan.notes, record=record)
