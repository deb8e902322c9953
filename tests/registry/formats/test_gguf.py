"""GGUF headers, written here by the format's own page."""

import random
import struct
from pathlib import Path

import pytest

from registry.detect.inspect import inspect
from registry.errors import BadFile
from registry.formats.gguf import read_gguf
from registry.formats.safetensors_header import TensorInfo


def text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def gguf(tensors: dict[str, tuple[int, tuple[int, ...]]], architecture: str = "flux", version: int = 3) -> bytes:
    """A GGUF file's header; shapes are given in torch's order and stored innermost first."""
    settings = text("general.architecture") + struct.pack("<I", 8) + text(architecture)
    settings += text("general.file_type") + struct.pack("<II", 4, 2)
    settings += text("tokenizer.tokens") + struct.pack("<IIQ", 9, 8, 3) + text("a") + text("b") + text("c")
    settings += text("scales") + struct.pack("<IIQ", 9, 6, 100) + bytes(400)
    body = b""
    for name, (kind, shape) in tensors.items():
        body += text(name) + struct.pack("<I", len(shape)) + b"".join(struct.pack("<Q", size) for size in reversed(shape))
        body += struct.pack("<IQ", kind, 0)
    return b"GGUF" + struct.pack("<IQQ", version, len(tensors), 4) + settings + body


FLUX = {
    "double_blocks.0.img_attn.norm.key_norm.scale": (0, (128,)),
    "double_blocks.0.img_attn.qkv.weight": (12, (9216, 3072)),
    "img_in.weight": (1, (3072, 64)),
}


def test_names_types_shapes_and_settings(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(gguf(FLUX) + bytes(64))
    header = read_gguf(path)
    assert header.tensors["double_blocks.0.img_attn.qkv.weight"] == TensorInfo("Q4_K", (9216, 3072))
    assert header.metadata["general.architecture"] == "flux" and header.metadata["general.file_type"] == "2"
    assert header.metadata["tokenizer.tokens"] == "['a', 'b', 'c']" and "scales" not in header.metadata


def test_a_quantised_flux_is_known_and_a_language_model_too(tmp_path: Path) -> None:
    (tmp_path / "flux.gguf").write_bytes(gguf(FLUX))
    record = inspect(tmp_path / "flux.gguf")
    assert (record.kind, record.family, record.variant, record.dialect, record.dtype) == (
        "checkpoint",
        "flux1",
        "schnell",
        "gguf",
        "GGUF Q4_K",
    )
    (tmp_path / "llama.gguf").write_bytes(gguf({"blk.0.attn_q.weight": (12, (8, 8))}, "llama"))
    record = inspect(tmp_path / "llama.gguf")
    assert record.kind == "text_encoder" and [warning.code for warning in record.warnings] == ["not-diffusion"]


def test_damage_is_named_and_costs_nothing(tmp_path: Path) -> None:
    sound, path, random_ = gguf(FLUX), tmp_path / "x.gguf", random.Random(3)
    for raw, code in (
        (sound[:-3], "truncated"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 0), "bad-header"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1 << 62), "bad-header"),
        (gguf(FLUX, version=1), "unknown-format"),
        (b"none", "unknown-format"),
    ):
        path.write_bytes(raw)
        with pytest.raises(BadFile) as caught:
            read_gguf(path)
        assert caught.value.code == code
    for _ in range(500):
        data = bytearray(sound)
        for _ in range(random_.randrange(1, 4)):
            data[random_.randrange(len(data))] = random_.randrange(256)
        path.write_bytes(data[: random_.randrange(8, len(data) + 1)])
        try:
            assert all(len(info.shape) <= 8 for info in read_gguf(path).tensors.values())
        except BadFile:
            continue
