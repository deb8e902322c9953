"""Tensors in another dtype, one at a time, and only where it holds them: a file keeps its names, some or all of its floats change."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.adapters.writer import held
from registry.converting.request import ConversionResult, ConvertRequest
from registry.errors import Faults, JobFailed, Refused
from registry.formats.atomic_file import proven_file, torch_dtype, write_lazily
from registry.formats.safetensors_header import DTYPE_BITS, TensorInfo
from registry.merging.recipe import DTYPES
from registry.printable import counted
from registry.progress import Report, Tick
from registry.record import Hashes
from registry.tensors.layout import Layout, Stored, quantised, read_layout
from registry.tensors.mmap_files import MappedFiles

if TYPE_CHECKING:
    from torch import Tensor

FLOATS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")
SMALL = ("F8_E4M3", "F8_E5M2")  # for the denoiser's matrices alone: norms, biases, VAE and text encoders need more
REACH = {"F64": 4, "F32": 3, "BF16": 3, "F16": 2, "F8_E5M2": 2, "F8_E4M3": 1}  # how large a number may be, in order
OWN_TO_THE_BYTES = ("sshs_model_hash", "sshs_legacy_hash", "modelspec.hash_sha256", "loraloom.parents")
SHOWN = 3


@dataclass(frozen=True)
class Cast:
    """What becomes of the dtype of each tensor: `to` for floating ones; fp8 for the denoiser's matrices alone. None: as it is."""

    to: str | None

    @classmethod
    def of(cls, dtype: str | None, layout: Layout) -> Cast:
        """The requested cast. Raises Refused for weights that are no plain numbers."""
        if dtype is not None and DTYPES.get(dtype) not in FLOATS:
            raise Refused(f"--dtype {dtype} is not known. Give {', '.join(DTYPES)}.")
        strange = quantised(layout.tensors)
        if strange is not None and dtype is not None:
            raise Refused(
                f"{layout.path.name} is quantised ({strange}): its numbers are not the model's and are not cast. Leave --dtype out."
            )
        return cls(DTYPES[dtype] if dtype is not None else None)

    def dtype(self, info: TensorInfo, *, denoiser: bool) -> str:
        """The dtype a tensor is written in."""
        if self.to is None or info.dtype not in FLOATS or info.elements == 0:
            return info.dtype
        return info.dtype if self.to in SMALL and not (denoiser and len(info.shape) >= 2) else self.to


@dataclass(frozen=True)
class Planned:
    """A tensor of the result: its numbers on the disk, and the dtype it is written in."""

    stored: Stored
    info: TensorInfo


def planned(tensors: Mapping[str, Stored], cast: Cast, denoiser: Callable[[str], bool]) -> dict[str, Planned]:
    """The tensors of a file, each in the dtype it shall have."""
    return {
        name: Planned(stored, TensorInfo(cast.dtype(stored.info, denoiser=denoiser(name)), stored.info.shape))
        for name, stored in tensors.items()
    }


def refuse_overflow(files: Sequence[Mapping[str, Planned]], maps: MappedFiles, report: Report) -> None:
    """Raise Refused with every tensor that the narrower dtype does not hold. Nothing is written yet."""
    narrowed = [(name, one) for file in files for name, one in file.items() if _narrows(one)]
    faults = []
    for number, (name, one) in enumerate(narrowed, 1):
        try:
            held(_values(one.stored, maps).float(), torch_dtype(one.info.dtype), name)
        except JobFailed as error:
            faults.append(str(error))
        report(Tick("check", number, len(narrowed), name))
    if faults:
        more = [f"and {len(faults) - SHOWN} more"] if len(faults) > SHOWN else []
        raise Faults(
            f"{counted(len(faults), 'tensor does', 'tensors do')} not fit into the dtype; nothing was written:", [*faults[:SHOWN], *more]
        )


def _narrows(one: Planned) -> bool:
    return REACH.get(one.info.dtype, 9) < REACH.get(one.stored.info.dtype, 0)


def _values(stored: Stored, maps: MappedFiles) -> Tensor:
    return maps.tensor(stored, 0, stored.info.elements).reshape(stored.info.shape)


def write_planned(path: Path, tensors: Mapping[str, Planned], maps: MappedFiles, *, metadata: Mapping[str, str], report: Report) -> Hashes:
    """Write one file, a tensor at a time; its Hashes."""
    done = 0

    def tensor_of(name: str) -> Tensor:
        nonlocal done
        done += 1
        report(Tick("write", done, len(tensors), name))
        one = tensors[name]
        values = _values(one.stored, maps)
        return values if one.info.dtype == one.stored.info.dtype else values.to(torch_dtype(one.info.dtype))

    path.parent.mkdir(parents=True, exist_ok=True)
    return write_lazily(path, {name: one.info for name, one in tensors.items()}, tensor_of, metadata=metadata)


def bytes_of(tensors: Mapping[str, Planned]) -> int:
    """Size of the tensors as they are written."""
    return sum(one.info.elements * DTYPE_BITS[one.info.dtype] // 8 for one in tensors.values())


@dataclass(frozen=True)
class DtypeConversion:
    """A single file whose tensors keep their names and change their dtype."""

    request: ConvertRequest
    layout: Layout
    tensors: Mapping[str, Planned]
    family: str | None
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, path: Path, request: ConvertRequest, *, family: str | None, kind: str) -> DtypeConversion:
        """The conversion of a safetensors file. Raises Refused."""
        if request.dtype is None:
            raise Refused(f"{path.name} is safetensors already. Give --dtype to change its dtype, or another --to.")
        if path.is_dir():
            raise Refused(f"{path.name} is a folder. Give --to single-file, or --to folder with --dtype.")
        layout = read_layout(path)
        cast = Cast.of(request.dtype, layout)
        if cast.to in SMALL and kind != "checkpoint":
            raise Refused(f"{path.name} is of kind {kind}; fp8 is for a checkpoint's denoiser. Give bf16 or fp16.")
        tensors = planned(layout.tensors, cast, lambda key: layout.component(key) == "denoiser")
        return cls(request, layout, tensors, family, cast_notes(cast, tensors))

    @property
    def facts(self) -> dict[str, Any]:
        changed = sum(one.info.dtype != one.stored.info.dtype for one in self.tensors.values())
        tensors = {"tensors": len(self.tensors), "cast": changed, "bytes": bytes_of(self.tensors)}
        return {"from": "safetensors", "dtype": self.request.dtype, **tensors}

    def write(self, *, parents: Sequence[Mapping[str, Any]], report: Report) -> ConversionResult:
        maps = MappedFiles([self.layout.path])
        refuse_overflow([self.tensors], maps, report)
        kept = {key: value for key, value in self.layout.metadata.items() if key not in OWN_TO_THE_BYTES}
        metadata = {**kept, "format": "pt", "loraloom.parents": plain_parents(parents)}
        with proven_file(self.request.output) as temporary:
            hashes = write_planned(temporary, self.tensors, maps, metadata=metadata, report=report)
            maps.check()
        return ConversionResult(file=self.request.output, hashes=hashes)


def plain_parents(parents: Sequence[Mapping[str, Any]]) -> str:
    """The parents as the header keeps them."""
    return json.dumps(list(parents), sort_keys=True, ensure_ascii=False)


def cast_notes(cast: Cast, tensors: Mapping[str, Planned]) -> tuple[str, ...]:
    """Notes on a cast."""
    kept = sum(one.info.dtype != cast.to and one.info.dtype in FLOATS for one in tensors.values())
    return (
        (f"fp8 is for the denoiser's matrices: {counted(kept, 'tensor keeps', 'tensors keep')} their dtype.",)
        if cast.to in SMALL and kept
        else ()
    )
