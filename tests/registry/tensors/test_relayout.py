"""A single file merged with a diffusers folder: the numbers are those of a merge in one form, whichever comes first."""

from __future__ import annotations

from functools import cache
from itertools import permutations
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

import pytest
import torch

from registry.errors import Faults
from registry.families import FAMILIES
from registry.merging.job import merge
from registry.merging.plan import plan_merge
from registry.store import Store
from registry.tensors.layout import Layout, Stored, read_layout
from registry.tensors.mmap_files import MappedFiles
from registry.tensors.relayout import match_layout
from tests.registry.merging.models import read, recipe, single_file, transformer_names, written
from tests.tiny import shared_folder, tiny_flux1, tiny_sd1, tiny_sdxl, tiny_single_file

if TYPE_CHECKING:
    from torch import Tensor

BUILDS = {"sd1": tiny_sd1, "sdxl": tiny_sdxl, "flux1": tiny_flux1}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home")


@cache
def models(family: str) -> tuple[Path, Path, Path, Path]:
    """Two models of a family, each as a folder and as a single file: (a folder, a file, b folder, b file)."""
    place = Path(mkdtemp(prefix="forms-"))
    a, b = (BUILDS[family](place / name) for name in ("a", "b"))  # type: ignore[operator]  # builders of other settings
    for path in sorted(b.rglob("*.safetensors")):
        written(path, {name: (value * 0.75 + 0.01).contiguous() for name, value in read(path).items()}, format="pt")
    files = [tiny_single_file(folder, place / f"{folder.name}.safetensors", family=family) for folder in (a, b)]
    return a, files[0], b, files[1]


def tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a model."""
    layout = read_layout(path)
    maps = MappedFiles(stored.file for stored in layout.tensors.values())
    return {key: value(maps, stored) for key, stored in layout.tensors.items()}


def value(maps: MappedFiles, stored: Stored) -> Tensor:
    return maps.tensor(stored, 0, stored.info.elements).clone().reshape(stored.info.shape)


@pytest.mark.slow
@pytest.mark.parametrize("family", BUILDS)
def test_a_file_and_a_folder_merge_as_two_of_one_form(family: str, store: Store, tmp_path: Path) -> None:
    a, a_file, b, b_file = models(family)
    settings: dict[str, Any] = {"params": {"alpha": 0.3}, "components": ["denoiser"] if family == "flux1" else None}
    for one, other, same in ((a, b_file, b), (a_file, b, b_file)):
        ending = ".safetensors" if one.is_file() else ""
        mixed = merge(recipe(one, other, **settings), store, tmp_path / f"mixed{ending}").output
        alike = merge(recipe(one, same, **settings), store, tmp_path / f"alike{ending}").output
        found, wanted = tensors(mixed), tensors(alike)
        assert found.keys() == wanted.keys() == tensors(one).keys()
        assert all(found[key].equal(wanted[key]) for key in wanted)
        assert any(not found[key].equal(tensor) for key, tensor in tensors(one).items())


NAMED = sorted(name for name, family in FAMILIES.items() if family.file_names is not None)


@pytest.mark.slow
@pytest.mark.parametrize("family", NAMED)
def test_every_form_in_that_of_every_other_gives_every_number(family: str, tmp_path: Path) -> None:
    """A folder, a file in original names, and for transformers files in diffusers' names, with a prefix and without."""
    folder = shared_folder(family)
    forms = [folder]
    if transformer_names(family) is not None:
        ways: list[dict[str, Any]] = [
            {},
            {"prefix": "model.diffusion_model."},
            {"original": False},
            {"original": False, "prefix": "transformer."},
        ]
        forms += [single_file(family, folder, tmp_path / f"{n}.safetensors", **way) for n, way in enumerate(ways)]
    else:
        forms.append(single_file(family, folder, tmp_path / "file.safetensors"))
    for own, other in permutations(forms, 2):
        first, layout = read_layout(own), read_layout(other)
        reported = match_layout(layout, first, family=family, kind="checkpoint")
        maps = MappedFiles(stored.file for one in (first, layout) for stored in one.tensors.values())
        denoiser = [key for key in first.tensors if first.component(key) == "denoiser"]
        assert len(denoiser) > 30 and all(key in reported.tensors for key in denoiser), (own, other)
        for key in first.tensors:
            if key in reported.tensors:
                assert value(maps, reported.tensors[key]).equal(value(maps, first.tensors[key])), (own, other, key)


def test_pieces_of_what_is_fused_or_turned_are_those_of_the_whole() -> None:
    """Blocks begin anywhere: across the thirds of q, k, v, and inside a transposed matrix."""
    a, _, _, b_file = models("sdxl")
    first, layout = read_layout(b_file), read_layout(a)
    reported = match_layout(layout, first, family="sdxl", kind="checkpoint")
    maps = MappedFiles(stored.file for stored in layout.tensors.values())
    fused = next(stored for key, stored in reported.tensors.items() if key.endswith("attn.in_proj_weight"))
    turned = next(stored for key, stored in reported.tensors.items() if key.endswith("text_projection"))
    assert len(fused.parts) == 3 and turned.turned
    for stored in (fused, turned):
        whole = maps.tensor(stored, 0, stored.info.elements)
        for begin, count in ((0, 5), (7, 100), (stored.info.elements // 3 - 3, 9), (stored.info.elements - 4, 4)):
            assert maps.tensor(stored, begin, count).equal(whole[begin : begin + count])


def test_a_denoiser_alone_is_reported_and_components_merges_it(store: Store, tmp_path: Path) -> None:
    a, _, _, b_file = models("flux1")
    with pytest.raises(Faults, match=r"components=\[denoiser\] merges what both have"):
        plan_merge(recipe(a, b_file), store, tmp_path / "out")
    plan = plan_merge(recipe(a, b_file, components=["denoiser"]), store, tmp_path / "out")
    assert not plan.keys.extra and plan.keys.counts()["merged"] == 112


def test_a_folder_without_configs_says_what_is_missing(store: Store, tmp_path: Path) -> None:
    import shutil

    a, _, _, b_file = models("sd1")
    bare = tmp_path / "bare"
    shutil.copytree(a, bare)
    (bare / "unet" / "config.json").unlink()
    with pytest.raises(Faults, match=r"has no unet/config\.json with the architecture of its unet"):
        plan_merge(recipe(bare, b_file), store, tmp_path / "out")


@pytest.mark.slow
@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_a_vae_of_either_form_is_baked_into_a_model_of_either_form(family: str, store: Store, tmp_path: Path) -> None:
    a, a_file, b, b_file = models(family)
    rules = [{"match": r"^(first_stage_model\.|vae[/.])", "take": 2}]
    alone = tmp_path / "alone.safetensors"  # a VAE of its own in the original implementation's names
    prefix = "first_stage_model."
    written(alone, {key.removeprefix(prefix): tensor for key, tensor in tensors(b_file).items() if key.startswith(prefix)})
    store.add(alone, kind="vae")
    store.add(b / "vae", kind="vae", name="folder-vae")
    pairs: list[tuple[Path, Path | str]] = [
        (a, alone),
        (a, "folder-vae"),
        (a_file, alone),
        (a_file, "folder-vae"),
        (a, b_file),
        (a_file, b),
    ]
    for number, (model, vae) in enumerate(pairs):
        output = tmp_path / f"out{number}{'.safetensors' if model.is_file() else ''}"
        found = tensors(merge(recipe(model, vae, method="copy", rules=rules), store, output).output)
        own, other = tensors(model), tensors(b_file if model.is_file() else b)
        assert found.keys() == own.keys()
        for key, tensor in found.items():
            assert tensor.equal((other if key.startswith((prefix, "vae/")) else own)[key]), (number, key)


@pytest.mark.slow
def test_two_vaes_of_both_codes_names_are_averaged(store: Store, tmp_path: Path) -> None:
    _, a_file, b, b_file = models("sd1")
    prefix = "first_stage_model."
    alone = written(
        tmp_path / "alone.safetensors", {key[len(prefix) :]: tensor for key, tensor in tensors(a_file).items() if key.startswith(prefix)}
    )
    store.add(alone, kind="vae")
    store.add(b / "vae", kind="vae", name="folder-vae")
    wanted = {key[len(prefix) :]: (tensor + tensors(a_file)[key]) / 2 for key, tensor in tensors(b_file).items() if key.startswith(prefix)}
    found = read(merge(recipe(alone, "folder-vae", method="average"), store, tmp_path / "out.safetensors").output)
    assert found.keys() == wanted.keys() and all(torch.allclose(found[key], wanted[key], rtol=0, atol=1e-6) for key in wanted)
    back = tensors(merge(recipe("folder-vae", alone, method="average"), store, tmp_path / "out").output)
    assert back.keys() == tensors(b / "vae").keys() and sum(float(value.double().sum()) for value in back.values()) == pytest.approx(
        sum(float(value.double().sum()) for value in wanted.values()), rel=1e-6
    )


def test_spellings_of_one_form_are_one(store: Store, tmp_path: Path) -> None:
    """CLIP with and without `text_model.`, a denoiser with and without its prefix, a linear layer stored as a 1 x 1 convolution."""
    text = "cond_stage_model.transformer."
    a = {f"{text}text_model.final_layer_norm.weight": torch.ones(3), "double_blocks.0.img_attn.qkv.weight": torch.ones(6, 2)}
    b = {
        f"{text}final_layer_norm.weight": torch.zeros(3),
        "model.diffusion_model.double_blocks.0.img_attn.qkv.weight": torch.zeros(6, 2, 1, 1),
    }
    paths = [written(tmp_path / f"{n}.safetensors", values) for n, values in enumerate((a, b))]
    for one, other, own in ((paths[0], paths[1], a), (paths[1], paths[0], b)):
        found = read(merge(recipe(one, other, params={"alpha": 0.5}), store, tmp_path / f"out-{one.name}").output)
        assert {key: tuple(tensor.shape) for key, tensor in found.items()} == {key: tuple(tensor.shape) for key, tensor in own.items()}
        assert all(tensor.eq(0.5).all() for tensor in found.values())


def test_a_layout_that_fits_nowhere_stays_as_it_is(tmp_path: Path) -> None:
    a, _, _, _ = models("sd1")
    other: Layout = read_layout(written(tmp_path / "other.safetensors", {"decoder.odd.weight": torch.ones(2)}))
    assert match_layout(other, read_layout(a), family="sd1", kind="vae").tensors.keys() == {"decoder.odd.weight"}
