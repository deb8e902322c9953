"""What a scan remembers of tables of tensors is what it would find again."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from registry.detect.table_facts import TableReader, table_facts
from registry.errors import BadFile
from registry.families import FAMILIES
from registry.formats.model_header import ModelHeader
from registry.formats.safetensors_header import Header, TensorInfo, header_bytes, parse_header, read_header_bytes
from tests.registry.formats.test_safetensors_header import STARTS, mutated
from tests.registry.made import lora, model, sd1_attention


def freshly(path: Path) -> tuple[dict[str, str], object]:
    size, raw = read_header_bytes(path)
    header = parse_header(raw, path=path, file_bytes=size)
    return dict(header.metadata), table_facts(header.tensors, header.metadata)


def test_a_table_that_was_read_before_tells_the_same(tmp_path: Path) -> None:
    reader = TableReader()
    for number, metadata in enumerate(
        ({}, {"ss_base_model_version": "sdxl_base_v1-0"}, {"modelspec.architecture": "stable-diffusion-v1"}, {"note": "é"}, {"a": "b" * 99})
    ):
        path = tmp_path / f"{number}.safetensors"
        name = "lora_unet_down_blocks_1_attentions_0_proj_in"
        model(path, {f"{name}.lora_down.weight": (4, 640), f"{name}.lora_up.weight": (640, 4)}, metadata=metadata)  # of sd1 or sdxl
        size, raw = read_header_bytes(path)
        reported, traits = reader.read(path, size, raw)
        assert (dict(reported), traits) == freshly(path)
    assert len(reader._known) == 4  # a header without metadata; one for each declared base model; the two that declare none


def test_a_file_cut_short_is_not_taken_for_the_whole_one_before(tmp_path: Path) -> None:
    reader = TableReader()
    lora(tmp_path / "x.safetensors", sd1_attention())
    size, raw = read_header_bytes(tmp_path / "x.safetensors")
    reader.read(tmp_path / "x.safetensors", size, raw)
    with pytest.raises(BadFile, match="its data should have"):
        reader.read(tmp_path / "x.safetensors", size - 1, raw)


def test_mutated_headers_are_read_through_the_memory_as_without_it(tmp_path: Path) -> None:
    random_, reader, path = random.Random(7), TableReader(), tmp_path / "x.safetensors"
    read = 0
    for number in range(400):
        path.write_bytes(mutated(random_, STARTS[number % len(STARTS)]) if number % 4 else STARTS[number % len(STARTS)])
        try:
            expected = freshly(path)
        except BadFile:
            with pytest.raises(BadFile):
                reader.read(path, *read_header_bytes(path))
            continue
        reported, traits = reader.read(path, *read_header_bytes(path))
        assert (dict(reported), traits) == expected
        read += 1
    assert read > 100


def test_families_see_only_the_metadata_by_which_a_table_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[ModelHeader] = []
    spy = replace(FAMILIES["sd1"], recognise_adapter=lambda look: seen.append(look))
    monkeypatch.setitem(FAMILIES, "spy", spy)
    tensors = {"lora_unet_x.lora_down.weight": TensorInfo("F16", (4, 640)), "lora_unet_x.lora_up.weight": TensorInfo("F16", (640, 4))}
    table_facts(tensors, {"ss_base_model_version": "sdxl", "note": "mine"})
    assert [(look.metadata, look.path) for look in seen] == [({"ss_base_model_version": "sdxl"}, Path())]


def test_all_of_a_headers_form_is_the_librarys(tmp_path: Path) -> None:
    """The bytes our writer makes are of the form that is read fast."""
    tensors = {"a": TensorInfo("F16", (2, 3)), "b": TensorInfo("F32", ())}
    raw, _ = header_bytes(tensors, {"k": "v"})
    header = parse_header(raw[8:], path=tmp_path, file_bytes=len(raw) + 16)
    assert isinstance(header, Header) and header.tensors == tensors and json.loads(raw[8:])["__metadata__"] == {"k": "v"}
