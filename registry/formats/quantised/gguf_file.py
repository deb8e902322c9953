"""GGUF files: blocks as they are stored, in the shapes of the model.

ggml's types take tensors whose rows are whole blocks. Others (a convolution's) are written in another shape, with their own under the
setting `comfy.gguf.orig_shape.NAME` (city96's ComfyUI-GGUF); llama.cpp's text encoders have names of their own
(registry/formats/quantised/llama_names).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from registry.formats.gguf import PLAIN, own_shape, read_gguf
from registry.formats.quantised.packed import Found, Packed, Read
from registry.formats.safetensors_header import DTYPE_BITS, Header, TensorInfo
from registry.quantised.ggml import TYPES, coding_of, row_bytes

if TYPE_CHECKING:
    from torch import Tensor


def gguf_header(path: Path, found: Found) -> Header:
    """The header as one of plain tensors, quantised ones as bytes (rows, bytes of a row); what they are is added to `found`."""
    header = read_gguf(path)
    tensors: dict[str, TensorInfo] = {}
    offsets: dict[str, tuple[int, int]] = {}
    for key, info in header.tensors.items():
        stored = _stored(key, info, found)
        if stored is None:
            continue
        begin = header.offsets[key][0]
        tensors[key], offsets[key] = stored, (begin, begin + stored.elements * DTYPE_BITS[stored.dtype] // 8)
        if header.data_start + offsets[key][1] > header.file_bytes:
            found.faults.append(f"{key} lies behind the end of the file. Fetch it again")
        shape = _shape(header, key, found)
        if info.dtype in TYPES:
            found.packed[key] = Packed(coding_of(info.dtype), TensorInfo(info.dtype, shape), partial(_blocks, key))
        elif shape != info.shape:
            tensors[key] = TensorInfo(stored.dtype, shape)
    return Header(tensors, offsets, header.metadata, header.data_start, header.file_bytes)


def _stored(key: str, info: TensorInfo, found: Found) -> TensorInfo | None:
    """As plain numbers or bytes; None for a type that is not read."""
    if info.dtype in PLAIN:
        return info
    if info.dtype not in TYPES:
        found.faults.append(f"{key} is in GGUF's {info.dtype}; {', '.join(sorted(TYPES))} are read")
        return None
    rows = row_bytes(info.dtype, info.shape)
    if rows is None:
        found.faults.append(f"{key} is {info.shape}, whose rows are no whole blocks of {TYPES[info.dtype].weights}")
        return None
    return TensorInfo("U8", rows)


def _shape(header: Header, key: str, found: Found) -> tuple[int, ...]:
    try:
        return own_shape(header, key)
    except ValueError as error:
        found.faults.append(str(error))
        return header.tensors[key].shape


def _blocks(key: str, read: Read) -> tuple[Tensor, ...]:
    return (read(key),)
