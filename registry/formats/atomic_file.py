"""Files that are whole or not there: safetensors read strictly, and everything written under a temporary name, synced, renamed.

What is written is hashed as it is written. The same tensors and metadata give the same bytes.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.errors import Refused, WriteFailed
from registry.files.direct_output import Sink, sink_of
from registry.files.unfinished import TEMPORARY, label_of, open_temporary, temporary_folder
from registry.files.write_failure import FULL, Output, explained, make_folder, write_failed
from registry.formats.hashing import Hasher
from registry.formats.safetensors_header import DTYPE_BITS, Header, TensorInfo, header_bytes, parse_header, read_header

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from registry.record import Hashes

__all__ = [
    "Header",
    "RawTensor",
    "TensorInfo",
    "atomic_file",
    "atomic_folder",
    "proven_file",
    "read_header",
    "sync_folder",
    "torch_dtype",
    "write_json",
    "write_lazily",
    "write_raw",
    "write_safetensors",
    "write_text",
]

TORCH_DTYPES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "float8_e4m3fnuz": "F8_E4M3FNUZ",
    "float8_e5m2fnuz": "F8_E5M2FNUZ",
    "float8_e8m0fnu": "F8_E8M0",
    "complex64": "C64",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint64": "U64",
    "uint32": "U32",
    "uint16": "U16",
    "uint8": "U8",
    "bool": "BOOL",
}


@cache
def torch_dtype(name: str) -> torch.dtype:
    """The torch dtype of a safetensors word such as F16. Raises Refused for one that is not read here: F4, F6_E2M3, F8_E8M0, ..."""
    import torch

    words = {word: dtype for dtype, word in TORCH_DTYPES.items()}
    if name not in words:
        raise Refused(f"{name} is a dtype that is not computed with here. Use a version of the model in fp32, fp16 or bf16.")
    return getattr(torch, words[name])  # type: ignore[no-any-return]  # looked up by name


@dataclass(frozen=True)
class RawTensor:
    """A tensor as bytes, little-endian, row-major: for writers that need no torch."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes | memoryview

    @property
    def info(self) -> TensorInfo:
        return TensorInfo(self.dtype, self.shape)


def write_safetensors(path: Path | str, tensors: Mapping[str, Tensor], *, metadata: Mapping[str, str]) -> Hashes:
    """Write the tensors and give the Hashes of the file. At most one tensor is copied at a time.

    Views, tensors on a device and shared storage are written as their own values. Raises Refused for a dtype or a metadata
    value the format has no word for, before anything is written.
    """
    infos = {name: _info(name, tensor) for name, tensor in tensors.items()}
    return _write(Path(path), infos, lambda name: _bytes(tensors[name]), metadata)


def write_raw(path: Path | str, tensors: Mapping[str, RawTensor], *, metadata: Mapping[str, str]) -> Hashes:
    """`write_safetensors` for tensors that are bytes already."""
    return _write(
        Path(path), {name: tensor.info for name, tensor in tensors.items()}, lambda name: memoryview(tensors[name].data), metadata
    )


def write_lazily(
    path: Path | str, infos: Mapping[str, TensorInfo], tensor_of: Callable[[str], Tensor], *, metadata: Mapping[str, str]
) -> Hashes:
    """`write_safetensors` for tensors that are made one at a time, when their turn has come: names, dtypes and shapes are known before."""

    def data_of(name: str) -> memoryview:
        tensor = tensor_of(name)
        if _info(name, tensor) != infos[name]:
            raise Refused(f"{name!r} is {_info(name, tensor)}, where {infos[name]} was planned.")
        return _bytes(tensor)

    return _write(Path(path), infos, data_of, metadata)


def _write(path: Path, infos: Mapping[str, TensorInfo], data_of: Any, metadata: Mapping[str, str]) -> Hashes:
    for key, value in metadata.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise Refused(
                f"The metadata entry {key!r} of {path.name} is {value!r}. A safetensors header holds strings only: write it as JSON."
            )
    if "__metadata__" in infos:
        raise Refused(f"A tensor of {path.name} is named '__metadata__', a name the format keeps for itself. Rename it.")
    raw, order = header_bytes(infos, metadata)
    size = len(raw) + sum(info.elements * DTYPE_BITS[info.dtype] for info in infos.values()) // 8
    header = parse_header(raw[8:], path=path, file_bytes=size)  # what we write must pass our own reader
    hasher = Hasher(header)
    try:
        with atomic_file(path, needed=size) as file:
            sink = sink_of(file, size)
            _put(sink, hasher, memoryview(raw))
            for name in order:
                data = data_of(name)
                expected = header.offsets[name][1] - header.offsets[name][0]
                if len(data) != expected:
                    raise Refused(f"{name!r} of {path.name} holds {len(data):,} bytes; its dtype and shape need {expected:,}.")
                _put(sink, hasher, data)
            sink.flush()
    finally:
        hasher.close()
    return hasher.finish()


def _put(sink: Sink, hasher: Hasher, data: memoryview) -> None:
    for begin in range(0, len(data), 8 << 20):  # 8 MiB: written while it is digested
        piece = data[begin : begin + (8 << 20)]
        futures = hasher.start(piece)
        sink.write(piece)
        for future in futures:
            future.result()


def _info(name: str, tensor: Tensor) -> TensorInfo:
    dtype = TORCH_DTYPES.get(str(tensor.dtype).removeprefix("torch."))
    if dtype is None:
        raise Refused(f"{name!r} has the dtype {tensor.dtype}, for which safetensors has no word. Convert it first.")
    return TensorInfo(dtype, tuple(tensor.shape))


def _bytes(tensor: Tensor) -> memoryview:
    """The tensor's own elements, never its whole storage."""
    import torch

    if tensor.numel() == 0:
        return memoryview(b"")
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return memoryview(flat.view(torch.uint8).numpy())  # type: ignore[arg-type]  # numpy arrays are buffers


# --- whole or not there


@contextmanager
def proven_file(final: Path) -> Iterator[Path]:
    """A path of the same name in a folder beside `final` to write to and to read back; it becomes `final` when the block ends well.

    It is removed when the block does not. Raises WriteFailed for what the disk refuses.
    """
    with _failures_of(final), temporary_folder(final) as folder:
        temporary = folder / final.name
        yield temporary
        os.replace(temporary, final)
        sync_folder(final.parent)


@contextmanager
def atomic_file(path: Path | str, *, needed: int | None = None) -> Iterator[io.BufferedWriter[Output]]:
    """A file to write, which appears under `path` only when the block succeeds: temporary name beside it, fsync, rename.

    Raises WriteFailed for what the disk refuses; its message has the bytes `needed`, where they are known.
    """
    path = Path(path)
    with explained(path, needed=needed):
        temporary, descriptor = open_temporary(path)
    raw = Output(descriptor, temporary)
    try:
        with io.BufferedWriter(raw) as file:
            yield file
            file.flush()
            raw.sync()
            if os.name != "nt":
                os.replace(temporary, path)  # before it is closed, which ends the lock
        if os.name == "nt":  # an open file cannot be renamed there
            os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        own = error if isinstance(error, OSError) and _is_of(error, temporary) else None
        if (failure := own or raw.failure) is not None and isinstance(error, Exception):
            raise write_failed(path, failure, needed=needed, written=raw.written) from error
        raise
    with explained(path):
        sync_folder(path.parent)


def _is_of(error: OSError, temporary: Path) -> bool:
    """Whether an error is about the temporary file, not about another that was read meanwhile."""
    return not isinstance(error, WriteFailed) and (error.filename == str(temporary) or (error.errno in FULL and error.filename is None))


def write_text(path: Path | str, text: str) -> None:
    """Write a text, UTF-8, `\\n` as it is; the file is the new one whole or the old one."""
    data = text.encode("utf-8")
    with atomic_file(path, needed=len(data)) as file:
        file.write(data)


def write_json(path: Path | str, value: object) -> None:
    """Write a plain value as indented JSON, keys in their order. Raises ValueError for NaN and infinity."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


@contextmanager
def atomic_folder(final: Path | str) -> Iterator[Path]:
    """A temporary folder beside `final`, renamed to it when the block ends well and removed when it does not.

    Its files are synced before the rename. Raises Refused when `final` exists, WriteFailed for what the disk refuses.
    """
    final = Path(final)
    _refuse_existing(final)
    make_folder(final.parent)
    with _failures_of(final), temporary_folder(final) as temporary:
        yield temporary
        _sync_tree(temporary)
        _refuse_existing(final)
        os.rename(temporary, final)
        sync_folder(final.parent)


@contextmanager
def _failures_of(final: Path) -> Iterator[None]:
    """Raises what the disk refuses of a temporary folder's files as the failure of the output they are for."""
    try:
        yield
    except OSError as error:
        beginning = str(final.with_name(f"{TEMPORARY}{label_of(final)}-"))
        names = (error.reason.filename,) if isinstance(error, WriteFailed) else (error.filename, error.filename2)
        if any(str(name).startswith(beginning) for name in names) or (error.errno in FULL and not any(names)):
            raise write_failed(final, error) from error
        raise


def _refuse_existing(final: Path) -> None:
    if final.exists() or final.is_symlink():
        raise Refused(f"{final} exists already. Choose another path or remove it.")


def _sync_tree(folder: Path) -> None:
    for root, _, names in os.walk(folder):
        for name in names:
            descriptor = os.open(Path(root, name), os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        sync_folder(Path(root))


def sync_folder(folder: Path) -> None:
    """Make renames in a folder last through a power cut, where the system can (Windows cannot open folders)."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
