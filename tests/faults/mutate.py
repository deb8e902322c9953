"""Damage for inputs, from a seed: bytes, plain values, and the headers of model files, sound in form where that reaches further."""

from __future__ import annotations

import json
import math
import struct
from random import Random
from typing import Any

from registry.formats.safetensors_header import DTYPE_BITS

ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 3, 2**31, 2**63, 2**64, 10**400, 0.5, -0.0, 1e308, math.inf, math.nan,
    "", " ", "x", "1e3", "none", "null", "(", "../../x", "a/b", "\x00", "\x1b[2J", "a\nb", "\u202e", "\ud800", "a" * 5000,
    [], [[]], [None], ["x"], [1, 2, 3], {}, {"a": {}}, {"": []},
)  # fmt: skip
BYTES_AT_MOST = 1 << 16  # of a tensor that a mutated header asks for


def damaged_bytes(rng: Random, data: bytes) -> bytes:
    """Some bytes of the data changed, cut, repeated or added."""
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 5, 20))):
        at = rng.randrange(len(found) + 1)
        kind = rng.randrange(6)
        if kind == 0 and at < len(found):
            found[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del found[at : at + rng.randrange(1, 40)]
        elif kind == 2:
            found[at:at] = rng.randbytes(rng.randrange(1, 8))
        elif kind == 3:
            found[at:at] = found[at : at + rng.randrange(1, 60)]
        elif kind == 4:
            found[at : at + 1] = rng.choice((b"\0", b"\xff", b'"', b"{", b"[", b"\\", b"9", b"-", b"\n", b"e", b"\xed\xa0\x80"))
        elif rng.random() < 0.1:
            del found[at:]
    return bytes(found)


def damaged_value(rng: Random, value: Any) -> Any:
    """The plain value with one to three places changed: another type, gone, renamed, doubled, nested."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        value = _changed(rng, value)
    return value


def _changed(rng: Random, value: Any) -> Any:
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        kind = rng.randrange(8)
        if kind == 0:
            return {name: inner for name, inner in value.items() if name != key}
        if kind == 1:
            return {(_spoilt(rng, str(name)) if name == key else name): inner for name, inner in value.items()}
        if kind == 2:
            return {**value, rng.choice(("", "x", "\ud800", str(key) + ".x")): rng.choice(ODD)}
        return {**value, key: _changed(rng, value[key])}
    if isinstance(value, list) and value and rng.random() < 0.8:
        at = rng.randrange(len(value))
        kind = rng.randrange(5)
        if kind == 0:
            return value[:at] + value[at + 1 :]
        if kind == 1:
            return [*value, rng.choice(ODD)]
        return [*value[:at], _changed(rng, value[at]), *value[at + 1 :]]
    if isinstance(value, str) and rng.random() < 0.3:
        return _spoilt(rng, value)
    return rng.choice((*ODD, [value], {"x": value}, str(value)))


def _spoilt(rng: Random, text: str) -> str:
    at = rng.randrange(len(text) + 1)
    return rng.choice(
        (text[:at], text[at:], text[:at] + rng.choice(("\ud800", ".", "/", "\n", "*", " ")) + text[at:], text.upper(), text * 3)
    )


def json_text(rng: Random, value: Any) -> bytes:
    """The value damaged, as JSON; now and then nested deeply or damaged as bytes too."""
    text = json.dumps(damaged_value(rng, value)).encode()
    if rng.random() < 0.02:
        return b'{"x": ' * 2000 + text + b"}" * 2000
    return damaged_bytes(rng, text) if rng.random() < 0.2 else text


def yaml_text(rng: Random, value: Any) -> bytes:
    """The same as YAML."""
    import yaml

    if rng.random() < 0.03:
        return b"[" * 300
    damaged = damaged_value(rng, value)
    text: bytes = yaml.safe_dump(damaged, sort_keys=False).encode("utf-8", "surrogatepass")
    if rng.random() < 0.15:
        tag = rng.choice(
            (
                "!!timestamp x",
                "!!int x",
                "!!float x",
                "!!binary é",
                "!x y",
                "!!set [a]",
                "*a",
                "&a [*a]",
                "!!bool x",
                "2020-13-45",
                "1_000",
                "0o9",
            )
        )
        return text.replace(b": ", b": " + tag.encode() + b" #", 1) if rng.random() < 0.5 else text + f"extra: {tag}\n".encode()
    return damaged_bytes(rng, text) if rng.random() < 0.2 else text


def safetensors(rng: Random, data: bytes) -> bytes:
    """A safetensors file with another header: most are sound in form, with other names, shapes, dtypes and metadata."""
    length = struct.unpack("<Q", data[:8])[0]
    header: dict[str, Any] = json.loads(data[8 : 8 + length])
    if rng.random() < 0.15:
        return data[:8] + damaged_bytes(rng, data[8 : 8 + length]) + data[8 + length :]
    if rng.random() < 0.1:
        raw = json_text(rng, header)
        return struct.pack("<Q", len(raw)) + raw + data[8 + length :]
    metadata = header.pop("__metadata__", {})
    if metadata and rng.random() < 0.3:
        key = rng.choice(list(metadata))
        metadata[key] = _damaged_metadata(rng, metadata[key])
    entries = {name: [entry["dtype"], entry["shape"], data[8 + length + entry["data_offsets"][0] :]] for name, entry in header.items()}
    for _ in range(rng.choice((0, 1, 1, 2, 4))):
        entries = _damaged_entries(rng, entries)
    return _written(metadata, entries)


def _damaged_metadata(rng: Random, text: str) -> str:
    try:
        return json_text(rng, json.loads(text)).decode("utf-8", "replace")
    except ValueError:
        return rng.choice(("", "x", "(", "{", "\ud800"[:0] or "y", "[]", "nan", "1e999", _plain(_spoilt(rng, text))))


def _plain(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def _damaged_entries(rng: Random, entries: dict[str, list[Any]]) -> dict[str, list[Any]]:
    if not entries:
        return {"x": ["F32", [], b"\0" * 4]}
    name = rng.choice(list(entries))
    kind = rng.randrange(7)
    changed = dict(entries)
    dtype, shape, content = changed[name]
    if kind == 0:
        del changed[name]
    elif kind == 1:
        changed[_renamed(rng, name)] = changed.pop(name)
    elif kind == 2:
        changed[name] = [rng.choice(list(DTYPE_BITS)), shape, content]
    elif kind == 3 and shape:
        at = rng.randrange(len(shape))
        changed[name] = [dtype, [*shape[:at], rng.choice((0, 1, 2, 3, 7)), *shape[at + 1 :]], content]
    elif kind == 4:
        changed[name] = [dtype, shape[: rng.randrange(len(shape) + 1)], content]
    elif kind == 5:
        changed[name] = [dtype, [*shape, *rng.choice(([1], [1, 1], [2], [0], [3, 3]))], content]
    else:
        changed[name] = [dtype, shape, rng.choice((b"\0", b"\xff", b"\x7f\x80", b"\x00\x00\x80\x7f", b"\xff\xff\x7f\x7f", b"\x01")) * 4]
    return changed


def _renamed(rng: Random, name: str) -> str:
    dotted = name.split(".")
    at = rng.randrange(len(dotted))
    return rng.choice(
        (
            ".".join(dotted[at:]),
            ".".join(dotted[:at]),
            ".".join([*dotted[:at], *dotted[at + 1 :]]),
            f"{name}.x",
            f"x.{name}",
            name.rpartition(".")[0] + ".alpha",
            name.rpartition(".")[0]
            + rng.choice((".diff", ".diff_b", ".dora_scale", ".lora_mid.weight", ".hada_w1_a", ".lokr_w1", ".oft_blocks", ".w_norm")),
            _plain(_spoilt(rng, name)),
        )
    )


def _written(metadata: dict[str, str], entries: dict[str, list[Any]]) -> bytes:
    """The file with these tensors one behind the other; content is repeated or cut to its size."""
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    data, at = [], 0
    for name, (dtype, shape, content) in entries.items():
        bits = math.prod(shape) * DTYPE_BITS[dtype]
        size = min(-(-bits // 8), BYTES_AT_MOST)
        pattern = content[:4096] or b"\x3c"
        data.append((pattern * (size // len(pattern) + 1))[:size])
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    raw = json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + b"".join(data)
