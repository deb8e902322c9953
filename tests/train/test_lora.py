import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from registry.errors import Faults, Refused
from registry.families import FAMILIES
from registry.parts import Parts
from train.config import LoraConfig, OptimConfig, TrainConfig
from train.lora import (
    adapter_disabled,
    add_lora,
    add_loras,
    encoder_targets,
    learning_modules,
    lora_tensors,
    matched,
    parameter_count,
    set_lora_tensors,
    targets_of,
)

SD1 = FAMILIES["sd1"]


@pytest.fixture
def parts(base: Path) -> Parts:
    return SD1.load(base, dtype=torch.float32, device="cpu")


@pytest.mark.parametrize("preset", ["attention", "attention_mlp", "convolutions"])
def test_the_count_from_shapes_is_the_count_of_weights(parts: Parts, preset: str) -> None:
    targets = targets_of(SD1, preset)
    names = matched(parts.denoiser, targets)
    counted = parameter_count(parts.denoiser, names, LoraConfig(rank=3))
    weights = add_lora(parts.denoiser, TrainConfig(lora=LoraConfig(rank=3)), targets)
    assert len(weights) == 2 * len(names)
    assert sum(weight.numel() for _, weight in weights) == counted


def test_only_the_lora_learns_and_in_fp32_on_a_bf16_base(base: Path) -> None:
    parts = SD1.load(base, dtype=torch.bfloat16, device="cpu")
    weights = add_lora(parts.denoiser, TrainConfig(), ["to_q"])
    learning = [weight for weight in parts.denoiser.parameters() if weight.requires_grad]
    assert len(learning) == len(weights) and all(weight.dtype == torch.float32 for weight in learning)


def test_a_target_that_hits_nothing_is_refused_with_what_there_is(parts: Parts) -> None:
    with pytest.raises(Refused, match=r"base: 'to_qq'\. There are: to_q \(8\)"):
        matched(parts.denoiser, ["to_q", "to_qq"])
    with pytest.raises(Refused, match="matches none of the"):
        matched(parts.denoiser, "nothing.*")


def test_a_mistyped_preset_offers_the_nearest() -> None:
    with pytest.raises(Refused, match="Did you mean 'attention'"):
        targets_of(SD1, "atention")
    with pytest.raises(Refused, match="not a regular expression"):
        targets_of(SD1, "/(/")


def test_a_regular_expression_narrows(parts: Parts) -> None:
    names = matched(parts.denoiser, targets_of(SD1, "/down_blocks.*attn2.to_[kv]/"))
    assert names and all("attn2" in name and name.startswith("down_blocks") for name in names)


@pytest.mark.parametrize("targets", [".*attn2.*", ["0"]])
def test_blocks_and_dropouts_of_a_matching_name_are_left_alone(parts: Parts, targets: str | list[str]) -> None:
    """`attn2` is a block with layers inside, `net.0` an activation beside the layer `to_out.0`: peft alone stops at them."""
    names = matched(parts.denoiser, targets)
    weights = add_lora(parts.denoiser, TrainConfig(), targets)
    assert {name.partition(".lora_")[0] for name, _ in weights} == set(names)


def test_the_seed_draws_the_start_and_leaves_the_global_generator_alone(base: Path) -> None:
    starts = []
    for seed in (0, 0, 1):
        parts = SD1.load(base, dtype=torch.float32, device="cpu")
        torch.manual_seed(99)
        add_lora(parts.denoiser, TrainConfig(seed=seed), ["to_q"])
        assert torch.equal(torch.rand(2), torch.rand(2, generator=torch.Generator().manual_seed(99)))
        starts.append(lora_tensors({"unet": parts.denoiser}))
    name = next(name for name in starts[0] if "lora_A" in name)
    assert torch.equal(starts[0][name], starts[1][name]) and not torch.equal(starts[0][name], starts[2][name])
    assert all(not tensor.any() for name, tensor in starts[0].items() if "lora_B" in name)


def test_weights_go_out_and_in(parts: Parts) -> None:
    add_lora(parts.denoiser, TrainConfig(), ["to_q"])
    saved = {name: torch.randn_like(tensor) for name, tensor in lora_tensors({"unet": parts.denoiser}).items()}
    set_lora_tensors({"unet": parts.denoiser}, saved)
    assert all(torch.equal(tensor, saved[name]) for name, tensor in lora_tensors({"unet": parts.denoiser}).items())
    with pytest.raises(Refused, match="does not fit"):
        set_lora_tensors({"unet": parts.denoiser}, dict(list(saved.items())[1:]))


def test_the_base_alone_is_the_base(parts: Parts) -> None:
    def answer() -> torch.Tensor:
        with torch.no_grad():
            state = SD1.encode_prompts(parts, ["a cat"])
            return SD1.predict(parts, torch.ones(1, 4, 8, 8), torch.tensor([300.0]), state)

    before = answer()
    add_lora(parts.denoiser, TrainConfig(), ["to_q", "to_v"])
    assert torch.equal(answer(), before)
    set_lora_tensors(
        {"unet": parts.denoiser}, {name: torch.ones_like(tensor) for name, tensor in lora_tensors({"unet": parts.denoiser}).items()}
    )
    assert not torch.equal(answer(), before)
    with adapter_disabled({"unet": parts.denoiser}):
        assert torch.equal(answer(), before)


def test_text_encoders_learn_under_the_names_that_readers_expect(parts: Parts) -> None:
    config = TrainConfig(lora=LoraConfig(rank=2, text_encoder=True))
    modules = learning_modules(SD1, parts, config)
    weights = add_loras(SD1, modules, config, ["to_q"])
    assert list(modules) == list(weights) == ["unet", "text_encoder"]
    names = [name for name in lora_tensors(modules) if name.startswith("text_encoder.")]
    assert len(names) == 2 * 4 * 2 and "text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight" in names
    saved = {name: torch.randn_like(tensor) for name, tensor in lora_tensors(modules).items()}
    set_lora_tensors(modules, saved)
    assert all(torch.equal(tensor, saved[name]) for name, tensor in lora_tensors(modules).items())


def test_a_family_whose_text_encoders_cannot_learn_says_why(parts: Parts) -> None:
    family = replace(SD1, learning_encoders={}, title="A toy")
    with pytest.raises(Refused, match=r"lora.text_encoder=true: A toy reads prompts with a language model"):
        learning_modules(family, parts, TrainConfig(lora=LoraConfig(text_encoder=True)))
    with pytest.raises(Faults, match=r"optim.text_lr needs lora.text_encoder=true"):
        TrainConfig(optim=OptimConfig(text_lr=1e-5))


@pytest.mark.parametrize(
    ("family", "name", "layers"), [("sd1", "text_encoder", 9), ("sdxl", "text_encoder", 8), ("sdxl", "text_encoder_2", 12)]
)
def test_layers_that_clip_skip_leaves_out_get_no_adapter(family: str, name: str, layers: int) -> None:
    """SDXL reads the last but one layer of its first encoder, and the last one of its second for the pooled state."""
    encoder = SimpleNamespace(config=SimpleNamespace(num_hidden_layers=12))
    targets = encoder_targets(FAMILIES[family], name, encoder, clip_skip=3)
    hit = [number for number in range(12) if re.fullmatch(targets, f"encoder.layers.{number}.self_attn.q_proj")]
    assert hit == list(range(layers))
