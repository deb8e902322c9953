"""Models in other tools' folders: in the right place, readable there, under names that all take, and nothing of what lay there touched."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from registry.errors import Faults
from registry.exporting.job import place, plan_export, run_export, safe_file_name
from registry.store import Store
from tests import tiny
from tests.registry.made import model

KEY = "attn2_to_k"


def kohya(path: Path, seed: int = 0) -> Path:
    """A LoRA for SD 1 in kohya's names."""
    name = f"lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_{KEY}"
    draw = torch.Generator().manual_seed(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(
        {f"{name}.lora_down.weight": torch.randn(2, 768, generator=draw), f"{name}.lora_up.weight": torch.randn(6, 2, generator=draw)}, path
    )
    return path


def diffusers(path: Path) -> Path:
    name = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
    save_file({f"{name}.lora_A.weight": torch.ones(2, 768), f"{name}.lora_B.weight": torch.ones(6, 2)}, path)
    return path


def exported(store: Store, folder: Path, layout: str, *references: object) -> dict[str, dict[str, Any]]:
    """name -> how it was exported."""
    plan = plan_export([str(reference) for reference in references], store, folder, layout=layout)
    return {item["name"]: item for item in plan.to_json(run_export(plan, store))["items"]}


@pytest.mark.parametrize(
    ("layout", "places"),
    [
        ("comfyui", {"ink": "models/loras", "vae": "models/vae", "mood": "models/embeddings"}),
        ("a1111", {"ink": "models/Lora", "vae": "models/VAE", "mood": "embeddings"}),
    ],
)
def test_every_kind_has_its_folder(layout: str, places: dict[str, str], store: Store, tmp_path: Path) -> None:
    sources = [kohya(tmp_path / "ink.safetensors"), tmp_path / "vae.safetensors", tmp_path / "mood.safetensors"]
    model(sources[1], {"decoder.conv_in.weight": (8, 4, 3, 3), "decoder.up.0.block.0.conv1.weight": (8, 8, 3, 3)})
    model(sources[2], {"emb_params": (2, 768)})
    found = exported(store, tmp_path / "tool", layout, *sources)
    for source in sources:
        target = tmp_path / "tool" / places[source.stem] / source.name
        assert found[source.stem]["target"] == str(target) and found[source.stem]["how"] == "hard link"
        assert target.samefile(source)


def test_what_a_tool_does_not_read_is_converted_as_a_copy(store: Store, tmp_path: Path) -> None:
    source = diffusers(tmp_path / "ink.safetensors")
    before = source.read_bytes()
    found = exported(store, tmp_path / "tool", "comfyui", source)
    target = tmp_path / "tool/models/loras/ink.safetensors"
    assert found["ink"]["how"] == "converted" and "kohya" in found["ink"]["notes"][0]
    assert all(name.startswith("lora_unet_") for name in load_file(target))
    assert source.read_bytes() == before and not target.samefile(source)
    assert exported(store, tmp_path / "tool", "comfyui", source)["ink"]["how"] == "already there"
    assert [entry.name for entry in target.parent.iterdir()] == ["ink.safetensors"]
    assert exported(store, tmp_path / "own", "diffusers", source)["ink"]["how"] == "hard link"


@pytest.mark.slow
def test_folders_are_single_files_for_comfyui_and_folders_for_diffusers(store: Store, tmp_path: Path) -> None:
    sd1, flux1 = tiny.shared_folder("sd1"), tiny.shared_folder("flux1")
    store.add(sd1, name="small")
    store.add(flux1, name="flow", family="flux1")
    found = exported(store, tmp_path / "tool", "comfyui", "small", "flow")
    assert found["small"]["target"].endswith("models/checkpoints/small.safetensors")
    assert found["flow"]["target"].endswith("models/diffusion_models/flow.safetensors")
    assert "double_blocks.0.img_attn.qkv.weight" in load_file(found["flow"]["target"])
    again = exported(store, tmp_path / "tool", "comfyui", "small", "flow")
    assert {item["how"] for item in again.values()} == {"already there"}
    own = exported(store, tmp_path / "own", "diffusers", "small")
    assert Path(own["small"]["target"], "unet", "config.json").samefile(sd1 / "unet" / "config.json")


def test_an_undecided_family_is_asked_for_by_a_command_that_takes_it(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "odd one.safetensors"
    name = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    save_file({f"{name}.lora_A.weight": torch.ones(2, 16), f"{name}.lora_B.weight": torch.ones(16, 2)}, source)
    with pytest.raises(Faults, match=f"may be for .*: loraloom registry add '{source}' --family FAMILY"):
        exported(store, tmp_path / "tool", "comfyui", source)
    store.add(source, name="odd")
    with pytest.raises(Faults, match=r"may be for .*: loraloom registry set odd --family FAMILY"):
        exported(store, tmp_path / "tool", "comfyui", "odd")
    store.override("odd", family="sd1")
    assert exported(store, tmp_path / "tool", "comfyui", "odd")["odd"]["how"] == "converted"


def test_nothing_that_lies_there_is_touched(store: Store, tmp_path: Path) -> None:
    one, other = kohya(tmp_path / "a" / "ink.safetensors"), kohya(tmp_path / "b" / "ink.safetensors", seed=1)
    mine = tmp_path / "tool/models/loras/ink.safetensors"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    plan = plan_export([str(one), str(other)], store, tmp_path / "tool", layout="comfyui")
    names = sorted(item.target.name for item in plan.items)
    run_export(plan, store)
    digests = sorted(f"ink-{str(store.sha256(store.find(str(path))))[:10]}.safetensors" for path in (one, other))
    assert names == digests and mine.read_bytes() == b"mine"


def test_everything_that_cannot_go_is_reported_and_nothing_is_written(store: Store, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    store.add(run, kind="run", name="training")
    loha = tmp_path / "loha.safetensors"
    name = "base_model.model.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
    save_file(
        {f"{name}.hada_w{side}_{part}": torch.rand(*shape) for side in "12" for part, shape in (("a", (6, 2)), ("b", (2, 768)))}, loha
    )
    references = [str(kohya(tmp_path / "ink.safetensors")), "training", str(loha), "nobody"]
    with pytest.raises(Faults) as reported:
        plan_export(references, store, tmp_path / "tool", layout="a1111")
    faults = "\n".join(reported.value.faults)
    assert "kind run" in faults and "nobody" in faults and "loha" in faults
    assert not (tmp_path / "tool").exists()


def test_names_are_such_that_every_system_takes_them() -> None:
    assert safe_file_name("ink: a/b?*") == "ink_a_b"
    assert safe_file_name("run@step-300") == "run_step-300"
    assert safe_file_name("..") == "model" and safe_file_name("Tusche über/墨") == "Tusche_über_墨"
    assert safe_file_name("con.safe") == "_con.safe"
    assert len(safe_file_name("墨" * 500).encode()) <= 200


def test_copies_stand_in_where_links_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.EXDEV, "another disk")

    source = kohya(tmp_path / "ink.safetensors")
    monkeypatch.setattr(os, "link", refused)
    assert place(source, tmp_path / "t" / "linked.safetensors") == "symbolic link"
    monkeypatch.setattr(os, "symlink", refused)
    assert place(source, tmp_path / "t" / "copied.safetensors") == "copy"
    assert (tmp_path / "t" / "copied.safetensors").read_bytes() == source.read_bytes()
    assert not (tmp_path / "t" / "copied.safetensors").is_symlink()
