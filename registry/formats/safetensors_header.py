"""Reads the header of a safetensors file strictly, and names the format of a file that is none.

Every rule of the format is checked here, since our readers do not go through the reference library: the length, the 100 MB
limit, duplicate keys, dtypes, shapes whose bytes must agree with their offsets, holes, overlaps and trailing bytes.
"""

import json
import os
import re
import stat
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, NoReturn

from registry.errors import BadFile

HEADER_LIMIT = 100_000_000  # bytes; the reference implementation refuses more
ENTRIES_LIMIT = 300_000  # tensors; the largest models have some thousands, and each costs about 600 bytes of memory
LONGEST_NAME = 4_096  # characters of a tensor's name; Python reads no number of more than 4,300 digits
AT_ONCE = 1 << 16  # bytes of a file that are read first: most headers are shorter
SNIFF = 512  # bytes read to name what is not safetensors

# bits an element, in the order of the format's own enumeration: it is also the order in which data is laid out (descending)
DTYPE_BITS: dict[str, int] = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "F64": 64,
    "I64": 64,
    "U64": 64,
}


class TensorInfo(NamedTuple):
    """One entry of a safetensors header: dtype as the format spells it (F16, BF16, ...), and the shape."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        """How many values; 1 for a scalar."""
        count = 1
        for size in self.shape:
            count *= size
        return count


@dataclass(frozen=True)
class Header:
    """The part before the data: tensors, their (begin, end) bytes counted from `data_start`, and the metadata."""

    tensors: Mapping[str, TensorInfo]
    offsets: Mapping[str, tuple[int, int]]
    metadata: Mapping[str, str] = field(default_factory=dict)
    data_start: int = 8
    file_bytes: int = 8


def read_header(path: Path | str) -> Header:
    """The header of a safetensors file. Reads no tensor data.

    Raises BadFile; `code` says what is there instead: unreadable, truncated, lfs-pointer, pickle, gguf, not-a-model (a page, a text,
    an archive), or what is wrong with the header: header-too-large, bad-header (no JSON, or not of this form), bad-metadata,
    duplicate-key, unknown-dtype, bad-shape, shape-mismatch (its bytes are not those of its offsets), bad-offsets, hole, overlap,
    trailing-bytes.
    """
    path = Path(path)
    size, raw = read_header_bytes(path)
    return parse_header(raw, path=path, file_bytes=size)


def read_header_bytes(path: Path) -> tuple[int, bytes]:
    """(bytes of the whole file, the JSON of its header as written). Raises BadFile as `read_header` does."""
    descriptor, seen = _open_regular(path)
    try:
        size, start = seen.st_size, os.read(descriptor, AT_ONCE)
        _refuse_strangers(path, start[:SNIFF], size)
        length = int.from_bytes(start[:8], "little")
        if length > HEADER_LIMIT:
            raise BadFile(
                path, "header-too-large", f"its header claims {length:,} bytes; at most {HEADER_LIMIT:,} are allowed. The file is damaged."
            )
        if 8 + length > size:
            raise BadFile(path, "truncated", f"its header needs {8 + length:,} bytes, the file has {size:,}. Fetch it again.")
        raw = start[8 : 8 + length]
        while len(raw) < length and (more := os.read(descriptor, length - len(raw))):
            raw += more
    finally:
        os.close(descriptor)
    if len(raw) != length:
        raise BadFile(path, "truncated", "it ended while its header was read. Fetch it again.")
    if length > ENTRIES_LIMIT and (entries := raw.count(b'"dtype"')) > ENTRIES_LIMIT:
        raise BadFile(path, "header-too-large", f"its header has {entries:,} tensors; at most {ENTRIES_LIMIT:,} are read.")
    return size, raw


def open_regular(path: Path) -> BinaryIO:
    """The open file, when it is a regular file; never waits on a pipe. Raises BadFile(code unreadable)."""
    return os.fdopen(_open_regular(path)[0], "rb")


def _open_regular(path: Path) -> tuple[int, os.stat_result]:
    """(descriptor, its stat) of a regular file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0))
    except OSError as error:
        raise BadFile(path, "unreadable", f"cannot be opened: {error.strerror or error}.") from error
    try:
        seen = os.fstat(descriptor)
        if stat.S_ISREG(seen.st_mode):
            return descriptor, seen
    except OSError as error:
        os.close(descriptor)
        raise BadFile(path, "unreadable", f"cannot be read: {error.strerror or error}.") from error
    os.close(descriptor)
    kind = "a folder" if stat.S_ISDIR(seen.st_mode) else "a named pipe" if stat.S_ISFIFO(seen.st_mode) else "a device or socket"
    raise BadFile(path, "unreadable", f"is {kind}; a regular file was expected.")


def parse_header(raw: bytes, *, path: Path, file_bytes: int) -> Header:
    """The Header in the JSON bytes after the length word; `path` is for messages. Raises BadFile as `read_header` does."""
    header = _plain_header(raw, file_bytes)
    if header is None:
        header = _read_entries(raw, path, file_bytes)
    if (longest := max(map(len, header.tensors), default=0)) > LONGEST_NAME:
        raise BadFile(path, "bad-header", f"has a tensor's name of {longest:,} characters; at most {LONGEST_NAME:,} are read.")
    return header


def _read_entries(raw: bytes, path: Path, file_bytes: int) -> Header:
    """The Header entry by entry, with a name for each fault."""
    values = _json(raw, path)
    tensors: dict[str, TensorInfo] = {}
    offsets: dict[str, tuple[int, int]] = {}
    metadata: dict[str, str] = {}
    for name, entry in values.items():
        if name == "__metadata__":
            metadata = _metadata(entry, path)
        else:
            tensors[name], offsets[name] = _entry(name, entry, path)
    data_start = 8 + len(raw)
    _check_layout(offsets, file_bytes - data_start, path)
    return Header(tensors, offsets, metadata, data_start, file_bytes)


# --- the form the reference library writes, read in a few calls: no spaces, metadata first, tensors in the order of their data.
# Whatever is not exactly of this form, sound or not, is read entry by entry above, where the faults have their names.

METADATA_FIRST = '{"__metadata__":'
NAMED_LATER = '"__metadata__"'
# what is between the quotes of `"name":{"dtype":"F16","shape":[4,320],"data_offsets":[0,2560]},`, beside the name, dtype, shape and offsets
BETWEEN = {2: ":{", 3: "dtype", 4: ":", 6: ",", 7: "shape", 9: "data_offsets"}
QUOTES = 10  # an entry
PLAIN_SHAPE = re.compile(r":\[((?:0|[1-9][0-9]{0,19})(?:,(?:0|[1-9][0-9]{0,19}))*)?\],")
CONTROL = re.compile(r"[\x00-\x1f]")


def split_header(raw: bytes) -> tuple[dict[str, str], str] | None:
    """(metadata, the text behind it: all tensors) of a header whose metadata come first or are absent; None for other forms.

    The metadata have been checked, the tensors have not. The spaces that pad a header are not in the text.
    """
    try:
        text = raw.decode("utf-8")
        if not text.startswith(METADATA_FIRST):
            plain = text.startswith('{"') and NAMED_LATER not in text and "\\" not in text  # an escaped name may be that of the metadata
            return ({}, text.rstrip(" ")) if plain else None
        entry, end = STRICT.raw_decode(text, len(METADATA_FIRST))
    except (ValueError, RecursionError):
        return None
    if type(entry) is not dict or not {str}.issuperset(map(type, entry.values())):
        return None
    if "\\u" in text[:end] and not all(_encodable(key) and _encodable(value) for key, value in entry.items()):
        return None
    return entry, text[end:].rstrip(" ")


class PlainTable(NamedTuple):
    """A whole table of tensors in the order of their data, each beginning where the last one ends."""

    names: Sequence[str]
    infos: Sequence[TensorInfo]
    stops: Sequence[int]  # the byte of the data that each ends at
    counts: Mapping[TensorInfo, int]  # how many have each dtype and shape, in the order of the first of them


def plain_table(text: str, data_bytes: int) -> PlainTable | None:
    """The table in the text that `split_header` gives, all rules checked, of a file with so many bytes of data; None for other forms."""
    if text == "}" and not data_bytes:
        return PlainTable([], [], [], {})
    words = text.split('"')
    if len(words) % QUOTES != 1 or words[0] not in ("{", ",") or "\\" in text:
        return None
    count = len(words) // QUOTES
    for place, word in BETWEEN.items():
        if words[place::QUOTES].count(word) != count:
            return None
    names = [*map(PLAIN.__getitem__, words[1::QUOTES])]
    if not names or None in names or len({*names}) != count or "__metadata__" in names:
        return None
    dtypes, shapes = words[5::QUOTES], words[8::QUOTES]
    if dtypes.count(dtypes[0]) == count:  # as nearly every file has it
        sized = _of_dtype(dtypes[0])
        found = [*map(sized.__getitem__, shapes)]
        counts = {sized[shape][0]: number for shape, number in Counter(shapes).items()}
    else:
        found = [_of_dtype(dtype)[shape] for dtype, shape in zip(dtypes, shapes, strict=True)]
        counts = Counter([info for info, _ in found])
    infos, sizes = zip(*found, strict=True)
    if None in sizes or sum(sizes) != data_bytes:
        return None
    stops = [*accumulate(sizes)]
    return PlainTable(names, infos, stops, counts) if '"'.join(words[QUOTES::QUOTES]) == _offsets(stops) else None


def _offsets(stops: Sequence[int]) -> str:
    """What is between the names of tensors that end at these bytes: `:[0,2560]},":[2560,5120]}}`."""
    ends, count = [*map(str, stops)], len(stops)
    parts = [']},":['] * (4 * count - 1)
    parts[0], parts[4::4], parts[1::4], parts[2::4] = "0", ends[:-1], [","] * count, ends
    return f":[{''.join(parts)}]}}}}"


def _plain_header(raw: bytes, file_bytes: int) -> Header | None:
    split = split_header(raw)
    if split is None:
        return None
    metadata, text = split
    data_start = 8 + len(raw)
    found = plain_table(text, file_bytes - data_start)
    if found is None:
        return None
    offsets = dict(zip(found.names, zip([0, *found.stops], found.stops, strict=False), strict=True))
    return Header(dict(zip(found.names, found.infos, strict=True)), offsets, metadata, data_start, file_bytes)


class _PlainNames(dict[str, Any]):
    """A text between two quotes -> the same text, one object for all files; None where it is no name as it is."""

    MOST = 32768  # files of one family share their names

    def __missing__(self, name: str) -> str | None:
        if len(name) > LONGEST_NAME or CONTROL.search(name):
            return None
        if len(self) >= self.MOST:
            self.clear()
        self[name] = name
        return name


class _Sizes(dict[str, tuple[TensorInfo, Any]]):
    """`:[4,320],` -> (dtype and shape, bytes; None where no tensor can be so), of one dtype."""

    MOST = 8192  # a file has few shapes, and files share them

    def __init__(self, dtype: str) -> None:
        self._dtype = dtype

    def __missing__(self, sizes: str) -> tuple[TensorInfo, int | None]:
        found = PLAIN_SHAPE.fullmatch(sizes)
        shape = tuple(map(int, found[1].split(","))) if found and found[1] else ()
        info, bits = TensorInfo(self._dtype, shape), DTYPE_BITS.get(self._dtype)
        total = bits or 0
        for size in shape:
            total *= size
            if size >> 64 or total >> 67:
                return info, None
        if found is None or bits is None or total & 7:
            return info, None
        if len(self) >= self.MOST:
            self.clear()
        return self.setdefault(sizes, (info, total >> 3))


PLAIN = _PlainNames()


@lru_cache(maxsize=32)
def _of_dtype(dtype: str) -> _Sizes:
    return _Sizes(dtype)


def _json(raw: bytes, path: Path) -> dict[str, Any]:
    try:
        values = STRICT.decode(raw.decode("utf-8"))
    except _Duplicate as error:
        _bad(path, str(error), "duplicate-key")
    except (ValueError, RecursionError) as error:  # a UnicodeDecodeError is a ValueError
        if not raw.strip(b"\0"):
            _bad(path, "it is all zeros, as of a download that was not finished")
        reason = str(error) or type(error).__name__
        raise BadFile(path, "bad-header", f"its header is not the JSON of a safetensors file ({reason}).") from error
    if not isinstance(values, dict):
        raise BadFile(path, "bad-header", f"its header is a JSON {type(values).__name__}; an object was expected.")
    return values


class _Duplicate(ValueError):
    """A duplicate key in one object."""


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise _Duplicate(f"it has the key {name!r} twice")
            seen.add(name)
    return values


def _no_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not JSON")


STRICT = json.JSONDecoder(object_pairs_hook=_no_duplicates, parse_constant=_no_constant)


def _metadata(entry: Any, path: Path) -> dict[str, str]:
    if entry is None:
        return {}
    if not isinstance(entry, dict):
        _bad(path, "__metadata__ is not an object", "bad-metadata")
    for key, value in entry.items():
        if not isinstance(value, str):
            _bad(path, f"the metadata value of {key!r} is a {type(value).__name__}; only strings are allowed", "bad-metadata")
        if not _encodable(key) or not _encodable(value):
            _bad(path, f"the metadata entry {key!r} is not valid Unicode", "bad-metadata")
    return entry


def _entry(name: str, entry: Any, path: Path) -> tuple[TensorInfo, tuple[int, int]]:
    if not isinstance(entry, dict):
        _bad(path, f"the entry of {name!r} is not an object")
    dtype, shape, span = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    bits = DTYPE_BITS.get(dtype) if isinstance(dtype, str) else None
    if bits is None or not isinstance(dtype, str):
        _bad(path, f"{name!r} has the unknown dtype {dtype!r}", "unknown-dtype")
    if type(shape) is not list:
        _bad(path, f"the shape of {name!r} is not a list of whole numbers", "bad-shape")
    if type(span) is not list or len(span) != 2 or not all(type(value) is int and 0 <= value < 1 << 64 for value in span):
        _bad(path, f"the data_offsets of {name!r} are not two whole numbers", "bad-offsets")
    if not name.isascii() and not _encodable(name):
        _bad(path, f"the name {name!r} is not valid Unicode")
    total = bits
    for size in shape:
        if type(size) is not int or not 0 <= size < 1 << 64:
            _bad(path, f"the shape of {name!r} is not a list of whole numbers", "bad-shape")
        total *= size
        if total >> 67:  # 2**64 bytes: the sizes of a shape may not overflow even where a later one is 0
            _bad(path, f"the shape of {name!r} overflows: {shape}", "bad-shape")
    if total & 7 or total >> 3 != span[1] - span[0]:
        _bad(
            path,
            f"{name!r} of {dtype} {shape} needs {total / 8:g} bytes, its data_offsets {span} hold {span[1] - span[0]}",
            "shape-mismatch",
        )
    return TensorInfo(dtype, tuple(shape)), (span[0], span[1])


def _encodable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # a lone surrogate
        return False
    return True


def _check_layout(offsets: Mapping[str, tuple[int, int]], data_bytes: int, path: Path) -> None:
    """The data must be covered from its first to its last byte, each byte once."""
    position, last = 0, ""
    for (begin, end), name in sorted((span, name) for name, span in offsets.items()):
        if begin > position:
            _bad(path, f"there is a hole of {begin - position:,} bytes before {name!r}", "hole")
        if begin < position:
            _bad(path, f"{name!r} overlaps {last!r}", "overlap")
        position, last = end, name
    if position > data_bytes:
        raise BadFile(path, "truncated", f"its data should have {position:,} bytes and has {data_bytes:,}. Fetch it again.")
    if position < data_bytes:
        _bad(path, f"there are {data_bytes - position:,} bytes after the last tensor", "trailing-bytes")


def _bad(path: Path, reason: str, code: str = "bad-header") -> NoReturn:
    raise BadFile(path, code, f"its safetensors header is damaged: {reason}.")


# --- what else a file may be


PICKLE = "which can run code when loaded. Convert it to use it: loraloom registry convert FILE --to safetensors --output NEW.safetensors"
MAGICS = {
    b"\x1f\x8b": "a gzip archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"Rar!": "a RAR archive",
    b"\xfd7zXZ": "an xz archive",
    b"\x28\xb5\x2f\xfd": "a zstandard archive",
    b"\x89PNG": "an image (PNG)",
    b"\xff\xd8\xff": "an image (JPEG)",
    b"RIFF": "an image (WebP) or a sound",
    b"\x89HDF": "an HDF5 file, as Keras has them",
    b"%PDF": "a PDF",
    b"\x7fELF": "a program",
    b"SQLite format 3": "a database",
}  # first bytes of what is found under a model's name


def sniff(start: bytes) -> tuple[str, str] | None:
    """(code, what it is) of a file that is no safetensors file, judged by its first bytes; None when it may be one."""
    if start.startswith(b"version https://git-lfs"):
        return "lfs-pointer", "is a Git LFS pointer, not the file itself. Run `git lfs pull` or fetch the file itself."
    if start.startswith(b"GGUF"):
        return "gguf", "is a GGUF file; a safetensors file was expected. Rename it to .gguf."
    if start.startswith(b"PK\x03\x04"):
        if b".pkl" in start or b"/version" in start or b"/byteorder" in start:
            return "pickle", f"is a pickle (torch's zip archive), {PICKLE}"
        return "not-a-model", "is a zip archive, not a safetensors file."
    header = start[8:].lstrip(b" ").startswith(b"{")  # a header of 640 bytes begins with the two bytes of a pickle
    if start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05") and not header:
        return "pickle", f"is a pickle, {PICKLE}"
    archive = next((name for magic, name in MAGICS.items() if start.startswith(magic)), None)
    if archive:
        return "not-a-model", f"is {archive}, not a safetensors file."
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<body")):
        return "not-a-model", "is a web page (a download that needed a login?), not a safetensors file."
    if _is_text(start[:64]):
        return "not-a-model", f"is a text ({start[:40].decode('utf-8', 'replace')!r} ...), not a safetensors file."
    return None


def _is_text(start: bytes) -> bool:
    return len(start) >= 8 and all(32 <= byte < 127 or byte in b"\t\r\n" for byte in start)


def _refuse_strangers(path: Path, start: bytes, size: int) -> None:
    stranger = sniff(start)
    if stranger:
        raise BadFile(path, *stranger)
    if size < 8:
        what = "is empty" if size == 0 else f"has {size} byte{'s' if size > 1 else ''}"
        raise BadFile(path, "truncated", f"{what}; a safetensors file begins with a length of 8 bytes. Fetch it again.")


# --- writing


def header_bytes(tensors: Mapping[str, TensorInfo], metadata: Mapping[str, str]) -> tuple[bytes, list[str]]:
    """(length word and padded JSON, names in the order of the data): the bytes the reference library writes, metadata sorted."""
    order = data_order(tensors)
    values: dict[str, Any] = {"__metadata__": {key: metadata[key] for key in sorted(metadata)}} if metadata else {}
    position = 0
    for name in order:
        info = tensors[name]
        end = position + info.elements * DTYPE_BITS[info.dtype] // 8
        values[name] = {"dtype": info.dtype, "shape": list(info.shape), "data_offsets": [position, end]}
        position = end
    raw = json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    raw += b" " * (-len(raw) % 8)
    return len(raw).to_bytes(8, "little") + raw, order


_RANK = {dtype: rank for rank, dtype in enumerate(DTYPE_BITS)}


def data_order(tensors: Mapping[str, TensorInfo]) -> list[str]:
    """Names as the reference library lays their data out: wide dtypes first, then by name."""
    return sorted(tensors, key=lambda name: (-_RANK[tensors[name].dtype], name.encode("utf-8")))


# --- quantised weights


FP8 = ("F8_E4M3", "F8_E5M2")


def fp8_scale(tensors: Mapping[str, TensorInfo]) -> str | None:
    """The first scale beside an fp8 weight, which is then not the model's own value; None when there is none."""
    small = {key.removesuffix(".weight") for key, info in tensors.items() if info.dtype in FP8 and key.endswith(".weight")}
    return next((key for key, info in tensors.items() if _is_scale(key, info, small)), None) if small else None


def _is_scale(key: str, info: TensorInfo, weights: Collection[str]) -> bool:
    """Whether a tensor scales one of these weights: `weight_scale_inv`, `weight.scale`, `scale`, or one number of any name."""
    owner, _, last = key.rpartition(".")
    if owner.removesuffix(".weight") not in weights or last in ("weight", "bias"):
        return False
    return info.dtype in ("F64", "F32", "F16", "BF16") and (info.elements == 1 or "scale" in last)
