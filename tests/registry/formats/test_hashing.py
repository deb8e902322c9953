"""Every hash against its definition, written out with hashlib on literal bytes."""

import hashlib
import json
import struct
from pathlib import Path

import pytest
from blake3 import blake3

from registry.errors import BadFile
from registry.formats.atomic_file import RawTensor, write_raw
from registry.formats.hashing import CHUNK, folder_sha256, hash_file
from tests.registry.made import filled, lora, raw_file, scalar, sd1_attention


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_all_hashes_of_a_file_of_a_few_mebibytes(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    metadata = {"ss_seed": "1", "sshs_model_hash": "ab" * 32, "modelspec.title": "ink"}
    write_raw(path, {"a": filled("F32", (700, 800), "a"), "b": filled("F16", (3,), "b")}, metadata=metadata)
    hashes, learned = hash_file(path)
    raw = path.read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    assert hashes.sha256 == sha256(raw)
    assert hashes.autov2 == sha256(raw)[:10]
    assert hashes.autov1 == sha256(raw[0x100000:0x110000])[:8]
    assert hashes.autov3 == "ab" * 6
    assert hashes.kohya == hashes.tensors_sha256 == sha256(raw[8 + length :])
    assert hashes.blake3 == blake3(raw).hexdigest()
    assert learned == {}


@pytest.mark.parametrize("load", [0.0, 1e9, None])
def test_the_hashes_are_the_same_whether_a_core_is_free_for_each_or_not(
    load: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loads() -> tuple[float, float, float]:
        if load is None:
            raise OSError("Load averages are unobtainable")
        return load, load, load

    monkeypatch.setattr("os.getloadavg", loads, raising=False)
    tensors = {name: filled("F32", (size,), name) for name, size in (("a", 400_000), ("b", 1), ("c", 300_001), ("d", 17))}
    write_raw(tmp_path / "x.safetensors", tensors, metadata={"ss_seed": "1"})
    raw = (tmp_path / "x.safetensors").read_bytes()
    hashes = hash_file(tmp_path / "x.safetensors")[0]
    assert (hashes.sha256, hashes.blake3, hashes.autov1) == (sha256(raw), blake3(raw).hexdigest(), sha256(raw[0x100000:0x110000])[:8])
    assert hashes.content_sha256 == "88658282b10850a5b52baae6f4a51827f0c4afecb6210c8d01241204bd05be20"


def test_kohya_legacy_is_autov1_of_the_file_with_its_ss_metadata_alone(tmp_path: Path) -> None:
    tensors = {"a": filled("F32", (700, 800), "a"), "b": filled("F16", (3,), "b")}
    write_raw(tmp_path / "bare", tensors, metadata={"ss_seed": "1", "ss_note": "ä\n"})
    write_raw(
        tmp_path / "full", tensors, metadata={"ss_seed": "1", "ss_note": "ä\n", "sshs_legacy_hash": "x", "modelspec.title": "t" * 999}
    )
    bare, full = hash_file(tmp_path / "bare")[0], hash_file(tmp_path / "full")[0]
    assert full.kohya_legacy == bare.autov1 == bare.kohya_legacy != full.autov1
    write_raw(tmp_path / "none", tensors, metadata={"modelspec.title": "no ss_ keys"})
    assert hash_file(tmp_path / "none")[0].kohya_legacy is None


def test_small_files_share_autov1_and_a_placeholder_is_no_autov3(tmp_path: Path) -> None:
    empty = sha256(b"")
    write_raw(tmp_path / "x", {"a": scalar(1.0)}, metadata={"sshs_model_hash": empty, "modelspec.hash_sha256": "0x" + "CD" * 32})
    hashes = hash_file(tmp_path / "x")[0]
    assert hashes.autov1 == "e3b0c442" and hashes.autov3 == "cd" * 6
    write_raw(tmp_path / "y", {"a": scalar(1.0)}, metadata={"sshs_model_hash": empty})
    assert hash_file(tmp_path / "y")[0].autov3 is None


def test_other_files_have_the_hashes_of_the_whole_file(tmp_path: Path) -> None:
    data = bytes(range(256)) * (CHUNK // 128)  # two chunks
    (tmp_path / "x.bin").write_bytes(data)
    hashes, _ = hash_file(tmp_path / "x.bin")
    assert (hashes.sha256, hashes.blake3) == (sha256(data), blake3(data).hexdigest())
    assert hashes.autov1 == sha256(data[0x100000:0x110000])[:8]
    assert hashes.kohya is hashes.content_sha256 is hashes.tensors_sha256 is None
    with pytest.raises(BadFile):
        hash_file(tmp_path / "absent")


def test_a_metadata_edit_keeps_the_data_hash_and_the_content_hash(tmp_path: Path) -> None:
    tensors = {"a": filled("F32", (4, 4), "a"), "b": scalar(2.0)}
    first = write_raw(tmp_path / "x", tensors, metadata={"a": "1"})
    second = write_raw(tmp_path / "y", tensors, metadata={"a": "1" * 5000})
    assert first.sha256 != second.sha256
    assert (first.tensors_sha256, first.content_sha256) == (second.tensors_sha256, second.content_sha256)


def test_the_content_hash_does_not_see_the_order_of_the_data(tmp_path: Path) -> None:
    a, b = b"\1\2\3\4", b"\5\6\7\10"
    info = {"dtype": "F32", "shape": [1]}
    (tmp_path / "ab").write_bytes(raw_file({"x": {**info, "data_offsets": [0, 4]}, "y": {**info, "data_offsets": [4, 8]}}, a + b))
    (tmp_path / "ba").write_bytes(raw_file({"y": {**info, "data_offsets": [0, 4]}, "x": {**info, "data_offsets": [4, 8]}}, b + a))
    first, second = hash_file(tmp_path / "ab")[0], hash_file(tmp_path / "ba")[0]
    assert first.tensors_sha256 != second.tensors_sha256
    lines = f"x F32 1 {blake3(a).hexdigest()}\ny F32 1 {blake3(b).hexdigest()}"
    assert first.content_sha256 == second.content_sha256 == sha256(lines.encode())


def test_one_adapter_has_one_content_hash_in_every_dialect(tmp_path: Path) -> None:
    modules = sd1_attention()
    said = {
        lora(tmp_path / "diffusers", modules, alpha=2.0).content_sha256,
        lora(tmp_path / "kohya", modules, alpha=2.0, dialect="kohya").content_sha256,
        lora(tmp_path / "peft", modules, alpha=2.0, dialect="peft", metadata={"note": "m"}, component="unet").content_sha256,
    }
    assert len(said) == 1 and None not in said
    others = {
        lora(tmp_path / "stronger", modules, alpha=4.0).content_sha256,  # alpha 4 of rank 4: as strong as none
        lora(tmp_path / "seed", modules, alpha=2.0, seed="other").content_sha256,
    }
    assert len(said | others) == 3
    assert lora(tmp_path / "none", modules).content_sha256 == lora(tmp_path / "rank", modules, alpha=4.0, dialect="kohya").content_sha256


def test_kohyas_names_of_ldm_blocks_are_the_same_content(tmp_path: Path) -> None:
    diffusers = {
        "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q": (8, 8),
        "mid_block.attentions.0.transformer_blocks.0.attn2.to_k": (6, 8),
        "up_blocks.1.attentions.2.proj_in": (8, 8),
    }
    names = (
        "input_blocks_4_1_transformer_blocks_0_attn1_to_q",
        "middle_block_1_transformer_blocks_0_attn2_to_k",
        "output_blocks_5_1_proj_in",
    )
    kohya = lora(tmp_path / "kohya", diffusers, alpha=1.0, dialect="kohya")
    tensors = {}
    for ldm, (name, (into, out)) in zip(names, diffusers.items(), strict=True):
        tensors[f"lora_unet_{ldm}.lora_down.weight"] = filled("F32", (4, into), f"{name} down ")
        tensors[f"lora_unet_{ldm}.lora_up.weight"] = filled("F32", (out, 4), f"{name} up ")
        tensors[f"lora_unet_{ldm}.alpha"] = scalar(1.0)
    assert write_raw(tmp_path / "ldm", tensors, metadata={}).content_sha256 == kohya.content_sha256


def test_reading_all_of_an_adapter_tells_alpha_and_a_zero_product(tmp_path: Path) -> None:
    lora(tmp_path / "kohya", sd1_attention(), alpha=0.5, dialect="kohya")
    assert hash_file(tmp_path / "kohya")[1] == {"alpha": 0.5}
    zero = {
        "unet.a.lora_A.weight": filled("F32", (4, 300), "a"),
        "unet.a.lora_B.weight": RawTensor("F32", (20_000, 4), bytes(320_000)),
    }
    write_raw(tmp_path / "zero", zero, metadata={})
    assert [warning["code"] for warning in hash_file(tmp_path / "zero")[1]["warnings"]] == ["zero-delta"]
    zero["unet.b.lora_A.weight"], zero["unet.b.lora_B.weight"] = filled("F32", (4, 3), "b"), filled("F32", (3, 4), "c")
    write_raw(tmp_path / "not", zero, metadata={})
    assert hash_file(tmp_path / "not")[1] == {}


def test_a_folders_hash_is_that_of_its_sorted_lines() -> None:
    assert folder_sha256({"b/c": "22", "a": "11"}) == sha256(b"a, 11\nb/c, 22\n")
    assert json.dumps(folder_sha256({})) == json.dumps(sha256(b""))


@pytest.mark.parametrize(
    "settings",
    [{"unet.lora_alpha": "x"}, {"unet.lora_alpha": 10**400}, {"unet.lora_alpha": 2, "unet.alpha_pattern": {"to_q": "x"}}],
    ids=["a text", "beyond a float", "a text for a module"],
)
def test_an_adapter_whose_alpha_is_no_number_has_no_content_hash(settings: dict[str, object], tmp_path: Path) -> None:
    modules = {"down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q": (8, 8)}
    hashes = lora(tmp_path / "x.safetensors", modules, metadata={"lora_adapter_metadata": json.dumps(settings)})
    assert hashes.content_sha256 is None and hashes.sha256 == sha256((tmp_path / "x.safetensors").read_bytes())


def test_a_factor_without_axes_is_hashed(tmp_path: Path) -> None:
    name, metadata = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q", {"lora_adapter_metadata": '{"unet.lora_alpha": 2}'}
    tensors = {f"{name}.lora_A.weight": scalar(1.0), f"{name}.lora_B.weight": filled("F32", (8, 4))}
    assert write_raw(tmp_path / "x.safetensors", tensors, metadata=metadata).content_sha256 is not None
