"""In every family whose names are known, an adapter of all its layers finds all its places, in a folder and in a single file alike."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from registry.adapters.fuse import plan_fuse, run_fuse
from registry.converting.adapters import plan_adapter, write_planned
from registry.detect.compatibility import fits
from registry.errors import Faults
from registry.families import FAMILIES
from registry.formats.layers import originals
from registry.references import Weighted
from registry.store import Store
from registry.tensors.layout import Layout, read_layout
from registry.tensors.mmap_files import MappedFiles
from registry.tensors.relayout import match_layout
from tests.registry.merging.models import read, single_file, written
from tests.tiny import shared_folder, tiny_adapter, transformer_single_file

NAMED = sorted(name for name, family in FAMILIES.items() if family.file_names is not None and family.adapter_names is not None)


def adapter(family: str, layout: Layout, path: Path, *, without: str = "nothing") -> Path:
    """A LoRA of every matrix that an adapter of the family may carry, in diffusers' names; but of those whose names hold `without`."""
    known = FAMILIES[family]
    assert known.adapter_names is not None
    prefix = f"{known.denoiser}/"
    shapes = {
        key.removeprefix(prefix).removesuffix(".weight"): stored.info.shape
        for key, stored in layout.tensors.items()
        if key.startswith(prefix)
    }
    layers = originals(known.adapter_names.layers, shapes).values()
    modules = [module for layer in layers for module in layer.modules if len(shapes.get(module, ())) == 2 and without not in module]
    assert len(modules) > 10
    values = {}
    for seed, module in enumerate(modules):
        generator = torch.Generator().manual_seed(seed)
        for side, shape in (("A", (2, shapes[module][1])), ("B", (shapes[module][0], 2))):
            values[f"{known.denoiser}.{module}.lora_{side}.weight"] = torch.randn(shape, generator=generator)
    return written(path, values)


@pytest.mark.slow
@pytest.mark.parametrize("family", NAMED)
def test_fusing_into_either_form_gives_the_same_weights(family: str, tmp_path: Path) -> None:
    store, folder = Store(tmp_path / "home"), shared_folder(family)
    first = read_layout(folder)
    lora = adapter(family, first, tmp_path / "lora.safetensors")
    store.add(lora, family=family)
    fused = []
    for base, output in (
        (folder, tmp_path / "fused"),
        (single_file(family, folder, tmp_path / "base.safetensors"), tmp_path / "fused.safetensors"),
    ):
        plan = plan_fuse(str(base), [Weighted(str(lora), 0.5)], store, output)
        assert plan.coverage.share == 1.0, plan.coverage.to_text()
        fused.append(read_layout(run_fuse(plan, store).output))
    actual, expected = fused[0], match_layout(fused[1], fused[0], family=family, kind="checkpoint")
    maps = MappedFiles(file for layout in (first, actual, expected) for stored in layout.tensors.values() for file in stored.files)
    changed = 0
    for key in actual.tensors:
        if actual.component(key) != "denoiser":
            continue
        values = [maps.tensor(layout.tensors[key], 0, layout.tensors[key].info.elements).float() for layout in (first, actual, expected)]
        assert torch.allclose(values[1], values[2], rtol=1e-6, atol=1e-6), key
        changed += not values[0].equal(values[1])
    assert changed > 10


@pytest.mark.slow
@pytest.mark.parametrize("family", NAMED)
def test_an_adapter_in_kohyas_names_changes_the_same_weights(family: str, tmp_path: Path) -> None:
    """Fused layers, other numbers, dots as underscores: converted by the registry, fused into both forms."""
    store, folder = Store(tmp_path / "home"), shared_folder(family)
    actual = adapter(family, read_layout(folder), tmp_path / "ours.safetensors", without="norm")
    expected = tmp_path / "reference.safetensors"
    write_planned(plan_adapter(actual, expected, target="kohya", family=family, base=folder, dtype=None), parents=[])
    for path in (actual, expected):
        store.add(path, family=family)
    for base in (folder, single_file(family, folder, tmp_path / "base.safetensors")):
        layouts = []
        for path in (actual, expected):
            plan = plan_fuse(str(base), [Weighted(str(path), 0.5)], store, tmp_path / f"{base.stem}-{path.stem}{base.suffix}")
            assert plan.coverage.share == 1.0, plan.coverage.to_text()
            layouts.append(read_layout(run_fuse(plan, store).output))
        maps = MappedFiles(stored.file for layout in layouts for stored in layout.tensors.values())
        for key in layouts[0].tensors:
            values = [maps.tensor(layout.tensors[key], 0, layout.tensors[key].info.elements).float() for layout in layouts]
            assert torch.allclose(values[0], values[1], rtol=1e-6, atol=1e-6), key


@pytest.mark.slow
def test_a_base_without_text_encoders_takes_the_rest(tmp_path: Path) -> None:
    """FLUX.1 is published as a transformer alone; adapters with a trained CLIP are fused in their denoiser's part, and say so."""
    store, folder = Store(tmp_path / "home"), shared_folder("flux1")
    base = transformer_single_file(folder, tmp_path / "transformer.safetensors", FAMILIES["flux1"].file_names)
    lora = tiny_adapter(folder, tmp_path / "lora.safetensors", family="flux1", text_encoder=True)
    alone = written(tmp_path / "alone.safetensors", {key: tensor for key, tensor in read(lora).items() if key.startswith("transformer.")})
    plans = [plan_fuse(str(base), [Weighted(str(path), 1.0)], store, tmp_path / f"{path.stem}-fused.safetensors") for path in (lora, alone)]
    encoders = sum(key.startswith("text_encoder.") and "lora_A" in key for key in read(lora))
    assert (plans[0].coverage.share, plans[0].coverage.to_json()["absent"]) == (1.0, {"text_encoder": encoders})
    assert any(f"the base has no text encoder: {encoders} modules of text_encoder are left out" in note for note in plans[0].merge.notes)
    files = [run_fuse(plan, store).output for plan in plans]
    assert all(torch.equal(tensor, read(files[1])[key]) for key, tensor in read(files[0]).items())
    fit = fits(lora, base)
    assert fit.ok and f"The base has no text encoder, for which it has {encoders} more modules." in fit.explain()
    assert not fits(tiny_adapter(folder, tmp_path / "a.safetensors", family="flux1", text_encoder=True), shared_folder("z_image")).ok


def test_an_adapter_of_text_encoders_alone_has_nothing_to_change_there(tmp_path: Path) -> None:
    store, folder = Store(tmp_path / "home"), shared_folder("flux1")
    base = transformer_single_file(folder, tmp_path / "transformer.safetensors", FAMILIES["flux1"].file_names)
    lora = tiny_adapter(folder, tmp_path / "lora.safetensors", family="flux1", text_encoder=True)
    text = written(tmp_path / "text.safetensors", {key: tensor for key, tensor in read(lora).items() if key.startswith("text_encoder.")})
    store.add(text, family="flux1")
    with pytest.raises(Faults, match="the base has no text encoder"):
        plan_fuse(str(base), [Weighted(str(text), 1.0)], store, tmp_path / "fused.safetensors")


def test_dora_on_a_part_of_a_fused_layer_is_computed_from_those_rows(tmp_path: Path) -> None:
    """to_q's magnitudes, of rows and of columns, are about W_q alone: in a file that fuses q, k and v, about its first rows."""
    store, folder = Store(tmp_path / "home"), shared_folder("flux1")
    module = "transformer_blocks.0.attn.to_q"
    shape = read_layout(folder).tensors[f"transformer/{module}.weight"].info.shape
    base = single_file("flux1", folder, tmp_path / "base.safetensors")
    generator = torch.Generator().manual_seed(0)
    factors = {
        f"lora_transformer_{module.replace('.', '_')}.{side}": torch.randn(size, generator=generator)
        for side, size in (("lora_down.weight", (2, shape[1])), ("lora_up.weight", (shape[0], 2)))
    }
    for axis, magnitude in (
        ("rows", torch.rand(shape[0], 1, generator=generator)),
        ("columns", torch.rand(1, shape[1], generator=generator)),
    ):
        lora = written(tmp_path / f"{axis}.safetensors", {**factors, f"lora_transformer_{module.replace('.', '_')}.dora_scale": magnitude})
        store.add(lora, family="flux1")
        apart = run_fuse(plan_fuse(str(folder), [Weighted(str(lora), 0.5)], store, tmp_path / f"{axis}-folder"), store).output
        fused = run_fuse(plan_fuse(str(base), [Weighted(str(lora), 0.5)], store, tmp_path / f"{axis}-fused.safetensors"), store).output
        layout = read_layout(apart)
        stored = layout.tensors[f"transformer/{module}.weight"]
        wanted = MappedFiles([stored.file]).tensor(stored, 0, stored.info.elements).reshape(shape)
        before, after = (
            next(value for key, value in read(path).items() if key.endswith("double_blocks.0.img_attn.qkv.weight"))
            for path in (base, fused)
        )
        assert torch.allclose(after[: shape[0]], wanted, rtol=1e-6, atol=1e-7) and not torch.allclose(after[: shape[0]], before[: shape[0]])
        assert torch.equal(after[shape[0] :], before[shape[0] :])
