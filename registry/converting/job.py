"""A conversion as a job: the source is found, the conversion is chosen by its kind and the target, the result is registered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from registry.converting.adapters import AdapterConversion
from registry.converting.casting import DtypeConversion
from registry.converting.pickles import PickleConversion, is_pickle
from registry.converting.request import FORMS, ConversionPlan, ConversionResult, ConvertRequest
from registry.converting.to_file import SingleFileConversion
from registry.converting.to_folder import FolderConversion
from registry.detect.loading import prediction_override
from registry.errors import Faults, Refused
from registry.formats.dialects import DIALECTS, writable
from registry.formats.hashing import hash_file
from registry.formats.model_folder import weight_files
from registry.formats.peft_config import CONFIG
from registry.home import expanded
from registry.index.written import add_written, writing_output
from registry.merging.plan import name_faults, output_faults
from registry.names import suggest
from registry.printable import as_lines
from registry.progress import Report, silent
from registry.record import FileEntry, Hashes, Record
from registry.references import absolute, looks_like_path, without_alias, without_blank
from registry.tensors.layout import quantised, read_layout

if TYPE_CHECKING:
    from registry.store import Store

__all__ = ["ConvertPlan", "ConvertRequest", "Converted", "plan_convert", "run_convert"]


@dataclass(frozen=True, kw_only=True)
class ConvertPlan:
    """A conversion that can be run."""

    request: ConvertRequest
    record: Record
    name: str
    conversion: ConversionPlan

    @property
    def notes(self) -> list[str]:
        return list(self.conversion.notes)

    def to_json(self) -> dict[str, Any]:
        """Plain values with stable keys."""
        return {
            "source": str(self.record.path),
            "output": str(self.request.output),
            "to": self.request.target,
            "kind": self.record.kind,
            "family": self.conversion.family,
            **self.conversion.facts,
            "name": self.name if self.request.register else None,
            "notes": self.notes,
        }

    def to_text(self) -> str:
        """The plan for a person."""
        facts = ", ".join(f"{name} {value}" for name, value in self.conversion.facts.items() if value not in (None, 0, []))
        lines = [
            f"{self.record.name} ({self.conversion.family or 'family unknown'}) to {self.request.target}: {self.request.output}",
            f"  {facts}",
        ]
        return as_lines([*lines, *(f"note: {note}" for note in self.notes)])


@dataclass(frozen=True, kw_only=True)
class Converted:
    """A finished conversion: plain values, notes, and its Record where it was registered."""

    result: Mapping[str, Any]
    notes: Sequence[str] = ()
    record: Record | None = None


def plan_convert(request: ConvertRequest, store: Store) -> ConvertPlan:
    """Everything checked, nothing written. Raises Refused."""
    if request.target not in (*writable(), *FORMS):
        raise Refused(f"Cannot convert to {request.target!r}. {suggest(request.target, (*writable(), *FORMS))}")
    record = _found(request, store)
    folder = request.target == "folder" or (_is_folder_dialect(request.target) and request.output.suffix != ".safetensors")
    why = f"--to {request.target} writes a {'folder' if folder else 'single file'}"
    faults = output_faults(request.output, [Path(str(record.path))], folder=folder, why=why)
    faults += name_faults(request.name) if request.name else []
    if faults:
        raise Faults("This conversion was not started:", faults)
    base = Path(str(store.find(request.base, kind="checkpoint").path)) if request.base else None
    return ConvertPlan(request=request, record=record, name=_name(request, record), conversion=_conversion(request, record, base))


def _is_folder_dialect(target: str) -> bool:
    writing = DIALECTS[target].writing if target in DIALECTS else None
    return writing is not None and writing.folder


def _conversion(request: ConvertRequest, record: Record, base: Path | None) -> ConversionPlan:
    """The conversion from this record to the target."""
    path = Path(str(record.path))
    if request.family is None and record.family is None and record.candidates:
        raise Refused(f"{path.name} may be for {' or '.join(record.candidates)}; nothing in it decides. Give --family NAME")
    if record.dialect == "pickle":
        if request.target != "safetensors":
            raise Refused(f"{path.name} is a pickle. Convert it to safetensors first: --to safetensors --output FILE.safetensors")
        return PickleConversion(path, request)
    if record.dialect == "gguf":
        raise Refused(
            f"{path.name} is a GGUF file, whose weights are rounded in blocks of a few bits. Convert the safetensors file it was made from."
        )
    if request.target in writable():
        if record.kind not in ("adapter", "unknown"):
            raise Refused(f"{request.reference} is of kind {record.kind}; {request.target} is a form of adapters.")
        return AdapterConversion.of(path, request, family=request.family or record.family, base=base)
    family = request.family or record.family
    if request.target == "safetensors":
        return DtypeConversion.of(path, request, family=family, kind=record.kind)
    if record.kind not in ("checkpoint", "unknown"):
        raise Refused(f"{request.reference} is of kind {record.kind}; {request.target} is a form of checkpoints.")
    if (strange := quantised(read_layout(path).tensors)) is not None:
        raise Refused(
            f"{path.name} is quantised ({strange}): in other names its weights would lose their scales. Convert its bf16 or fp16 version."
        )
    if request.target == "single-file":
        return SingleFileConversion.of(path, request, family=family, prediction=prediction_override(record))
    return FolderConversion.of(path, request, family=family, base=base, prediction=prediction_override(record))


def _found(request: ConvertRequest, store: Store) -> Record:
    """The source's Record; a peft folder is its weights, a pickle has a Record of its path alone."""
    path = expanded(request.reference)
    if looks_like_path(request.reference) and path.is_dir() and (path / CONFIG).is_file():
        weights = weight_files(path)
        if not weights:
            raise Refused(f"{path} is a peft folder without safetensors weights. Name a folder with adapter_model.safetensors.")
        return store.find(str(weights[0].absolute()))
    if path.is_file() and is_pickle(path):
        file = absolute(path)
        return Record(
            id="", name=file.stem, kind="unknown", dialect="pickle", files=(FileEntry(path=str(file), bytes=file.stat().st_size),)
        )
    return store.find(request.reference)


def _name(request: ConvertRequest, record: Record) -> str:
    """The registered name: the one given, else the output's, with the form behind it where the source has that name."""
    stem = request.output.stem if request.output.suffix else request.output.name
    taken = bool(record.id) and stem == without_alias(record.name)
    return request.name or (f"{stem}-{request.target}" if taken else stem)


def run_convert(plan: ConvertPlan, store: Store, *, report: Report = silent) -> Converted:
    """Write, prove and register. Raises JobFailed with nothing left behind."""
    began = monotonic()
    path = Path(str(plan.record.path))
    sha256 = store.sha256(plan.record, report=report) if plan.record.dialect != "pickle" else str(hash_file(path, report=report)[0].sha256)
    source = {"role": "source", "ref": path.stem, "sha256": sha256}
    kept = [dict(parent) for parent in plan.record.parents if parent.get("role") == "base"]
    with writing_output(plan.request.output, store, register=plan.request.register):
        written = plan.conversion.write(parents=[*kept, source], report=report)
        parents = [*kept, *map(dict, written.parents), {**source, "ref": plan.record.name}]
        record = _registered(plan, store, written, parents, sha256, report) if plan.request.register else None
    hashes = written.hashes or (record.hashes if record is not None else Hashes())
    notes = [*plan.notes, *written.notes]
    result = {
        **plan.to_json(),
        **written.facts,
        "notes": notes,
        "file": str(written.file),
        "sha256": hashes.sha256,
        "tensors_sha256": hashes.tensors_sha256,
        "content_sha256": hashes.content_sha256,
        "seconds": round(monotonic() - began, 3),
    }
    if record is not None:
        result |= {"kind": record.kind, "family": record.family}
    return Converted(result=result, notes=notes, record=record)


def _registered(
    plan: ConvertPlan, store: Store, written: ConversionResult, parents: list[dict[str, Any]], sha256: str, report: Report
) -> Record:
    record = plan.record
    return add_written(
        store,
        written.file,
        sha256=written.sha256 or (written.hashes.sha256 if written.hashes is not None else None),
        name=plan.name,
        family=plan.conversion.family,
        parents=parents,
        recipe={
            "tool": "convert",
            "to": plan.request.target,
            "dtype": plan.request.dtype,
            "source": {"ref": record.name, "sha256": sha256},
        },
        licence=record.licence,
        triggers=without_blank(record.triggers),
        report=report,
    )
