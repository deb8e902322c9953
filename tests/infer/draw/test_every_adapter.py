"""Adapters of every family in tests/tiny_families: diffusers' own files draw as in diffusers, and no tensor of any spelling is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from registry.errors import Refused
from tests.tiny import plain_pipeline, shared_folder, tiny_adapter, tiny_parts, transformer_single_file
from tests.tiny_families import builds, module_of

pytestmark = pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning")

TOLERANCE = 1e-5  # of float32 sums in another order, of the widest latent
STEPS = 2
PROMPT = "a red apple"
State = dict[str, Any]


@pytest.fixture(scope="module", params=builds(), ids="-".join)
def build(request: pytest.FixtureRequest) -> tuple[str, str, Any, Any]:
    name, variant = request.param
    return (name, variant, *tiny_parts(name, variant=variant))


def image(family: Any, parts: Any) -> Any:
    """The latents of one image at the family's own guidance."""
    import torch

    from infer.draw.denoise import Job, denoise
    from infer.draw.samplers import build_scheduler

    size = module_of(family.name).SIZE
    with torch.no_grad():
        guided = family.guided(parts, family.guidance, negative=False)
        job = Job(
            conditional=family.encode_prompts(parts, [PROMPT]),
            unconditional=family.encode_unconditional(parts, 1) if guided else None,
            guidance=family.guidance,
            steps=STEPS,
            scheduler=build_scheduler(parts),
            seed=7,
            height=size,
            width=size,
        )
        return denoise(family, parts, [job])[0]


def apart(actual: Any, reference: Any) -> float:
    return float((actual - reference).abs().max()) / max(1.0, float(reference.abs().max()))


def layers_of(family: Any, parts: Any, *, axes: tuple[int, ...] = (2,)) -> dict[str, tuple[Any, dict[str, int]]]:
    """Name in the original implementation -> (Layer, rows of each of its modules), of every layer of this build that an adapter may carry.

    `axes` are those of its weight: 2 of a linear layer, 4 of a convolution.
    """
    from registry.adapters.peft_state import own_layers
    from registry.formats.layers import originals

    weights = {name: layer.weight for name, layer in own_layers(parts.denoiser) if layer.weight.ndim in axes}
    found = originals(family.adapter_names.layers, weights)
    return {
        name: (layer, {module: weights[module].shape[0] for module in layer.modules})
        for name, layer in found.items()
        if all(module in weights for module in layer.modules)
    }


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["attention", "attention_mlp"])
def test_a_file_of_diffusers_draws_as_in_diffusers(build: Any, preset: str, tmp_path: Path) -> None:
    from infer.draw.adapters import attach, detach, set_weights

    name, variant, family, parts = build
    file = tiny_adapter(
        shared_folder(name, variant=variant), tmp_path / "adapter.safetensors", family=name, targets=preset, rank=4, alpha=2.0
    )
    pipeline = plain_pipeline(name, variant=variant)
    pipeline.load_lora_weights(file.parent, weight_name=file.name)
    settings = {"prompt": PROMPT, "negative": None, "guidance": family.guidance, "steps": STEPS, "seed": 7}
    reference = module_of(name).latents(pipeline, size=module_of(name).SIZE, **settings)
    base = image(family, parts)
    attach(family, parts, {"one": file})
    try:
        set_weights(parts, {"one": 1.0})
        actual = image(family, parts)
    finally:
        detach(parts)
    assert apart(actual, reference) <= TOLERANCE
    assert apart(actual, base) > 1e-3, "the adapter shows"
    assert image(family, parts).equal(base)


@pytest.mark.parametrize(
    ("prefix", "flat", "down", "up"),
    [
        ("lora_unet_", True, ".lora_down.weight", ".lora_up.weight"),
        ("diffusion_model.", False, ".lora_A.weight", ".lora_B.weight"),
    ],
    ids=["kohya", "comfyui"],
)
def test_every_layer_of_the_first_code_is_read_row_by_row(build: Any, prefix: str, flat: bool, down: str, up: str, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    _name, _variant, family, parts = build
    generator = torch.Generator().manual_seed(0)
    state: State = {}
    expected: State = {}
    for name, (layer, rows) in layers_of(family, parts).items():
        spelled = prefix + (name.replace(".", "_") if flat else name)
        module = dict(parts.denoiser.named_modules())[layer.modules[0]]
        first, second = torch.randn(2, module.weight.shape[1], generator=generator), torch.randn(sum(rows.values()), 2, generator=generator)
        state |= {spelled + down: first, spelled + up: second, f"{spelled}.alpha": torch.tensor(1.0)}
        if layer.swaps(*module.weight.shape[:2]):
            second = torch.cat(second.chunk(2)[::-1])
        for own, piece in zip(layer.modules, torch.split(second, list(rows.values())), strict=True):
            expected |= {f"{family.denoiser}.{own}.lora_A.weight": first, f"{family.denoiser}.{own}.lora_B.weight": piece}
    save_file(state, tmp_path / "file.safetensors")
    read, facts = family.lora_state(tmp_path / "file.safetensors", parts)
    assert read.keys() == expected.keys() and len(read) > 10
    assert [key for key, tensor in read.items() if not tensor.equal(expected[key])] == []
    assert set(facts["metadata"][f"{family.denoiser}.alpha_pattern"].values()) == {1.0}


def test_a_lokr_on_every_layer_of_the_first_code_lands_row_by_row_and_leaves_no_trace(build: Any, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    from infer.draw.adapters import attach, detach, set_weights

    _name, _variant, family, parts = build
    generator = torch.Generator().manual_seed(0)
    modules = dict(parts.denoiser.named_modules())
    before = {name: weight.detach().clone() for name, weight in parts.denoiser.named_parameters()}
    state: State = {}
    expected: State = {}
    for name, (layer, rows) in layers_of(family, parts).items():
        height, width = sum(rows.values()), modules[layer.modules[0]].weight.shape[1]
        first, second = torch.randn(2, 2, generator=generator), torch.randn(height // 2, width // 2, generator=generator)
        if height % 2 or width % 2:
            continue
        spelled = f"lora_unet_{name.replace('.', '_')}"
        state |= {f"{spelled}.lokr_w1": first, f"{spelled}.lokr_w2": second}
        change = torch.kron(first, second)
        if layer.swaps(*modules[layer.modules[0]].weight.shape[:2]):
            change = torch.cat(change.chunk(2)[::-1])
        for own, piece in zip(layer.modules, torch.split(change, list(rows.values())), strict=True):
            expected[f"{own}.weight"] = before[f"{own}.weight"] + 0.5 * piece
    assert len(expected) > 4
    save_file(state, tmp_path / "lokr.safetensors")
    attach(family, parts, {"one": tmp_path / "lokr.safetensors"})
    try:
        set_weights(parts, {"one": 0.5})
        now = dict(parts.denoiser.named_parameters())
        for key, weight in now.items():
            assert torch.allclose(weight, expected.get(key, before[key]), rtol=1e-5, atol=1e-6), key
    finally:
        detach(parts)
    assert all(weight.equal(before[key]) for key, weight in parts.denoiser.named_parameters())


def test_every_spelling_fits_every_form_of_its_base(build: Any, tmp_path: Path) -> None:
    """`registry fits` and the grid's own check read headers only: original names on a folder and on a file in either spelling."""
    import torch
    from safetensors.torch import save_file

    from registry.detect.compatibility import fits
    from registry.formats.transformer_file import FileNames

    name, variant, family, parts = build
    folder = shared_folder(name, variant=variant)
    modules = dict(parts.denoiser.named_modules())
    kohya: State = {}
    for original, (layer, rows) in layers_of(family, parts).items():
        spelled = f"lora_unet_{original.replace('.', '_')}"
        kohya[f"{spelled}.lora_down.weight"] = torch.zeros(2, modules[layer.modules[0]].weight.shape[1])
        kohya[f"{spelled}.lora_up.weight"] = torch.zeros(sum(rows.values()), 2)
    save_file(kohya, tmp_path / "kohya.safetensors")
    actual = tiny_adapter(folder, tmp_path / "ours.safetensors", family=name, targets="attention_mlp")
    bases = [folder]
    if isinstance(family.file_names, FileNames):
        for first in (True, False):
            file = tmp_path / f"base-{first}.safetensors"
            bases.append(transformer_single_file(folder, file, family.file_names, original=first))
    for adapter in (tmp_path / "kohya.safetensors", actual):
        for base in bases:
            fit = fits(adapter, base)
            assert fit.ok and sum(part.total for part in fit.components.values()) > 4, (base.name, adapter.name, fit.explain())


def test_every_layer_that_can_learn_has_a_name(build: Any) -> None:
    """What a preset trains can be written in kohya's names: no layer is left out of the family's table."""
    from train.lora import matched, targets_of

    _name, _variant, family, parts = build
    known = {module for _name, (layer, _rows) in layers_of(family, parts, axes=(2, 4)).items() for module in layer.modules}
    for preset in family.lora_presets:
        assert set(matched(parts.denoiser, targets_of(family, preset))) <= known, preset


def test_a_file_with_a_layer_of_no_place_is_refused(build: Any, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    name, variant, family, parts = build
    file = tiny_adapter(shared_folder(name, variant=variant), tmp_path / "adapter.safetensors", family=name)
    state = load_file(file)
    state |= {f"{family.denoiser}.other_blocks.0.to_x.lora_{factor}.weight": torch.ones(4, 4) for factor in "AB"}
    save_file(state, tmp_path / "odd.safetensors")
    with pytest.raises(Refused, match=r"2 have not: .*other_blocks\.0\.to_x"):
        family.lora_state(tmp_path / "odd.safetensors", parts)


@pytest.mark.slow
def test_bfloat16_has_the_pipeline_s_own_casts(build: Any) -> None:
    """One row a forward, so that no product is summed in another order: bf16 shows every cast that is elsewhere."""
    import torch

    from infer.draw.samplers import build_scheduler
    from registry.families import FAMILIES

    name, variant, _family, _parts = build
    family = FAMILIES[name]
    parts = family.load(shared_folder(name, variant=variant), dtype=torch.bfloat16, device="cpu")
    pipeline = plain_pipeline(name, variant=variant, dtype=torch.bfloat16)
    pipeline.scheduler = build_scheduler(parts)
    from infer.draw.denoise import Job, denoise

    size, guidance = module_of(name).SIZE, family.guidance if not family.classifier_free(parts) else 0.0
    with torch.no_grad():
        job = Job(
            conditional=family.encode_prompts(parts, [PROMPT]),
            unconditional=None,
            guidance=guidance,
            steps=4,
            scheduler=build_scheduler(parts),
            seed=7,
            height=size,
            width=size,
        )
        (actual,) = denoise(family, parts, [job])
    reference = module_of(name).latents(pipeline, prompt=PROMPT, negative=None, guidance=guidance, steps=4, size=size, seed=7)
    assert actual.dtype == (torch.float32 if family.fp32_latents else torch.bfloat16)
    assert apart(actual.float(), reference.float()) == 0.0
