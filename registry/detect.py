"""Says what a model on the disk is, with reasons, from names, shapes and configs alone: no tensor is read.

Every family gives a scored claim; the highest wins, equal ones are reported as candidates and never settled by order.
What nothing claims is kept as unknown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from registry import known
from registry.adapter_facts import adapter_facts
from registry.errors import BadFile
from registry.families import FAMILIES
from registry.families.base import Look, Match
from registry.fits import Fit, fits
from registry.folder import folder_files, read_json, weights_of
from registry.formats.adapter_keys import DENOISER, AdapterKey, adapter_keys, dialect_of, is_language_model
from registry.gguf import read_gguf
from registry.header import DTYPE_BITS, Header, TensorInfo, read_header
from registry.kinds import kind_by_keys
from registry.model_metadata import MetadataFacts, metadata_facts
from registry.record import FileEntry, Prediction, Record, Warn
from registry.sidecars import with_sidecars

__all__ = ["Fit", "Look", "fits", "inspect", "look"]

GGUF_BITS = 5  # an element, about, of a quantised type: enough to see which dtype has the most bytes
TIE = 0.02  # claims closer than this are a tie
UNETS = ("sd1", "sd2", "sdxl", "sdxl_refiner")  # families we may only know whose trained network is a UNet

DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "I8": "int8",
    "U8": "uint8",
}


@dataclass(frozen=True)
class Claim:
    """A family's Match under its name."""

    family: str
    match: Match


@dataclass
class Verdict:
    """What the claims come to: a family or candidates, with the evidence told."""

    family: str | None = None
    variant: str | None = None
    prediction: Prediction = field(default_factory=Prediction)
    evidence: list[str] = field(default_factory=list)
    candidates: tuple[str, ...] = ()
    warnings: list[Warn] = field(default_factory=list)


# --- looking


def look(path: Path | str) -> Look:
    """What detection sees of a file or a diffusers folder. Raises BadFile."""
    path = Path(path)
    if path.is_dir():
        return _look_folder(path)
    header = _header_of(path)
    return Look(path=path, tensors=header.tensors, metadata=header.metadata)


def _header_of(path: Path) -> Header:
    """The header of a single file: safetensors, or GGUF by its name or first bytes."""
    if path.suffix.lower() == ".gguf":
        return read_gguf(path)
    return read_header(path)


def _look_folder(path: Path) -> Look:
    index_path = path / "model_index.json"
    if not index_path.is_file():
        raise BadFile(path, "not-a-model", "is a folder without model_index.json. Name a model file or a diffusers folder, or scan it.")
    index = read_json(index_path)
    configs: dict[str, Mapping[str, Any]] = {}
    for component, entry in index.items():
        folder = path / component
        if not isinstance(entry, list) or "/" in component or component.startswith("."):
            continue
        for name in ("config.json", "scheduler_config.json"):
            if (folder / name).is_file():
                configs[component] = read_json(folder / name)
    denoiser = next((name for name in ("unet", "transformer", "prior") if name in index), None)
    tensors = weights_of(path / denoiser) if denoiser and (path / denoiser).is_dir() else {}
    return Look(path=path, index=index, configs=configs, tensors=tensors)


# --- judging


def inspect(path: Path | str) -> Record:
    """The unsaved Record of a model file or folder, from headers and configs. `id` is empty. Raises BadFile."""
    path = Path(path).absolute()
    if path.is_dir():
        return _inspect_folder(path)
    return inspect_header(path, _header_of(path))


def inspect_header(path: Path, header: Header) -> Record:
    """The unsaved Record of a single file whose header is at hand."""
    seen = Look(path=path, tensors=header.tensors, metadata=header.metadata)
    facts = with_sidecars(metadata_facts(header.metadata), path)
    keys = adapter_keys(header.tensors)
    base: dict[str, Any] = {
        "id": "",
        "name": path.stem,
        "files": (FileEntry(path=str(path), bytes=header.file_bytes),),
        "dtype": _dtype(header.tensors),
        "triggers": facts.triggers,
        "licence": facts.licence,
        "parents": facts.parents,
        "metadata": facts.kept,
    }
    if keys is not None:
        return _adapter(base, seen, keys, facts)
    return _model(base, seen, facts)


def _adapter(base: dict[str, Any], seen: Look, keys: Mapping[str, AdapterKey], facts: MetadataFacts) -> Record:
    verdict = _verdict(_adapter_claims(seen, keys), facts)
    told = adapter_facts(keys, seen.tensors, seen.metadata)
    if not verdict.family and not verdict.candidates and is_language_model(keys):
        verdict.warnings.append(Warn(code="not-diffusion", message="This is an adapter of a language model, not of an image model."))
    if told.alpha_source:
        verdict.evidence.append(f"alpha: {told.alpha_source}")
    metadata = dict(base["metadata"])
    if len(told.ranks) > 1:
        metadata["ranks"] = {str(rank): count for rank, count in told.ranks.items()}
    denoiser = _denoiser(verdict.family, keys)
    return _record(
        base,
        verdict,
        kind="adapter",
        dialect=dialect_of(keys, seen.metadata),
        algorithms=told.algorithms,
        dora=told.dora,
        rank=told.rank,
        alpha=told.alpha,
        components=tuple(denoiser if name == DENOISER else name for name in told.components),
        metadata=metadata,
    )


def _model(base: dict[str, Any], seen: Look, facts: MetadataFacts) -> Record:
    """A single file that is no adapter: by its keys one of the small kinds, else a checkpoint when a family claims it."""
    small = kind_by_keys(seen.tensors)
    if seen.path.suffix.lower() == ".gguf" and small is None and (language := _language_model(seen.metadata)):
        return _record(base, Verdict(evidence=[language], warnings=[NOT_DIFFUSION]), kind="text_encoder", dialect="gguf")
    if small is not None:
        verdict = Verdict(variant=small.variant, evidence=list(small.evidence))
        verdict.family, verdict.candidates = (small.families[0], ()) if len(small.families) == 1 else (None, small.families)
        _hear_metadata(verdict, facts)
        return _record(base, verdict, kind=small.kind, dialect=small.dialect, components=small.components)
    verdict = _verdict(_checkpoint_claims(seen), facts)
    if not verdict.family and not verdict.candidates:
        return _record(base, verdict, kind="unknown")
    components, dialect = _single_file(seen, verdict.family)
    return _record(base, verdict, kind="checkpoint", dialect=dialect, components=components)


def _inspect_folder(path: Path) -> Record:
    if not (path / "model_index.json").is_file() and (path / "config.json").is_file():
        return _inspect_component(path)
    seen = look(path)
    verdict = _verdict(_checkpoint_claims(seen), MetadataFacts())
    components = tuple(name for name, entry in seen.index.items() if isinstance(entry, list) and entry and entry[-1] is not None)
    if not seen.tensors:
        reason = "No safetensors weights of its denoiser were found in this folder."
        verdict.warnings.append(Warn(code="missing-weights", message=reason))
    kind = "checkpoint" if verdict.family or verdict.candidates or seen.tensors else "unknown"
    base = _folder_base(path)
    return _record(base, verdict, kind=kind, dialect="diffusers", dtype=_dtype(seen.tensors), components=components)


def _folder_base(path: Path) -> dict[str, Any]:
    files = tuple(FileEntry(path=str(file), bytes=file.stat().st_size) for file in folder_files(path))
    return {"id": "", "name": path.name, "files": files, "metadata": {"root": str(path)}}


COMPONENT_KINDS = {
    "Autoencoder": "vae",
    "ControlNet": "controlnet",
    "T2IAdapter": "controlnet",
    "CLIPText": "text_encoder",
    "T5Encoder": "text_encoder",
}


def _inspect_component(path: Path) -> Record:
    """One component of a diffusers folder on its own, by the class its config names."""
    config = read_json(path / "config.json")
    names = [config.get("_class_name"), *(config.get("architectures") or [])]
    name = next((str(name) for name in names if name), "")
    kind = next((kind for word, kind in COMPONENT_KINDS.items() if word in name), "unknown")
    verdict = Verdict(evidence=[f"config.json: {name or 'no class'}"])
    return _record(_folder_base(path), verdict, kind=kind, dialect="diffusers", dtype=_dtype(weights_of(path)))


# --- claims


def _adapter_claims(seen: Look, keys: Mapping[str, AdapterKey]) -> list[Claim]:
    claims = [Claim(name, match) for name, family in FAMILIES.items() if (match := family.recognise_adapter(seen))]
    modules = "\n".join(dict.fromkeys(key.module for key in keys.values() if key.component in (DENOISER, "")))
    widths = _cross_attention_widths(seen.tensors, keys)
    for row in known.KNOWN:
        if row.family not in FAMILIES and (match := known.recognise_adapter(row, modules, widths)):
            claims.append(Claim(row.family, match))
    return claims


def _cross_attention_widths(tensors: Mapping[str, TensorInfo], keys: Mapping[str, AdapterKey]) -> frozenset[int]:
    widths = set()
    for name, key in keys.items():
        if key.role == "down" and ("attn2_to_k" in key.module or "attn2.to_k" in key.module or "attn2.processor.to_k" in key.module):
            widths.add(tensors[name].shape[1] if len(tensors[name].shape) > 1 else 0)
    return frozenset(widths)


def _checkpoint_claims(seen: Look) -> list[Claim]:
    claims = [Claim(name, match) for name, family in FAMILIES.items() if (match := family.recognise_checkpoint(seen))]
    bare = {} if seen.is_folder else known.bare_names(seen.tensors)
    for row in known.KNOWN:
        if row.family in FAMILIES:
            continue
        match = known.recognise_folder(row, seen) if seen.is_folder else known.recognise(row, bare)
        if match:
            claims.append(Claim(row.family, match))
    return claims


def _verdict(claims: list[Claim], facts: MetadataFacts) -> Verdict:
    """The best claim, unless another is as good: then candidates, which the file's own metadata may settle."""
    claims = sorted(claims, key=lambda claim: (-claim.match.score, claim.family))
    verdict = Verdict()
    if claims:
        best = [claim for claim in claims if claims[0].match.score - claim.match.score < TIE]
        if len(best) == 1:
            _accept(verdict, best[0])
        else:
            verdict.candidates = tuple(claim.family for claim in best)
            verdict.evidence += [f"{claim.family} ({claim.match.score:.2f}): {reason}" for claim in best for reason in claim.match.evidence]
        settled = [claim for claim in best if len(best) > 1 and claim.family == facts.family]
        if settled:
            _accept(verdict, settled[0])
            verdict.candidates = ()
    _hear_metadata(verdict, facts)
    return verdict


def _accept(verdict: Verdict, claim: Claim) -> None:
    verdict.family, verdict.variant = claim.family, claim.match.variant
    verdict.evidence += [f"{claim.family} ({claim.match.score:.2f}): {reason}" for reason in claim.match.evidence]
    verdict.prediction = Prediction(value=claim.match.prediction, source=claim.match.prediction_source)


def _hear_metadata(verdict: Verdict, facts: MetadataFacts) -> None:
    """What the file says of itself: it settles what the tensors left open, and is told when it disagrees."""
    if facts.family:
        source = f"{facts.family_source} says {facts.family}"
        if verdict.family is None and (not verdict.candidates or facts.family in verdict.candidates):
            verdict.family, verdict.candidates = facts.family, ()
            verdict.evidence.append(source)
        elif verdict.family == facts.family:
            verdict.evidence.append(source)
        else:
            seen = verdict.family or " or ".join(verdict.candidates)
            verdict.warnings.append(Warn(code="metadata-disagrees", message=f"{source}; the tensors are those of {seen}."))
    if facts.prediction.value and not verdict.prediction.value:
        verdict.prediction = facts.prediction


# --- small facts


def _record(base: dict[str, Any], verdict: Verdict, **values: Any) -> Record:
    return Record(
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


def _dtype(tensors: Mapping[str, TensorInfo]) -> str | None:
    """The dtype most bytes are in."""
    sizes: Counter[str] = Counter()
    for info in tensors.values():
        sizes[info.dtype] += info.elements * DTYPE_BITS.get(info.dtype, GGUF_BITS)
    if not sizes:
        return None
    name = sizes.most_common(1)[0][0]
    return DTYPES.get(name, name.lower())


def _denoiser(family: str | None, keys: Mapping[str, AdapterKey]) -> str:
    """What the family calls the network an adapter changes; without a family, what the names look like."""
    if family:
        return _denoiser_of(family)
    for key in keys.values():
        if key.component == DENOISER:
            unet = key.prefix == "unet." or any(
                word in key.module for word in ("down_blocks", "up_blocks", "mid_block", "input_blocks", "output_blocks")
            )
            return "unet" if unet else "transformer"
    return DENOISER


def _denoiser_of(family: str) -> str:
    return FAMILIES[family].denoiser if family in FAMILIES else "unet" if family in UNETS else "transformer"


NOT_DIFFUSION = Warn(code="not-diffusion", message="This is a language model: of use only where a family takes it as its text encoder.")
LANGUAGE_MODELS = ("llama", "qwen2", "qwen2vl", "qwen3", "gemma", "gemma2", "gemma3", "mistral", "t5", "t5encoder", "phi3")


def _language_model(metadata: Mapping[str, str]) -> str | None:
    """The reason to take a GGUF file for a language model or a text encoder; None for others."""
    told = metadata.get("general.architecture", "").lower()
    return f"general.architecture {told!r}" if told in LANGUAGE_MODELS else None


TEXT_PREFIXES = ("cond_stage_model.", "conditioner.embedders.", "text_encoders.", "text_encoder.")
VAE_PREFIXES = ("first_stage_model.", "vae.")


def _single_file(seen: Look, family: str | None) -> tuple[tuple[str, ...], str]:
    """(components, dialect) of a single-file checkpoint."""
    tensors = seen.tensors
    components = [_denoiser_of(family) if family else DENOISER]
    if any(name.startswith(VAE_PREFIXES) for name in tensors):
        components.append("vae")
    if any(name.startswith(TEXT_PREFIXES) for name in tensors):
        components.append("text_encoder")
    if any(".embedders.1." in name for name in tensors):
        components.append("text_encoder_2")
    if seen.path.suffix.lower() == ".gguf":
        return tuple(components), "gguf"
    if any("double_blocks." in name for name in tensors):
        return tuple(components), "bfl"
    plain = any("transformer_blocks.0.attn.to_q" in name or name.startswith(("down_blocks.", "unet.down_blocks.")) for name in tensors)
    return tuple(components), "diffusers" if plain else "ldm"
