"""Detects what a model on the disk is, with evidence, from names, shapes and configs alone: no tensor is read.

Every family gives a scored claim; the highest wins, equal ones are reported as candidates and never settled by order.
A model that no family claims is `unknown`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from registry.adapters.peft_settings import warnings_of
from registry.detect.compatibility import Fit, fits
from registry.detect.component_kinds import of_cross_attention
from registry.detect.header_metadata import MetadataFacts, metadata_facts, with_peft
from registry.detect.model_card import card_licence
from registry.detect.sidecars import with_sidecars
from registry.detect.table_facts import TableFacts, dtype_of, table_facts
from registry.detect.verdict import Verdict, apply_metadata, checkpoint_claims, verdict_of
from registry.errors import BadFile, understood
from registry.families import FAMILIES
from registry.family import Control
from registry.formats.adapter_keys import declared_dialect
from registry.formats.dialects import DENOISER
from registry.formats.diffusers_folder import is_component
from registry.formats.model_folder import CODE, folder_files, read_json, shard_faults, weights_of
from registry.formats.model_header import ModelHeader
from registry.formats.peft_config import config_beside, peft_config, peft_weights, with_config
from registry.formats.quantised.model_shapes import folder_tensors, model_header
from registry.formats.safetensors_header import read_header
from registry.record import FileEntry, Record, Warn
from registry.references import file_name
from registry.typed_values import is_of

__all__ = ["Fit", "ModelHeader", "fits", "inspect", "look", "record_of"]


# --- reading headers


def look(path: Path | str) -> ModelHeader:
    """The ModelHeader of a file or a diffusers folder. Raises BadFile."""
    path = peft_weights(Path(path))
    if path.is_dir():
        return _look_folder(path)
    header = model_header(path)
    return ModelHeader(path=path, tensors=header.tensors, metadata=header.metadata)


def _look_folder(path: Path) -> ModelHeader:
    index_path = path / "model_index.json"
    if not index_path.is_file():
        inside = next((name for name in ("pytorch_lora_weights.safetensors", "adapter_model.safetensors") if (path / name).is_file()), None)
        what = f"Name the file {inside} in it" if inside else "Name a model file or a diffusers folder"
        raise BadFile(path, "not-a-model", f"is a folder without model_index.json. {what}, or scan it.")
    index = read_json(index_path)
    configs: dict[str, Mapping[str, Any]] = {}
    for folder in sorted(entry for entry in path.iterdir() if entry.is_dir() and isinstance(index.get(entry.name), list)):
        for name in ("config.json", "scheduler_config.json"):
            if (folder / name).is_file():
                configs[folder.name] = read_json(folder / name)
    denoiser = next((name for name in ("unet", "transformer", "prior") if name in index), None)
    tensors = folder_tensors(path / denoiser) if denoiser and (path / denoiser).is_dir() else {}
    return ModelHeader(path=path, index=index, configs=configs, tensors=tensors)


# --- records


def inspect(path: Path | str) -> Record:
    """The unsaved Record of a model file or folder, from headers and configs. `id` is empty. Raises BadFile."""
    path = peft_weights(Path(path).absolute())
    with understood(path):
        if path.is_dir():
            return _inspect_folder(path)
        header = model_header(path)
        return record_of(path, header.file_bytes, header.metadata, table_facts(header.tensors, header.metadata))


def record_of(path: Path, size: int, metadata: Mapping[str, str], table: TableFacts, *, beside: Collection[str] | None = None) -> Record:
    """The unsaved Record of a single file of `size` bytes. `beside` are the names in its folder, if known."""
    facts = with_sidecars(metadata_facts(metadata), path, beside=beside)
    base: dict[str, Any] = {
        "id": "",
        "name": file_name(path),
        "files": (FileEntry(path=str(path), bytes=size),),
        "dtype": table.dtype,
        "triggers": facts.triggers,
        "licence": facts.licence,
        "parents": facts.parents,
        "metadata": facts.kept,
    }
    if table.adapter is not None:
        config = config_beside(path, beside=beside)
        facts = with_peft(facts, config)
        return _adapter({**base, "parents": facts.parents}, with_config(metadata, config), table, facts)
    return _model(base, metadata, table, facts)


def _adapter(base: dict[str, Any], metadata: Mapping[str, str], table: TableFacts, facts: MetadataFacts) -> Record:
    verdict = verdict_of(table.claims, facts)
    adapter = table.adapter
    assert adapter is not None
    if not verdict.family and not verdict.candidates and adapter.language_model:
        verdict.warnings.append(Warn(code="not-diffusion", message="This is an adapter of a language model, not of an image model."))
    alpha, source = adapter.alpha_by(metadata)
    if source:
        verdict.evidence.append(f"alpha: {source}")
    if adapter.others:
        message = (
            f"{adapter.others} of its tensors are not an adapter's ({adapter.other} is one): fusing and drawing do without them or refuse."
        )
        verdict.warnings.append(Warn(code="other-tensors", message=message))
    if adapter.doubled:
        message = f"Its keys name the UNet twice ({adapter.doubled}). They are read here; other tools may not read them: convert it."
        verdict.warnings.append(Warn(code="malformed-keys", message=message))
    if not adapter.algorithms:
        message = "Its algorithm is not supported."
        verdict.warnings.append(Warn(code="unknown-algorithm", message=message))
    verdict.warnings += [Warn(code=code, message=message) for code, message in warnings_of(peft_config(metadata))]
    kept = dict(base["metadata"])
    if len(adapter.ranks) > 1:
        kept["ranks"] = {str(rank): count for rank, count in adapter.ranks.items()}
    unet = table.unet if verdict.family is None else _denoiser_of(verdict.family) == "unet"
    names = {DENOISER: "unet" if unet else "transformer"}
    return _record(
        base,
        verdict,
        kind="adapter",
        dialect=declared_dialect(adapter.dialect, metadata),
        algorithms=adapter.algorithms,
        dora=adapter.dora,
        rank=adapter.rank,
        alpha=alpha,
        components=tuple(names.get(name, name) for name in adapter.components),
        metadata=kept,
    )


def _model(base: dict[str, Any], metadata: Mapping[str, str], table: TableFacts, facts: MetadataFacts) -> Record:
    """A single file that is no adapter: a component by its keys, else a checkpoint when a family claims it."""
    small, gguf = table.small, str(base["files"][0].path).lower().endswith(".gguf")
    if gguf and small is None and (language := _language_model(metadata)):
        return _record(base, Verdict(evidence=[language], warnings=[NOT_DIFFUSION]), kind="text_encoder", dialect="gguf")
    if small is not None:
        verdict = Verdict(variant=small.variant, evidence=list(small.evidence))
        verdict.family, verdict.candidates = (small.families[0], ()) if len(small.families) == 1 else (None, small.families)
        apply_metadata(verdict, facts)
        return _record(base, verdict, kind=small.kind, dialect=small.dialect, components=small.components)
    verdict = verdict_of(table.claims, facts)
    if not verdict.family and not verdict.candidates:
        kind = "unknown"
        if table.malformed is not None:
            message = (
                f"Its keys look like an adapter's and are malformed ({table.malformed}): a module's name and an ending such as "
                ".lora_down.weight were expected. It cannot be used; save it with other names."
            )
            kind, verdict.warnings = "adapter", [*verdict.warnings, Warn(code="malformed-keys", message=message)]
        return _record(base, verdict, kind=kind)
    components = (_denoiser_of(verdict.family) if verdict.family else DENOISER, *table.components)
    return _record(base, verdict, kind="checkpoint", dialect="gguf" if gguf else table.dialect, components=components)


def _inspect_folder(path: Path) -> Record:
    """The Record of a folder; where shards are missing or of another save, of what its configs show, with a warning."""
    faults = shard_faults(path)
    if not faults:
        return _inspect_whole(path)
    index = read_json(path / "model_index.json") if (path / "model_index.json").is_file() else {}
    verdict = verdict_of(checkpoint_claims(ModelHeader(path=path, index=index)), MetadataFacts()) if index else Verdict()
    verdict.warnings += [Warn(code=CODE, message=f"Not whole: {fault}") for fault in faults]
    return _record(_folder_base(path), verdict, kind="checkpoint" if verdict.family else "unknown", dialect="diffusers" if index else None)


def refuse_partial(path: Path) -> None:
    """Raise BadFile for a folder that lacks a shard, or has one of another save: a part would be taken for the model."""
    if path.is_dir() and (faults := shard_faults(path)):
        raise BadFile(path, CODE, "; ".join(faults))


def _inspect_whole(path: Path) -> Record:
    if not (path / "model_index.json").is_file() and (path / "config.json").is_file():
        return _inspect_component(path)
    if not (path / "model_index.json").is_file() and any(path.glob(SHARDS)):
        return _inspect_shards(path)
    seen = look(path)
    verdict = verdict_of(checkpoint_claims(seen), MetadataFacts())
    components = tuple(name for name, entry in seen.index.items() if is_component(entry) and entry[-1] is not None)
    if not seen.tensors:
        reason = "No safetensors weights of its denoiser were found in this folder."
        verdict.warnings.append(Warn(code="missing-weights", message=reason))
    kind = "checkpoint" if verdict.family or verdict.candidates or seen.tensors else "unknown"
    base = _folder_base(path)
    return _record(base, verdict, kind=kind, dialect="diffusers", dtype=dtype_of(seen.tensors), components=components)


SHARDS = "*-00001-of-*.safetensors"


def _inspect_shards(path: Path) -> Record:
    """A folder with one single-file checkpoint in shards."""
    first = next(iter(sorted(path.glob(SHARDS))))
    facts = metadata_facts(read_header(first).metadata)
    seen = ModelHeader(path=path, tensors=weights_of(path), metadata=read_header(first).metadata)
    verdict = verdict_of(checkpoint_claims(seen), facts)
    kind = "checkpoint" if verdict.family or verdict.candidates else "unknown"
    base = {**_folder_base(path), "licence": facts.licence or card_licence(path), "parents": facts.parents}
    base["metadata"] = {**facts.kept, **base["metadata"]}
    return _record(base, verdict, kind=kind, dtype=dtype_of(seen.tensors))


def _folder_base(path: Path) -> dict[str, Any]:
    files = tuple(FileEntry(path=str(file), bytes=file.stat().st_size) for file in folder_files(path))
    return {"id": "", "name": path.name, "files": files, "licence": card_licence(path), "metadata": {"root": str(path)}}


COMPONENT_KINDS = {
    "Autoencoder": "vae",
    "ControlNet": "controlnet",
    "T2IAdapter": "controlnet",
    "CLIPText": "text_encoder",
    "T5Encoder": "text_encoder",
}


def is_lone_component(folder: Path) -> bool:
    """Whether the folder's config.json names a component that is used on its own: a VAE, a ControlNet, a text encoder."""
    try:
        return _component_kind(_component_class(read_json(folder / "config.json"))) != "unknown"
    except (BadFile, OSError):  # its folder is then read file by file
        return False


def _component_class(config: Mapping[str, Any]) -> str:
    others = config.get("architectures")
    names = [config.get("_class_name"), *(others if isinstance(others, list) else [])]
    return next((str(name) for name in names if name), "")


def _component_kind(class_name: str) -> str:
    return next((kind for word, kind in COMPONENT_KINDS.items() if word in class_name), "unknown")


def _inspect_component(path: Path) -> Record:
    """One component of a diffusers folder, by the class in its config."""
    config = read_json(path / "config.json")
    name = _component_class(config)
    kind = _component_kind(name)
    verdict = Verdict(evidence=[f"config.json: {name or 'no class'}"])
    if kind == "controlnet":
        families = _steered_by(name, config.get("cross_attention_dim"))
        verdict.family, verdict.candidates = (families[0], ()) if len(families) == 1 else (None, tuple(families))
    return _record(_folder_base(path), verdict, kind=kind, dialect="diffusers", dtype=dtype_of(weights_of(path)))


def _steered_by(class_name: str, cross_width: object) -> list[str]:
    """The families of ControlNets of this class; where several share it, the one with this cross-attention width."""
    families = [name for name, family in FAMILIES.items() if isinstance(family.control, Control) and class_name in family.control.classes]
    by_width = [name for name in families if name in of_cross_attention(cross_width)]
    return by_width or families


# --- small facts


def _record(base: dict[str, Any], verdict: Verdict, **values: Any) -> Record:
    record = Record(
        **{
            **base,
            "family": verdict.family,
            "variant": verdict.variant,
            "prediction": verdict.prediction,
            "evidence": tuple(verdict.evidence),
            "candidates": verdict.candidates,
            "warnings": tuple(verdict.warnings),
            **values,
        }
    )
    if not is_of(record, Record):  # the index holds no other: it takes them for damage
        raise BadFile(
            str(record.path), "unknown-format", "could not be understood: its metadata has values of other types than they should."
        )
    return record


def _denoiser_of(family: str) -> str:
    return FAMILIES[family].denoiser if family in FAMILIES else "transformer"  # every family with a UNet is loaded


NOT_DIFFUSION = Warn(code="not-diffusion", message="This is a language model: only usable as a family's text encoder.")
LANGUAGE_MODELS = ("llama", "qwen2", "qwen2vl", "qwen3", "gemma", "gemma2", "gemma3", "mistral", "t5", "t5encoder", "phi3")


def _language_model(metadata: Mapping[str, str]) -> str | None:
    """Evidence that a GGUF file is a language model or a text encoder; None for others."""
    architecture = metadata.get("general.architecture", "").lower()
    return f"general.architecture {architecture!r}" if architecture in LANGUAGE_MODELS else None
