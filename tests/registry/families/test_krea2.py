"""Krea 2: padding in the middle of the text, a stack of layers, guidance from zero, single files, adapters in original names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from registry.detect.inspect import inspect
from registry.errors import BadFile, Refused
from registry.families import FAMILIES, krea2
from tests.tiny import plain_pipeline, shared_folder, tiny_adapter, tiny_model, tiny_parts, transformer_single_file

VARIANTS = ("base", "distilled")
PROMPTS = ["a cat", "two dogs on a mat"]


def loaded(path: Path, base_config: Path | None = None, dtype: Any = None) -> Any:
    import torch

    return FAMILIES["krea2"].load(path, dtype=dtype or torch.float32, device="cpu", base_config=base_config)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_folder_is_known_with_its_build(variant: str) -> None:
    record = inspect(shared_folder("krea2", variant=variant))
    assert (record.kind, record.family, record.variant, record.prediction.value) == ("checkpoint", "krea2", variant, "flow")
    assert record.components == ("scheduler", "text_encoder", "tokenizer", "transformer", "vae"), "a list of layers is no component"
    assert any("distilled" in warning for warning in tiny_parts("krea2", variant=variant)[1].warnings) == (variant == "distilled")


# --- text


def test_prompts_are_encoded_with_padding_in_the_middle() -> None:
    import torch

    family, parts = tiny_parts("krea2")
    with torch.no_grad():
        actual = family.encode_prompts(parts, PROMPTS)
        reference, mask = plain_pipeline("krea2").encode_prompt(PROMPTS)
    assert torch.allclose(actual["embeds"], reference, atol=1e-5)
    assert actual["mask"].dtype == torch.bool and actual["mask"].equal(mask)
    row = actual["mask"][0].int()
    assert row[0] == row[-1] == 1 and int((row.diff() != 0).sum()) == 2, "text, padding, the template's end"
    assert actual["embeds"].shape[2:] == (3, 32)


def test_a_prompt_that_is_too_long_is_counted(tmp_path: Path) -> None:
    family, parts = tiny_parts("krea2")
    short, fit = family.count_tokens(parts, "a")
    assert fit == 507 and family.count_tokens(parts, "abc")[0] == short + 2


def test_the_mask_is_part_of_the_answer() -> None:
    import torch

    family, parts = tiny_parts("krea2")
    noisy = torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        state = family.encode_prompts(parts, PROMPTS[:1])
        masked = family.predict(parts, noisy, torch.tensor([500.0]), state)
        open_ = family.predict(parts, noisy, torch.tensor([500.0]), {**state, "mask": torch.ones_like(state["mask"])})
    assert float((masked - open_).abs().max()) > 1e-4


@pytest.mark.parametrize(
    ("layers", "reported"), [([1, 2], "takes 3"), ([1, 2, 9], "a text encoder with 3 layers"), (None, "layers"), ([-1, 1, 2], "layers")]
)
def test_layers_that_are_not_there_are_refused(layers: list[int] | None, reported: str, tmp_path: Path) -> None:
    import torch

    folder = tiny_model("krea2", tmp_path / "odd")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"text_encoder_select_layers": layers}))
    with pytest.raises(BadFile, match=f"do not go together: text_encoder_select_layers .*{reported}"):
        FAMILIES["krea2"].load(folder, dtype=torch.float32, device="meta")


# --- denoising


def test_guidance_counts_from_zero() -> None:
    import torch

    family, parts = tiny_parts("krea2")
    a, b = torch.tensor([3.0]), torch.tensor([1.0])
    assert family.guide(a, b, 0.0).equal(a) and family.guide(a, b, 2.0).equal(torch.tensor([7.0]))
    assert family.guided(parts, 0.5, negative=False) and not family.guided(parts, 0.0, negative=True)


def test_a_distilled_build_has_one_shift_at_any_size() -> None:
    import torch

    from infer.draw.samplers import build_scheduler

    family = FAMILIES["krea2"]
    tables = {}
    for variant in VARIANTS:
        _family, parts = tiny_parts("krea2", variant=variant)
        for side in (64, 1024):
            scheduler = build_scheduler(parts)
            family.set_timesteps(scheduler, 4, height=side, width=side)
            tables[variant, side] = scheduler.sigmas
    assert torch.allclose(tables["distilled", 64], tables["distilled", 1024])
    assert not torch.allclose(tables["base", 64], tables["base", 1024])
    expected = 1 / (1 + torch.exp(torch.tensor(-1.15)) * (1 / torch.tensor([1.0, 0.75, 0.5, 0.25]) - 1))
    assert torch.allclose(tables["distilled", 64][:4], expected, atol=1e-5)


def test_norms_stay_in_float32_as_diffusers_keeps_them(tmp_path: Path) -> None:
    import torch

    folder = shared_folder("krea2")
    file = transformer_single_file(folder, tmp_path / "krea2.safetensors", krea2.FILE_NAMES)
    for parts in (loaded(folder, dtype=torch.bfloat16), loaded(file, folder, dtype=torch.bfloat16)):
        dtypes = {name: weight.dtype for name, weight in parts.denoiser.named_parameters()}
        kept = {name for name, dtype in dtypes.items() if dtype == torch.float32}
        assert kept == {name for name in dtypes if "norm" in name}
        assert parts.dtype == torch.bfloat16


# --- files


@pytest.mark.parametrize(("prefix", "original"), [("", True), ("model.diffusion_model.", True), ("", False)])
def test_a_single_file_takes_the_rest_from_base_config(prefix: str, original: bool, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = shared_folder("krea2")
    made = transformer_single_file(folder, tmp_path / "made.safetensors", krea2.FILE_NAMES, prefix=prefix, original=original)
    flat = {name: tensor.flatten() if name.endswith(".mod.lin") else tensor for name, tensor in load_file(made).items()}
    file = tmp_path / "krea2.safetensors"
    save_file(flat, file)  # as published: the six rows of a block's modulation are one vector
    record = inspect(file)
    assert (record.kind, record.family, record.prediction.value) == ("checkpoint", "krea2", "flow")
    with pytest.raises(Refused, match=r"are not in it and are not bundled. Give base_config=FOLDER"):
        loaded(file)
    reference = loaded(folder).denoiser.state_dict()
    actual = loaded(file, folder).denoiser.state_dict()
    assert actual.keys() == reference.keys() and all(tensor.equal(reference[name]) for name, tensor in actual.items())


def test_a_converted_file_has_the_published_shapes(tmp_path: Path) -> None:
    assert krea2.FILE_NAMES.shape_in_file("blocks.3.mod.lin", (6, 64)) == (384,)
    assert krea2.FILE_NAMES.shape_in_file("last.modulation.lin", (2, 64)) == (2, 64)


def test_the_names_are_those_diffusers_reads(tmp_path: Path) -> None:
    from diffusers.loaders.single_file_utils import convert_krea2_transformer_checkpoint_to_diffusers
    from safetensors.torch import load_file

    folder = shared_folder("krea2")
    file = transformer_single_file(folder, tmp_path / "krea2.safetensors", krea2.FILE_NAMES)
    converted = convert_krea2_transformer_checkpoint_to_diffusers(load_file(file))
    expected = loaded(folder).denoiser.state_dict()
    assert converted.keys() == expected.keys()
    assert [name for name, tensor in converted.items() if not tensor.equal(expected[name])] == []


@pytest.mark.parametrize("prefix", ["diffusion_model.", "base_model.model."])
def test_adapters_in_the_first_code_s_names_are_read_as_diffusers_reads_them(prefix: str, tmp_path: Path) -> None:
    import torch
    from diffusers import Krea2Pipeline
    from safetensors.torch import save_file

    family, parts = tiny_parts("krea2")
    modules = dict(parts.denoiser.named_modules())
    generator = torch.Generator().manual_seed(0)
    state = {}
    for layer in krea2.LAYERS:
        one = layer.numbered(["0"] * layer.original.count("*"))
        out, into = modules[one.modules[0]].weight.shape
        state[f"{prefix}{one.original}.lora_A.weight"] = torch.randn(2, into, generator=generator)
        state[f"{prefix}{one.original}.lora_B.weight"] = torch.randn(out, 2, generator=generator)
    file = tmp_path / "adapter.safetensors"
    save_file(state, file)
    assert inspect(file).family == "krea2"
    actual, _facts = family.lora_state(file, parts)
    reference = Krea2Pipeline.lora_state_dict(str(file))
    assert actual.keys() == reference.keys() and all(tensor.equal(reference[key]) for key, tensor in actual.items())


def test_adapters_are_known_by_names_that_only_krea_has(tmp_path: Path) -> None:
    file = tiny_adapter(shared_folder("krea2"), tmp_path / "adapter.safetensors", family="krea2")
    assert inspect(file).family == "krea2"


def test_no_controlnet_is_taken() -> None:
    import torch

    family, parts = tiny_parts("krea2")
    assert isinstance(family.control, str)
    with pytest.raises(Refused, match="takes no ControlNet"):
        family.predict(parts, torch.zeros(1, 16, 8, 8), torch.tensor([1.0]), {}, control={})


def test_the_distilled_build_draws_what_its_plain_pipeline_draws() -> None:
    from tests.infer.draw.test_every_family import TOLERANCE, apart, drawn, job, plain

    build = ("krea2", *tiny_parts("krea2", variant="distilled"), plain_pipeline("krea2", variant="distilled"))
    (actual,) = drawn(build, [job(build, guidance=1.5)])
    assert apart(actual, plain(build, guidance=1.5)) <= TOLERANCE
