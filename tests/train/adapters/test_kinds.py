"""Each kind on a model: its count, its file, and what the runtimes make of the file by their own rules."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from registry.errors import Faults, Refused
from registry.families import FAMILIES
from tests.train.adapters.runtimes import comfyui_weight, sd_scripts_weight
from tests.train.adapters.test_runs import KINDS
from train.adapters.attach import deltas_of
from train.adapters.kinds import choose_kind
from train.adapters.lokr import split
from train.adapters.ranks import check_patterns, ranks_of
from train.config import LoraConfig, TrainConfig
from train.lora import add_lora, check_learns, lora_tensors, matched, parameter_count, set_lora_tensors, targets_of
from train.output import export
from train.settings.lora import LoraParams

SD1 = FAMILIES["sd1"]


def trained(lora: LoraConfig, base: Path) -> Any:
    """A UNet with the adapter, its weights moved as by training."""
    unet = SD1.load(base, dtype=torch.float32, device="cpu").denoiser
    targets = targets_of(SD1, lora.targets)
    counted = parameter_count(unet, matched(unet, targets), lora)
    weights = add_lora(unet, TrainConfig(lora=lora), targets)
    assert sum(weight.numel() for _, weight in weights) == counted
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _, weight in weights:
            weight.add_(torch.randn(weight.shape, generator=draw) * 0.02)
    return unet


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_file_gives_the_trained_change_by_every_reader(kind: str, base: Path, tmp_path: Path) -> None:
    unet = trained(KINDS[kind], base)
    file = tmp_path / "a.safetensors"
    export.write_adapter(file, {"unet": unet}, export.metadata(SD1, {"unet": unet}, title="a", facts={}, manifest={}))
    fresh = SD1.load(base, dtype=torch.float32, device="cpu")
    weights = {name.removesuffix(".weight"): weight.detach().clone() for name, weight in fresh.denoiser.named_parameters()}
    read = export.through_registry(file, SD1, fresh)
    words = {".lora_A.weight": ".lora_down.weight", ".lora_B.weight": ".lora_up.weight", ".lora_magnitude_vector": ".dora_scale"}
    state = {}
    for key, tensor in load_file(file).items():
        ending = next((ending for ending in words if key.endswith(ending)), "")
        state[f"{key.removesuffix(ending)}{words.get(ending, '')}"] = tensor
    for name, trained_change in deltas_of(unet):
        change = trained_change.change
        allowed = 2e-5 * float(change.abs().max()) + 2e-6 * float(weights[name].abs().max())
        assert float((read[f"unet.{name}"].change - change).abs().max()) <= allowed
        for rule in (comfyui_weight, sd_scripts_weight):
            found = rule(state, f"unet.{name}", weights[name]) - weights[name]
            assert float((found - change).abs().max()) <= allowed, (name, rule.__name__)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_start_changes_nothing_and_the_change_is_that_of_the_merged_weight(kind: str, base: Path) -> None:
    from registry.parts import Parts

    parts: Parts = SD1.load(base, dtype=torch.float32, device="cpu")
    inputs = torch.ones(1, 4, 8, 8), torch.tensor([300.0]), SD1.encode_prompts(parts, ["a cat"])
    with torch.no_grad():
        before = SD1.predict(parts, *inputs)
        add_lora(parts.denoiser, TrainConfig(lora=KINDS[kind]), targets_of(SD1, KINDS[kind].targets))
        assert torch.allclose(SD1.predict(parts, *inputs), before, atol=1e-5)
        merged: Parts = SD1.load(base, dtype=torch.float32, device="cpu")
        parts.denoiser = trained(KINDS[kind], base)
        for name, found in deltas_of(parts.denoiser):
            merged.denoiser.get_parameter(f"{name}.weight").add_(found.change)
        answer, wanted = SD1.predict(parts, *inputs), SD1.predict(merged, *inputs)
    assert not torch.allclose(answer, before, atol=1e-4)
    assert torch.allclose(answer, wanted, atol=1e-4 * float(wanted.abs().max()))


@pytest.mark.parametrize("kind", ["lokr", "loha", "oft"])
def test_weights_go_out_and_in_to_the_same_bits(kind: str, base: Path) -> None:
    one, other = trained(KINDS[kind], base), trained(KINDS[kind], base)
    with torch.no_grad():
        for _, weight in ((name, weight) for name, weight in other.named_parameters() if weight.requires_grad):
            weight.zero_()
    saved = lora_tensors({"unet": one})
    set_lora_tensors({"unet": other}, saved)
    again = lora_tensors({"unet": other})
    assert saved.keys() == again.keys() and all(torch.equal(saved[name], again[name]) for name in saved)


def test_widths_are_split_as_lycoris_splits_them() -> None:
    assert [split(width, None) for width in (16, 320, 768, 7)] == [(4, 4), (16, 20), (24, 32), (1, 7)]
    assert split(320, 8) == (8, 40) and split(320, 7) == (5, 64)


def test_patterns_give_ranks_and_one_that_acts_on_nothing_is_refused() -> None:
    lora = LoraConfig(rank=8, ranks={"attn2.to_k": 3, "attn2.*": 4}, alphas={"to_k": 1.0})
    names = ["down.attn1.to_k", "down.attn2.to_k", "down.attn2.to_q"]
    assert ranks_of(names, lora) == {names[0]: (8, 1.0), names[1]: (3, 1.0), names[2]: (4, 4.0)}
    check_patterns(lora, names)
    with pytest.raises(Faults, match=r"'ff' matches none of the 3 layers"):
        check_patterns(LoraConfig(ranks={"ff": 2}), names)
    with pytest.raises(Faults, match=r"an earlier pattern has every layer of 'attn2.to_k'"):
        check_patterns(LoraConfig(ranks={"attn2.*": 2, "attn2.to_k": 3}), names)


def test_options_of_another_kind_are_refused() -> None:
    with pytest.raises(Faults, match=r"lora.kind=lora has no option 'block_size'; lora.kind=oft have it"):
        choose_kind("lora", LoraParams(block_size=4))
    with pytest.raises(Faults, match="Give one"):
        choose_kind("lokr", LoraParams(full_matrix=True, decompose_both=True))


def test_layers_without_a_block_of_outputs_are_refused() -> None:
    net = torch.nn.ModuleDict({"a": torch.nn.Linear(4, 7), "b": torch.nn.Linear(4, 6), "c": torch.nn.Linear(4, 1)})
    check_learns(net, ["b"], LoraConfig(kind="oft", rank=4))  # two blocks of 3
    check_learns(net, ["a", "b", "c"], LoraConfig(kind="lora", rank=4))
    with pytest.raises(Refused, match=r"the outputs of a \(7\) cannot be cut into blocks of 2 to 4, so nothing .*block_size=7 or more, or"):
        check_learns(net, ["a", "b"], LoraConfig(kind="oft", rank=4))
    with pytest.raises(Refused, match=r"the outputs of a, c \(1, 7\) .* would learn. Give lora.targets without these layers."):
        check_learns(net, ["a", "c"], LoraConfig(kind="oft", rank=4))
