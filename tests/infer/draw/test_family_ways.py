"""Ways of single families that only drawing shows: how negatives are read, whose scheduler walks, what starts from an image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from infer.draw.adapters import attach, detach, set_weights
from infer.draw.control import control_of
from infer.draw.draw import Prompts
from infer.draw.samplers import build_scheduler
from infer.draw.start import Start
from infer.grid.config import Axes, GridConfig
from infer.grid.job import plan
from registry.errors import Refused
from registry.families import FAMILIES
from registry.store import Store
from tests.infer.draw.test_every_family import drawn, job
from tests.tiny import plain_pipeline, shared_folder, tiny_adapter, tiny_parts

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # of diffusers' schedulers under numpy 2


def test_a_drawing_reads_its_negative_without_the_instruction() -> None:
    """The grid's own way to a conditioning, which keeps both readings of one text apart."""
    family, parts = tiny_parts("lumina2")
    prompts = Prompts(family, parts, on_note=lambda _note: None)
    positive, negative = prompts.conditioning("a dog", clip_skip=None), prompts.negative("a dog")
    assert positive["mask"].sum() > negative["mask"].sum() and prompts.encodes == 2
    assert prompts.negative("a dog") is negative and prompts.encodes == 2


def test_a_controlnet_is_refused_with_the_reason() -> None:
    with pytest.raises(Refused, match="diffusers has no ControlNet of it"):
        control_of(FAMILIES["lumina2"])


def test_the_scheduler_is_the_record_s_and_others_keep_its_shift() -> None:
    _family, parts = tiny_parts("sana")
    assert type(build_scheduler(parts)).__name__ == "DPMSolverMultistepScheduler" and parts.prediction == "flow"
    assert build_scheduler(parts).config.flow_shift == 3.0
    for sampler, name in (("euler", "shift"), ("unipc", "flow_shift"), ("dpmpp_2m", "flow_shift")):
        assert build_scheduler(parts, sampler).config[name] == 3.0, sampler


def test_kohya_names_that_diffusers_passes_over_are_read_here(tmp_path: Path) -> None:
    """diffusers' loader takes such a file without an error and changes nothing."""
    from safetensors.torch import load_file, save_file

    family, parts = tiny_parts("sana")
    file = tiny_adapter(parts.source, tmp_path / "a.safetensors", family="sana")
    state = {
        "lora_unet_" + key.removeprefix("transformer.").rpartition(".lora_")[0].replace(".", "_")
        + (".lora_down.weight" if "lora_A" in key else ".lora_up.weight"): tensor
        for key, tensor in load_file(file).items()
    }  # fmt: skip
    save_file(state, tmp_path / "kohya.safetensors")
    noisy, time = torch.randn(1, 8, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([500.0])

    def answer(model: Any) -> Any:
        with torch.no_grad():
            return model(noisy, encoder_hidden_states=torch.ones(1, 4, 32), timestep=time).sample

    pipeline = plain_pipeline("sana")
    before = answer(pipeline.transformer)
    pipeline.load_lora_weights(tmp_path, weight_name="kohya.safetensors")
    assert answer(pipeline.transformer).equal(before)
    pipeline.load_lora_weights(tmp_path, weight_name="a.safetensors")
    attach(family, parts, {"one": tmp_path / "kohya.safetensors"})
    set_weights(parts, {"one": 1.0})
    actual = answer(parts.denoiser)
    detach(parts)
    assert not actual.equal(before) and torch.allclose(actual, answer(pipeline.transformer), atol=1e-6)


def test_a_guidance_that_waits_for_a_negative_prompt_is_reported(tmp_path: Path) -> None:
    """Qwen-Image makes no unconditional pass without one, whatever the scale."""
    base = str(shared_folder("qwen_image"))
    config = GridConfig(base=base, prompt="a cat", size=64, steps=2, axes=Axes(negative=[None, " "]))
    (note,) = [note for note in plan(config, Store(tmp_path)).notes if "guidance" in note]
    assert note == "A guidance of 4 has no effect in Qwen-Image without a negative prompt: give one, 'negative=\" \"' is enough."
    assert not [
        note for note in plan(GridConfig(base=base, prompt="a", size=64, guidance=1.0), Store(tmp_path)).notes if "guidance" in note
    ]


@pytest.mark.parametrize("name", ["lumina2", "sana"])
def test_a_start_without_a_pipeline_of_its_own(name: str) -> None:
    """diffusers has none for these: the recipe is the others', and less strength leaves more of the image."""
    family, parts = tiny_parts(name)
    pixels = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        clean = family.encode_images(parts, pixels).mean
    apart = []
    for strength in (0.25, 0.5, 1.0):
        one = job((name, family, parts, None), guidance=1.0)
        one.start = Start(pixels=pixels, strength=strength)
        apart.append(float((drawn((name, family, parts, None), [one])[0] - clean).abs().mean()))
    assert apart == sorted(apart) and apart[0] < 0.7 * apart[-1]
