"""Locations of a model's tensors in a single file, a diffusers folder or shards, read from headers alone.

A key is the tensor's name; in a diffusers folder `component/name`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from registry.detect.module_shapes import SINGLE_FILE
from registry.errors import BadFile
from registry.formats.model_folder import folder_files, weights
from registry.formats.safetensors_header import DTYPE_BITS, Header, TensorInfo, fp8_scale, read_header

WEIGHTS = (".safetensors", ".bin", ".ckpt", ".pt", ".pth", ".msgpack", ".h5", ".onnx", ".gguf")  # not copied beside merged weights
INDEX = re.compile(r"\.safetensors\.index(\.[\w-]+)?\.json$")
FLOATS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")  # computed with; tensors of other dtypes are copied
EMA = ("model_ema.", "ema.", "ema_model.")  # EMA weights that training leaves in a file
TORCHAO = "._weight_qdata"  # codes of a weight, in place of it
QUANTISED = re.compile(
    r"\.(absmax|quant_map|quant_state\.\S+|nested_absmax|SCB|scale_weight|scale_input|weight_scale|_weight_qdata|qweight|qzeros)$|(^|\.)scaled_fp8$"
)


@dataclass(frozen=True)
class Stored:
    """One tensor on the disk: `begin` is its first byte in the file.

    A tensor that is stored differently than needed consists of `parts`, concatenated along axis 0, or is `turned` (transposed);
    file and begin are then those of the first part.
    """

    file: Path
    begin: int
    info: TensorInfo
    parts: tuple[Stored, ...] = ()
    turned: bool = False

    @property
    def bytes(self) -> int:
        return self.info.elements * DTYPE_BITS[self.info.dtype] // 8

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that hold it."""
        return tuple(dict.fromkeys(part.file for part in self.parts)) or (self.file,)

    def rows(self, first: int, last: int) -> Stored:
        """The rows first..last of a contiguous tensor."""
        shape = (last - first, *self.info.shape[1:])
        width = TensorInfo(self.info.dtype, self.info.shape[1:]).elements * DTYPE_BITS[self.info.dtype] // 8
        return Stored(self.file, self.begin + first * width, TensorInfo(self.info.dtype, shape))

    def transposed(self) -> Stored:
        """The transposed matrix."""
        return replace(self, info=TensorInfo(self.info.dtype, self.info.shape[::-1]), turned=not self.turned)

    def shaped(self, shape: tuple[int, ...]) -> Stored:
        """The same elements in another shape."""
        return replace(self, info=TensorInfo(self.info.dtype, shape))


def joined(parts: Sequence[Stored]) -> Stored:
    """Tensors concatenated along axis 0."""
    if len(parts) == 1:
        return parts[0]
    shape = (sum(part.info.shape[0] for part in parts), *parts[0].info.shape[1:])
    return Stored(parts[0].file, parts[0].begin, TensorInfo(parts[0].info.dtype, shape), parts=tuple(parts))


@dataclass(frozen=True)
class WeightFile:
    """One safetensors file of a model: its path in the model's folder ("" for a single file), its keys, its metadata."""

    relative: str
    keys: tuple[str, ...]
    metadata: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A model's tensors and files. `others` are a folder's small files (configs, tokenizers), relative."""

    path: Path
    is_folder: bool
    diffusers: bool
    tensors: Mapping[str, Stored]
    files: tuple[WeightFile, ...]
    others: tuple[str, ...] = ()
    translated: bool = False  # its keys were mapped to another layout

    @property
    def kind(self) -> str:
        """The kind of layout, for messages."""
        return "a diffusers folder" if self.diffusers else "a folder of shards" if self.is_folder else "a single file"

    @property
    def metadata(self) -> Mapping[str, str]:
        """The metadata of its first weight file."""
        return self.files[0].metadata if self.files else {}

    def component(self, key: str) -> str:
        """The component a key belongs to: the folder's, or by the single file's prefixes ('denoiser', 'vae', 'text_encoder', ...)."""
        if self.diffusers or (self.translated and "/" in key):
            component = key.partition("/")[0]
            return "denoiser" if component in ("unet", "transformer", "prior") else component
        if key.startswith(EMA):
            return "ema"
        return next((component for prefix, component in SINGLE_FILE if key.startswith(prefix)), "denoiser")

    @property
    def components(self) -> tuple[str, ...]:
        """Its components, in the order of the keys."""
        return tuple(dict.fromkeys(self.component(key) for key in self.tensors))


def read_layout(path: Path | str) -> Layout:
    """The layout of a model file or folder. Raises BadFile."""
    path = Path(path)
    if path.suffix.lower() == ".gguf":
        kept = "whose weights are kept in blocks of a few bits: a change of them would be rounded away. Use the bf16 or fp16 file"
        raise BadFile(path, "gguf", f"is a GGUF file, {kept}.")
    if not path.is_dir():
        header = read_header(path)
        if not header.tensors:
            raise BadFile(path, "missing-weights", "holds no tensors.")
        return Layout(
            path=path,
            is_folder=False,
            diffusers=False,
            tensors=_stored(path, header),
            files=(WeightFile("", tuple(header.tensors), header.metadata),),
        )
    if (path / "model_index.json").is_file():
        folders = sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
        return _read_folder(path, {f"{folder.name}/": folder for folder in folders})
    return _read_folder(path, {"": path})


def _read_folder(path: Path, folders: Mapping[str, Path]) -> Layout:
    tensors: dict[str, Stored] = {}
    files: list[WeightFile] = []
    for prefix, folder in folders.items():
        found = weights(folder)
        _refuse_bare(path, folder, found.files)
        headers = {file: read_header(file) for file in found.files}
        found.check({file.name: header.tensors for file, header in headers.items()})
        for file, header in headers.items():
            stored = {f"{prefix}{name}": entry for name, entry in _stored(file, header).items()}
            if twice := next((key for key in stored if key in tensors), None):
                raise BadFile(path, "not-a-model", f"has {twice!r} in two of its files. A model's shards hold each tensor once.")
            tensors |= stored
            files.append(WeightFile(file.relative_to(path).as_posix(), tuple(stored), header.metadata))
    if not tensors:
        raise BadFile(path, "missing-weights", "is a folder without safetensors weights.")
    others = [
        file.relative_to(path).as_posix()
        for file in folder_files(path)
        if file.suffix.lower() not in WEIGHTS and not INDEX.search(file.name)
    ]
    return Layout(path=path, is_folder=True, diffusers="" not in folders, tensors=tensors, files=tuple(files), others=tuple(others))


def _refuse_bare(path: Path, folder: Path, found: Iterable[Path]) -> None:
    """Raise BadFile for a component with weights in another format only: it would be missing from the result."""
    if list(found):
        return
    other = next((file for file in sorted(folder.iterdir()) if file.suffix.lower() in WEIGHTS), None)
    if other is not None:
        raise BadFile(path, "not-safetensors", f"has weights that are not safetensors ({other.relative_to(path)}). Convert them first.")


def _stored(path: Path, header: Header) -> dict[str, Stored]:
    found = {name: Stored(path, header.data_start + header.offsets[name][0], info) for name, info in header.tensors.items()}
    codes = {f"{name.removesuffix(TORCHAO)}.weight": stored for name, stored in found.items() if name.endswith(TORCHAO)}
    return found | codes  # a model's layers are known by their weights, quantised ones too


def quantised(tensors: Mapping[str, Stored]) -> str | None:
    """The first key of quantised weights; None when there is none. A scalar, or a scale of any shape, beside an fp8 tensor is one."""
    named = next((key for key in tensors if QUANTISED.search(key)), None)
    if named is not None:
        return named
    return fp8_scale({key: stored.info for key, stored in tensors.items()})
