"""A diffusers folder as one file in the original implementation's names, as ComfyUI and A1111 load it: one tensor in memory at a time.

What is written is opened again by the family's own loader, on the device "meta", before it is called saved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from registry.architectures.unet.header import V_MARKS, ZERO_SNR_MARK
from registry.converting.casting import SHOWN, Cast, Planned, bytes_of, cast_notes, plain_parents, planned, refuse_overflow, write_planned
from registry.converting.request import ConversionResult, ConvertRequest
from registry.detect.loading import known_family, load_family
from registry.errors import BadFile, JobFailed, LoomError, Refused
from registry.families import Family
from registry.formats.atomic_file import proven_file
from registry.formats.key_map import KeyLocation
from registry.formats.model_folder import read_json
from registry.formats.safetensors_header import TensorInfo
from registry.formats.single_file import UNUSED, component_configs
from registry.parts import Parts
from registry.printable import counted, some
from registry.progress import Report
from registry.tensors.layout import Layout, Stored, read_layout
from registry.tensors.mmap_files import MappedFiles
from registry.tensors.relayout import gathered, modern

PREDICTIONS = {"epsilon": "epsilon", "v_prediction": "v"}  # ModelSpec's words; it has none for flow


@dataclass(frozen=True)
class SingleFileConversion:
    """A diffusers folder as one file in the original implementation's names."""

    request: ConvertRequest
    layout: Layout
    known: Family
    parts: Parts
    tensors: Mapping[str, Planned]
    components: tuple[str, ...]
    notes: tuple[str, ...]
    marks: tuple[str, ...]  # empty tensors that mark the prediction

    @classmethod
    def of(cls, path: Path, request: ConvertRequest, *, family: str | None, prediction: str | None = None) -> SingleFileConversion:
        """The conversion of a folder. Raises Refused with every parameter that has no name in the original implementation."""
        import torch

        if not path.is_dir():
            raise Refused(f"{path.name} is a single file already. Give --to safetensors with --dtype to change its dtype.")
        known, layout = known_family(family, path), read_layout(path)
        cast = Cast.of(request.dtype, layout)
        parts = load_family(known, path, dtype=torch.float32, device="meta", base_config=None, prediction=prediction)
        found: dict[str, Stored] = {}
        denoiser: set[str] = set()
        lost: list[str] = []
        left: dict[str, int] = {}
        for component, names in _by_component(layout).items():
            placed, unplaced = _under_file_keys(known, layout, component, names)
            found |= placed
            denoiser |= placed.keys() if component == known.denoiser else set()
            if not placed:
                left[component] = len(names)
            lost += [f"{component}/{name}" for name in unplaced if placed and not UNUSED.search(name)]
        if lost:
            raise Refused(
                f"{path.name}: {len(lost)} of its parameters have no name in the original implementation of {known.title}: "
                f"{some(lost, SHOWN)}."
            )
        if not found:
            raise Refused(f"{path.name} has no component that a single file of {known.title} holds.")
        listed = ", ".join(f"{name} ({counted(count, 'tensor')})" for name, count in left.items())
        notes = [f"single files of {known.title} do not hold all components; not in the file: {listed}"] if left else []
        components = tuple(component for component in _by_component(layout) if component not in left)
        tensors = planned(found, cast, denoiser.__contains__)
        return cls(request, layout, known, parts, tensors, components, (*notes, *cast_notes(cast, tensors)), _marks(parts))

    @property
    def family(self) -> str:
        return self.known.name

    @property
    def facts(self) -> dict[str, Any]:
        return {
            "from": "folder",
            "dtype": self.request.dtype,
            "components": list(self.components),
            "tensors": len(self.tensors) + len(self.marks),
            "bytes": bytes_of(self.tensors),
        }

    def write(self, *, parents: Sequence[Mapping[str, Any]], report: Report) -> ConversionResult:
        maps = MappedFiles(file for one in self.tensors.values() for file in one.stored.files)
        refuse_overflow([self.tensors], maps, report)
        empty = Planned(next(iter(self.tensors.values())).stored.rows(0, 0).shaped((0,)), TensorInfo("F32", (0,)))
        tensors = {**self.tensors, **dict.fromkeys(self.marks, empty)}
        with proven_file(self.request.output) as temporary:
            hashes = write_planned(temporary, tensors, maps, metadata=self._metadata(parents), report=report)
            maps.check()
            opened(self.known, temporary, base=self.layout.path)
        return ConversionResult(file=self.request.output, hashes=hashes)

    def _metadata(self, parents: Sequence[Mapping[str, Any]]) -> dict[str, str]:
        path, names = self.layout.path, self.known.file_names
        spec = {
            "sai_model_spec": "1.0.1",
            "architecture": self.known.architecture_of(self.parts),
            "title": path.name,
            "resolution": f"{self.parts.resolution}x{self.parts.resolution}",
            "implementation": (names.implementation if names is not None else None) or "https://github.com/huggingface/diffusers",
        }
        if self.parts.prediction in PREDICTIONS:
            spec["prediction_type"] = PREDICTIONS[self.parts.prediction]
        configs = component_configs(path, self.components) if len(self.components) > 1 else {}
        listed = {f"modelspec.{key}": value for key, value in spec.items()}
        return {"format": "pt", "loraloom.parents": plain_parents(parents), **configs, **listed}


def _by_component(layout: Layout) -> dict[str, list[str]]:
    """Component -> its parameters."""
    found: dict[str, list[str]] = {}
    for key in layout.tensors:
        component, _, name = key.partition("/")
        found.setdefault(component, []).append(name)
    return found


def _under_file_keys(known: Family, layout: Layout, component: str, names: Sequence[str]) -> tuple[dict[str, Stored], list[str]]:
    """(a component's tensors under the original implementation's keys, parameters that have none); ({}, ...) where files do not hold it."""
    stored = {modern(name) if component == "vae" else name: layout.tensors[f"{component}/{name}"] for name in names}
    shapes = {name: tensor.info.shape for name, tensor in stored.items()}
    table = known.file_names
    if table is None:  # under their own names
        return (dict(stored), []) if component == known.denoiser else ({}, [])
    config = layout.path / component / "config.json"
    try:
        places: dict[str, KeyLocation] = table.places(component, read_json(config) if config.is_file() else {}, shapes, table.published)
    except (KeyError, TypeError) as error:
        raise BadFile(
            config, "bad-config", f"does not say how its {component} is built ({error}); the original implementation's names depend on it."
        ) from error
    found = gathered({name: stored[name] for name in places}, places)
    keys = {place.key for place in places.values()}
    unplaced = [name for name in stored if name not in places or places[name].key not in found]
    if keys != found.keys() and not unplaced:
        unplaced = sorted(keys - found.keys())
    return {key: tensor.shaped(table.shape_in_file(key, tensor.info.shape)) for key, tensor in found.items()}, unplaced


def _marks(parts: Parts) -> tuple[str, ...]:
    """The empty tensors by which other tools know the model's prediction."""
    if parts.prediction != "v_prediction":
        return ()
    return (V_MARKS[0], *([ZERO_SNR_MARK] if parts.scheduler_config.get("rescale_betas_zero_snr") else []))


def opened(known: Family, path: Path, *, base: Path | None) -> None:
    """Open a checkpoint with the family's own loader, without its weights. Raises JobFailed where that finds a fault."""
    import torch

    try:
        known.load(path, dtype=torch.float32, device="meta", base_config=base)
    except LoomError as error:
        raise JobFailed(f"What was written cannot be loaded again, and nothing of it is kept: {error}") from error
