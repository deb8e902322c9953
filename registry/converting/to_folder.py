"""A single file as a diffusers folder: configs, tokenizers and scheduler from where the family's loader takes them, weights as they are.

What a single file does not hold (FLUX's text encoders) is copied from the folder that is given as the base.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from registry.converting.casting import Cast, Planned, bytes_of, cast_notes, plain_parents, planned, refuse_overflow, write_planned
from registry.converting.request import ConversionResult, ConvertRequest
from registry.converting.to_file import opened
from registry.detect.loading import known_family, load_family
from registry.errors import Refused
from registry.families import Family
from registry.formats.atomic_file import atomic_folder, write_json
from registry.formats.key_map import KeyLocation
from registry.formats.model_folder import read_json
from registry.formats.single_file import UNUSED
from registry.index.written import written_folder_sha256
from registry.parts import Parts
from registry.printable import counted
from registry.progress import Report
from registry.record import Hashes
from registry.tensors.layout import Layout, Stored, read_layout
from registry.tensors.mmap_files import MappedFiles
from registry.tensors.relayout import cut

WEIGHTS = {"diffusers": "diffusion_pytorch_model.safetensors", "transformers": "model.safetensors"}
OUTER = "text_model."  # precedes the names of CLIP's parameters in published folders; newer classes dropped it and read both
ABSENT = ("safety_checker", "feature_extractor", "image_encoder")  # that a pipeline may have and we do not write


@dataclass(frozen=True)
class FolderConversion:
    """One file as a diffusers folder."""

    request: ConvertRequest
    layout: Layout
    known: Family
    parts: Parts
    base: Path | None
    weights: Mapping[str, Mapping[str, Planned]]  # component -> its parameters in diffusers' names
    notes: tuple[str, ...]

    @classmethod
    def of(
        cls, path: Path, request: ConvertRequest, *, family: str | None, base: Path | None, prediction: str | None = None
    ) -> FolderConversion:
        """The conversion of a single file; `prediction` is the user's override.

        Raises Refused, with the word base where the file alone does not say enough.
        """
        import torch

        if path.is_dir():
            raise Refused(f"{path.name} is a folder already. Give --to single-file, or another form.")
        if base is not None and not base.is_dir():
            raise Refused(f"--base must be a diffusers folder of the same build; {base} is a file.")
        known, layout = known_family(family, path), read_layout(path)
        cast = Cast.of(request.dtype, layout)
        try:
            parts = load_family(known, path, dtype=torch.float32, device="meta", base_config=base, prediction=prediction)
        except Refused as error:
            raise Refused(str(error).replace("base_config=FOLDER", "--base FOLDER").replace("base_config", "--base")) from error
        weights: dict[str, Mapping[str, Planned]] = {}
        taken: set[str] = set()
        for component, module in _modules(known, parts).items():
            found, keys = _parameters(known, layout, component, module)
            if found:
                taken |= keys
                weights[component] = planned(found, cast, lambda _name, component=component: component == known.denoiser)  # type: ignore[misc]
        left = [key for key in layout.tensors if key not in taken and not UNUSED.search(key)]
        notes = [warning.replace("base_config=", "base ") for warning in parts.warnings]
        if left:
            notes.append(f"left out: {counted(len(left), 'tensor')} of the file without a place in a folder, the first: {left[0]}")
        casts = [note for tensors in weights.values() for note in cast_notes(cast, tensors)]
        return cls(request, layout, known, parts, base, weights, tuple(dict.fromkeys([*notes, *casts])))

    @property
    def family(self) -> str:
        return self.known.name

    @property
    def facts(self) -> dict[str, Any]:
        return {
            "from": "single-file",
            "dtype": self.request.dtype,
            "components": list(self.weights),
            "tensors": sum(len(tensors) for tensors in self.weights.values()),
            "bytes": sum(bytes_of(tensors) for tensors in self.weights.values()),
        }

    def write(self, *, parents: Sequence[Mapping[str, Any]], report: Report) -> ConversionResult:
        maps = MappedFiles([self.layout.path])
        refuse_overflow(list(self.weights.values()), maps, report)
        modules, known = _modules(self.known, self.parts), dict[str, Hashes]()
        metadata = {"format": "pt", "loraloom.parents": plain_parents(parents)}
        with atomic_folder(self.request.output) as folder:
            for component, tensors in self.weights.items():
                module = modules[component]
                place = folder / component / WEIGHTS[_library(module)]
                named = {_published(module, name): one for name, one in tensors.items()}
                known[place.relative_to(folder).as_posix()] = write_planned(place, named, maps, metadata=metadata, report=report)
                _write_config(module, folder / component)
            self._write_rest(folder, modules)
            maps.check()
            opened(self.known, folder, base=None)
            sha256 = written_folder_sha256(folder, known)
        return ConversionResult(file=self.request.output, sha256=sha256)

    def _write_rest(self, folder: Path, modules: Mapping[str, Any]) -> None:
        """What is no weight of the file: copied from the base, else written from what the loader has made."""
        if self.base is not None:
            for name in read_json(self.base / "model_index.json"):
                if name.isidentifier() and name not in self.weights and (self.base / name).is_dir():
                    shutil.copytree(self.base / name, folder / name)
            shutil.copyfile(self.base / "model_index.json", folder / "model_index.json")
            return
        index: dict[str, Any] = {"_class_name": self.known.pipeline, "_diffusers_version": _version(), **self.parts.config}
        for name, module in modules.items():
            index[name] = [_library(module), type(module).__name__]
        for name, tokenizer in self.parts.tokenizers.items():
            tokenizer.save_pretrained(folder / name)
            index[name] = ["transformers", type(tokenizer).__name__]
        write_scheduler(folder / "scheduler", self.parts)
        index["scheduler"] = ["diffusers", self.parts.scheduler_class]
        index |= {name: [None, None] for name in ABSENT if name in _accepted(self.known.pipeline)}
        write_json(folder / "model_index.json", dict(sorted(index.items())))


def write_scheduler(folder: Path, parts: Parts) -> None:
    """The scheduler's config as diffusers writes it."""
    folder.mkdir(parents=True)
    config = {key: value for key, value in parts.scheduler_config.items() if not key.startswith("_")}
    write_json(folder / "scheduler_config.json", {"_class_name": parts.scheduler_class, "_diffusers_version": _version(), **config})


def _version() -> str:
    import diffusers

    return str(diffusers.__version__)


def _accepted(pipeline: str) -> set[str]:
    """The components that a pipeline's class takes."""
    import inspect

    import diffusers

    return set(inspect.signature(getattr(diffusers, pipeline).__init__).parameters)


def _modules(known: Family, parts: Parts) -> dict[str, Any]:
    return {known.denoiser: parts.denoiser, "vae": parts.vae, **parts.text_encoders}


def _library(module: Any) -> str:
    return str(type(module).__module__).partition(".")[0]


def _parameters(known: Family, layout: Layout, component: str, module: Any) -> tuple[dict[str, Stored], set[str]]:
    """(a component's parameters as the file holds them, the keys they were taken from); ({}, ...) for one that it does not hold."""
    shapes = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    table = known.file_names
    if table is None:
        found = {name: layout.tensors[name] for name in shapes if name in layout.tensors} if component == known.denoiser else {}
        return found, set(found)
    places = table.places(
        component, dict(module.config.items()) if _library(module) == "diffusers" else module.config.to_dict(), shapes, layout.tensors
    )
    parameters: dict[str, Stored] = {}
    taken: set[KeyLocation] = set()
    for name, place in places.items():
        stored = cut(layout.tensors.get(place.key), place)
        if stored is not None and place not in taken:  # a tied parameter is written once, under its first name
            taken.add(place)
            parameters[name] = stored.shaped(shapes[name])
    return parameters, {place.key for place in places.values()}


def _published(module: Any, name: str) -> str:
    """A parameter's name in a published folder."""
    flat = type(module).__name__.startswith("CLIPText") and not name.startswith((OUTER, "text_projection"))
    return f"{OUTER}{name}" if flat else name


def _write_config(module: Any, folder: Path) -> None:
    if _library(module) == "diffusers":
        module.save_config(folder)
    else:
        module.config.architectures = [type(module).__name__]
        module.config.save_pretrained(folder)
