"""Reads the header of a GGUF file: its settings and its tensors' names, types, shapes and places. Never the tensors.

Format (ggml's gguf.md, versions 2 and 3): magic, version, counts, settings as key, type, value; then name, axes (innermost
first), type, offset of every tensor. Everything is bounded, so that a damaged file costs no more than its header.
"""

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from registry.errors import BadFile
from registry.formats.safetensors_header import HEADER_LIMIT, Header, TensorInfo, open_regular
from registry.plain_values import from_json

SETTINGS_LIMIT = 100_000
TENSORS_LIMIT = 100_000
TEXT_LIMIT = 1 << 20  # bytes a text; a tokenizer's texts are longer only as lists
AXES_LIMIT = 8
ALIGNMENT = 32  # bytes that the data and each tensor begin at a multiple of, unless general.alignment says otherwise
SHAPE = "comfy.gguf.orig_shape."  # setting of a tensor that is stored in another shape than the model's
LONG_LIST = 64  # values; longer lists (a tokenizer's) are passed over

NUMBERS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
TEXT, LIST = 8, 9

# ggml's tensor types by number; those of GGUF files in use
TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 9: "Q8_1", 10: "Q2_K", 11: "Q3_K", 12: "Q4_K", 13: "Q5_K",
    14: "Q6_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS",
    24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 29: "IQ1_M", 30: "BF16", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4",
}  # fmt: skip

PLAIN = ("F64", "F32", "F16", "BF16", "I8", "I16", "I32", "I64")  # numbers without scales
QUANTISED = tuple(name for name in TYPES.values() if name not in PLAIN)


def read_gguf(path: Path) -> Header:
    """The header of a GGUF file, shapes turned to torch's order; `metadata` has the settings that are numbers and texts.

    `offsets` has where each tensor begins, and the same again as its end: its bytes follow from its type (registry/quantised/ggml).
    Raises BadFile (truncated, bad-header, unreadable).
    """
    with open_regular(path) as file:
        size = file.seek(0, 2)
        file.seek(0)
        reader = _Reader(file, path, min(size, HEADER_LIMIT))
        if reader.take(4) != b"GGUF":
            raise BadFile(path, "unknown-format", "does not begin as a GGUF file.")
        version = reader.number("<I")
        if version not in (2, 3):
            raise BadFile(path, "unknown-format", f"is GGUF of version {version}; 2 and 3 are known.")
        tensor_count, setting_count = reader.count(TENSORS_LIMIT, "tensors"), reader.count(SETTINGS_LIMIT, "settings")
        metadata = _settings(reader, setting_count)
        tensors, begins = _tensors(reader, tensor_count)
    alignment = _alignment(path, metadata)
    return Header(tensors, begins, metadata, -(-reader.position // alignment) * alignment, size)


def _alignment(path: Path, metadata: Mapping[str, str]) -> int:
    given = metadata.get("general.alignment", str(ALIGNMENT))
    if not given.isascii() or not given.isdigit() or not 0 < int(given) <= TEXT_LIMIT:
        raise BadFile(path, "bad-header", f"its GGUF header has general.alignment {given[:20]!r}; a number of bytes was expected.")
    return int(given)


def own_shape(header: Header, name: str) -> tuple[int, ...]:
    """A tensor's shape in the model: the one that is written beside it, where rows of it are no whole blocks (ComfyUI-GGUF).

    Raises ValueError for one that is none of its weights.
    """
    info, text = header.tensors[name], header.metadata.get(f"{SHAPE}{name}")
    if text is None:
        return info.shape
    shape = from_json(text)
    if isinstance(shape, list) and all(type(size) is int and size > 0 for size in shape) and math.prod(shape) == info.elements:
        return tuple(shape)
    raise ValueError(f"{SHAPE}{name} is {text[:40]}, which is no shape of {info.elements:,} weights")


def as_in_the_model(header: Header) -> Header:
    """The header with the shapes of the model. Raises ValueError."""
    shapes = {name: TensorInfo(info.dtype, own_shape(header, name)) for name, info in header.tensors.items()}
    return replace(header, tensors=shapes)


@dataclass
class _Reader:
    file: BinaryIO
    path: Path
    limit: int
    position: int = 0

    def take(self, length: int) -> bytes:
        if self.position + length > self.limit:
            code = "truncated" if self.limit < HEADER_LIMIT else "header-too-large"
            raise BadFile(self.path, code, f"its GGUF header goes past byte {self.limit:,}. Fetch it again.")
        data = self.file.read(length)
        self.position += length
        if len(data) != length:
            raise BadFile(self.path, "truncated", "it ended while its header was read. Fetch it again.")
        return data

    def number(self, kind: str) -> Any:
        return struct.unpack(kind, self.take(struct.calcsize(kind)))[0]

    def count(self, most: int, what: str) -> int:
        found = int(self.number("<Q"))
        if found > most:
            raise BadFile(self.path, "bad-header", f"its GGUF header claims {found:,} {what}; at most {most:,} are allowed.")
        return found

    def text(self) -> str:
        return self.take(self.count(TEXT_LIMIT, "bytes of text")).decode("utf-8", "replace")


def _settings(reader: _Reader, count: int) -> dict[str, str]:
    found: dict[str, str] = {}
    for _ in range(count):
        key = reader.text()
        value = _value(reader, reader.number("<I"))
        if value is not None:
            found[key] = str(value)
    return found


def _value(reader: _Reader, kind: int) -> Any:
    """A setting's value; None for long lists and lists of lists, which nothing here reads."""
    if kind == TEXT:
        return reader.text()
    if kind in NUMBERS:
        return reader.number(NUMBERS[kind])
    if kind != LIST:
        raise BadFile(reader.path, "bad-header", f"its GGUF header has a setting of the unknown type {kind}.")
    inner, count = reader.number("<I"), reader.count(HEADER_LIMIT, "values in a list")
    if inner in NUMBERS:
        data = reader.take(count * struct.calcsize(NUMBERS[inner]))
        return list(struct.unpack(f"<{count}{NUMBERS[inner][1]}", data)) if count <= LONG_LIST else None
    if inner != TEXT:
        raise BadFile(reader.path, "bad-header", "its GGUF header has a list of lists.")
    texts = [reader.text() for _ in range(min(count, LONG_LIST))]
    for _ in range(count - len(texts)):
        reader.text()
    return texts if count <= LONG_LIST else None


def _tensors(reader: _Reader, count: int) -> tuple[dict[str, TensorInfo], dict[str, tuple[int, int]]]:
    found: dict[str, TensorInfo] = {}
    begins: dict[str, tuple[int, int]] = {}
    for _ in range(count):
        name = reader.text()
        axes = reader.number("<I")
        if axes > AXES_LIMIT or name in found:
            raise BadFile(reader.path, "bad-header", f"its GGUF header has {name!r} twice or with {axes} axes.")
        shape = tuple(int(reader.number("<Q")) for _ in range(axes))
        kind = reader.number("<I")
        begin = int(reader.number("<Q"))
        begins[name] = (begin, begin)
        found[name] = TensorInfo(TYPES.get(kind, f"GGML_{kind}"), shape[::-1])
    return found, begins
