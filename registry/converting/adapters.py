"""An adapter in another dialect: planned whole, written, read back and compared with its source before it is kept."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from registry.adapters.reader import Adapter, read_adapter
from registry.adapters.understood import refuse_unconvertible
from registry.adapters.writer import adapter_tensors, write_adapter
from registry.converting.adapter_layers import AdapterLayer, adapter_layers
from registry.converting.proof import prove
from registry.converting.request import ConversionResult, ConvertRequest
from registry.converting.respelling import Respelled, respelled
from registry.detect.loading import known_family
from registry.errors import Refused
from registry.families import Family
from registry.formats.atomic_file import atomic_folder, proven_file, write_json
from registry.formats.dialects import Writing, writing_of
from registry.formats.peft_config import CONFIG
from registry.merging.recipe import DTYPES
from registry.printable import counted
from registry.progress import Report, silent

OWN_TO_THE_FORM = (  # metadata about the source's form or bytes
    "lora_adapter_metadata",
    "sshs_model_hash",
    "sshs_legacy_hash",
    "modelspec.hash_sha256",
    "modelspec.implementation",
    "loraloom.parents",
)
FILE = "adapter_model.safetensors"  # of a peft folder


@dataclass(frozen=True, kw_only=True)
class AdapterPlan:
    """A conversion of an adapter that can be run."""

    adapter: Adapter
    family: Family
    source: str  # dialect it has
    target: str
    base: Path | None
    output: Path
    folder: bool
    dtype: str | None  # a safetensors word; None: as it is
    units: tuple[AdapterLayer, ...]
    spelled: Respelled
    tensors: int  # of the result
    notes: tuple[str, ...]

    def counts(self) -> dict[str, int]:
        """Modules of the source, layers fused and split, tensors of the result."""
        return {
            "modules": len(self.units),
            "fused": self.spelled.fused,
            "split": self.spelled.split,
            "tensors": self.tensors,
        }

    @property
    def writing(self) -> Writing:
        """How the target is written."""
        return writing_of(self.target)


def plan_adapter(
    path: Path,
    output: Path,
    *,
    target: str,
    family: str | None,
    base: Path | None,
    dtype: str | None,
) -> AdapterPlan:
    """Everything checked, nothing written. Raises Refused."""
    adapter, writing = read_adapter(path), writing_of(target)
    refuse_unconvertible(adapter)
    folder = writing.folder and output.suffix != ".safetensors"
    if not folder and output.suffix != ".safetensors":
        raise Refused(f"--output {output.name} must end in .safetensors.")
    known = _family(adapter, family, target)
    if dtype is not None and DTYPES.get(dtype) not in ("F32", "F16", "BF16"):
        raise Refused(f"--dtype {dtype} is not for adapters. Give fp32, fp16 or bf16.")
    units = adapter_layers(adapter, known.adapter_names, base=base)
    if adapter.left:
        raise Refused(
            f"{adapter.path.name}: {len(adapter.left)} of its tensors belong to no module ({adapter.left[0]}); they would be lost."
        )
    components = sorted({unit.component for unit in units})
    if writing.one_component and len(components) > 1:
        raise Refused(
            f"{adapter.path.name} changes {', '.join(components)}; {target}'s form is of one model. "
            "Convert to diffusers, which holds them all."
        )
    spelled = respelled(units, known, target)
    tensors = adapter_tensors(spelled.modules, writing, dtype=DTYPES[dtype] if dtype is not None else None)
    notes: list[str] = []
    if spelled.scaled:
        notes.append(
            f"alpha / rank of {counted(spelled.scaled, 'module')} is multiplied into their factors, and alpha is their rank: "
            "readers that do not know the alpha in the header apply them as strongly."
        )
    if spelled.empty:
        notes.append(
            f"left out: {counted(len(spelled.empty), 'module')} of fused layers that nothing changes, the first: {spelled.empty[0]}"
        )
    if writing.dora_note and any("dora" in unit.source.roles for unit in units):
        notes.append(writing.dora_note)
    if writing.file_note and not folder:
        notes.append(writing.file_note)
    return AdapterPlan(
        adapter=adapter,
        family=known,
        source=adapter.dialect,
        target=target,
        base=base,
        output=output,
        folder=folder,
        dtype=DTYPES[dtype] if dtype is not None else None,
        units=tuple(units),
        spelled=spelled,
        tensors=len(tensors),
        notes=tuple(notes),
    )


def _family(adapter: Adapter, family: str | None, target: str) -> Family:
    known = known_family(family, adapter.path)
    if writing_of(target).original and known.adapter_names is None:
        raise Refused(
            f"How {target}'s tools spell adapters of {known.title} is not known here. Convert to diffusers, which ComfyUI may read."
        )
    return known


# --- writing


@dataclass(frozen=True)
class AdapterConversion:
    """An adapter in another dialect."""

    plan: AdapterPlan

    @classmethod
    def of(cls, path: Path, request: ConvertRequest, *, family: str | None, base: Path | None) -> AdapterConversion:
        """The conversion of a file. Raises Refused."""
        return cls(plan_adapter(path, request.output, target=request.target, family=family, base=base, dtype=request.dtype))

    @property
    def family(self) -> str:
        return self.plan.family.name

    @property
    def facts(self) -> dict[str, Any]:
        return {"from": self.plan.source, "dtype": self.plan.dtype or self.plan.adapter.dtype, **self.plan.counts()}

    @property
    def notes(self) -> tuple[str, ...]:
        return self.plan.notes

    def write(self, *, parents: Sequence[Mapping[str, Any]], report: Report) -> ConversionResult:
        return write_planned(self.plan, parents=parents, report=report)


def write_planned(plan: AdapterPlan, *, parents: Sequence[Mapping[str, Any]], report: Report = silent) -> ConversionResult:
    """Write what was planned. Raises JobFailed with nothing left behind where the result is not the source's equal."""
    metadata = metadata_of(plan, parents)
    if plan.folder:
        with atomic_folder(plan.output) as temporary:
            hashes = write_adapter(temporary / FILE, plan.spelled.modules, plan.writing, metadata=metadata, dtype=plan.dtype)
            write_json(temporary / CONFIG, peft_settings(plan.spelled.settings))
            difference = _proven(plan, temporary / FILE, report)
        file = plan.output / FILE
    else:
        with proven_file(plan.output) as temporary:
            hashes = write_adapter(temporary, plan.spelled.modules, plan.writing, metadata=metadata, dtype=plan.dtype)
            difference = _proven(plan, temporary, report)
        file = plan.output
    return ConversionResult(file=file, hashes=hashes, facts={"difference": difference})


def _proven(plan: AdapterPlan, path: Path, report: Report) -> float:
    plan.units[0].source.maps.check()
    return prove(plan.units, adapter_layers(read_adapter(path), plan.family.adapter_names, base=plan.base), dtype=plan.dtype, report=report)


def metadata_of(plan: AdapterPlan, parents: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The source's metadata without those about its form, and those that readers of the target dialect need."""
    names = plan.family.adapter_names
    kept = {key: value for key, value in plan.adapter.metadata.items() if key not in OWN_TO_THE_FORM}
    kept.setdefault("format", "pt")
    kept.setdefault("modelspec.sai_model_spec", "1.0.1")
    if isinstance(plan.family.architecture, str):  # in a family whose builds differ, the base has it
        kept.setdefault("modelspec.architecture", f"{plan.family.architecture}/lora")
    kept.setdefault("modelspec.title", plan.adapter.path.stem)
    kept["modelspec.implementation"] = plan.writing.implementation
    kept["loraloom.parents"] = json.dumps(list(parents), sort_keys=True, ensure_ascii=False)
    writing = plan.writing
    if plan.spelled.ranks and ("ss_network_dim" in kept or writing.network_module):
        kept |= {"ss_network_dim": _one(plan.spelled.ranks), "ss_network_alpha": _one(plan.spelled.alphas)}
    if writing.network_module:
        kept.setdefault("ss_network_module", writing.network_module)
        if names is not None:
            version = {"ss_base_model_version": names.base_version} if names.base_version else {}
            kept = {**names.metadata, **version, **kept}
    if kept.get("ss_network_module", "").startswith("lycoris") and not writing.lycoris:
        del kept["ss_network_module"]  # its LoRA without LyCORIS's form
    if writing.alpha is None:
        kept["lora_adapter_metadata"] = json.dumps(plan.spelled.settings, indent=2, sort_keys=True)
    return kept


def _one(values: set[int] | set[float]) -> str:
    """The one value of all modules, or kohya's word for several."""
    return f"{next(iter(values)):g}" if len(values) == 1 else "Dynamic"


def peft_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """adapter_config.json of the one component there is."""
    own = {name.partition(".")[2]: value for name, value in settings.items()}
    return {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": None,
        "inference_mode": True,
        "bias": "none",
        "lora_dropout": 0.0,
        "use_rslora": False,
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        **own,
    }
