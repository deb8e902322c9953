"""What a scan remembers of tables of tensors is what it would find again."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from registry.detect.table_facts import TableReader, table_facts
from registry.detect.verdict import adapter_claims
from registry.errors import BadFile
from registry.families import FAMILIES
from registry.formats.model_header import ModelHeader
from registry.formats.safetensors_header import Header, TensorInfo, header_bytes, parse_header, read_header_bytes
from tests.registry.formats.test_safetensors_header import STARTS, mutated
from tests.registry.made import lora, model, sd1_attention
from tests.registry.published import MODELS, SPELLINGS, Published, adapter_of, of


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


@pytest.mark.parametrize("name", ['"__metadata__"', r'"__met\u0061data__"'])
@pytest.mark.parametrize("place", ["first", "last", "between"])
def test_metadata_are_read_wherever_they_are_in_the_header(place: str, name: str, tmp_path: Path) -> None:
    path, reader = tmp_path / "x.safetensors", TableReader()
    lora(path, sd1_attention(), metadata={"modelspec.architecture": "stable-diffusion-v1/lora", "note": "n"})
    size, raw = read_header_bytes(path)
    values = json.loads(raw)
    metadata = {"__metadata__": values.pop("__metadata__")}
    names = [*values]
    parts = {"first": [metadata, values], "last": [values, metadata]}
    parts["between"] = [{names[0]: values[names[0]]}, metadata, {name: values[name] for name in names[1:]}]
    text = json.dumps({key: value for part in parts[place] for key, value in part.items()}, separators=(",", ":"))
    written = text.replace('"__metadata__"', name).encode()
    path.write_bytes(len(written).to_bytes(8, "little") + written + bytes(size - 8 - len(raw)))
    size, raw = read_header_bytes(path)
    for _ in range(2):  # the second time the table is known
        reported, traits = reader.read(path, size, raw)
        assert reported == {"modelspec.architecture": "stable-diffusion-v1/lora", "note": "n"} and traits == freshly(path)[1]


@pytest.mark.slow
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
    spy = replace(FAMILIES["sd1"], recognise_adapter=lambda look: seen.append(look), may_be_adapter=lambda names: True)
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


DECLARED: tuple[dict[str, str], ...] = (
    {},
    {"modelspec.architecture": "flux-2-dev/lora"},
    {"ss_base_model_version": "chroma"},
    {"ss_base_model_version": "sd_v2"},
)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: f"{model.family}-{model.variant}")
def test_no_family_that_recognises_an_adapter_is_passed_over_by_its_names(model: Published) -> None:
    """By the memory of names the same families answer as when each of them is asked."""
    layers = of(model)[1]
    for spelling in SPELLINGS:
        for attention in (False, True):
            tensors = {name: TensorInfo("F16", shape) for name, shape in adapter_of(layers, spelling, attention=attention).items()}
            for metadata in DECLARED:
                seen = ModelHeader(path=Path(), tensors=tensors, metadata=metadata)
                all_asked = {name for name, family in FAMILIES.items() if family.recognise_adapter(seen)}
                asked = {claim.family for claim in adapter_claims(seen)}
                assert asked & FAMILIES.keys() == all_asked and (asked or metadata)


def test_files_with_the_same_names_share_what_the_names_show_and_not_their_shapes() -> None:
    def header(rank: int, width: int) -> ModelHeader:
        shapes = {"lora_down": (rank, width), "lora_up": (320, rank)}
        name = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
        return ModelHeader(path=Path(), tensors={f"{name}.{role}.weight": TensorInfo("F16", shape) for role, shape in shapes.items()})

    first, second = header(4, 768), header(8, 2048)
    assert first.names is second.names
    facts = [table_facts(one.tensors, {}) for one in (first, second)]
    assert [one.adapter.rank for one in facts if one.adapter] == [4, 8]
    assert [[claim.family for claim in one.claims if claim.match.score > 0.9] for one in facts] == [["sd1"], ["sdxl"]]
