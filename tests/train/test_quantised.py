"""Training on a quantised base: every family's gradients, what is written down of it, resumes, and what the plan refuses."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import nn

from registry.errors import Faults, Refused
from registry.families import FAMILIES
from registry.parts import collate
from registry.quantised.linear import QuantisedLinear
from registry.quantised.place import quantise_in_place
from registry.store import Store
from tests.tiny import SIZES, tiny_parts
from tests.tiny_families import builds, module_of
from tests.train.conftest import short_run, stopped
from train import run
from train.config import AdapterConfig, CheckpointConfig, HeldoutConfig, LoraConfig, Precision, PreviewConfig, TrainConfig
from train.lora import add_lora, targets_of

pytestmark = pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning")

Settings = Callable[..., TrainConfig]
TRAINED = [*((name, None) for name in SIZES), *(build for build in builds() if FAMILIES[build[0]].untrained is None)]


def lora_gradients(family: Any, parts: Any, side: int, config: TrainConfig) -> list[torch.Tensor]:
    """Of the LoRA's weights, after one backward pass on two prompts."""
    shape = (2, family.channels(parts), side // parts.latent_factor, side // parts.latent_factor)
    noisy = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        states = collate([family.encode_prompts(parts, [prompt]) for prompt in ("a cat", "two dogs on a mat")])
        complete = family.complete(parts, states, height=side, width=side, guidance=1.0)
    weights = add_lora(parts.denoiser, config, targets_of(family, "attention"))
    for name, weight in weights:  # B begins at zero, and A would have no gradient
        if "lora_B" in name:
            nn.init.normal_(weight, std=0.1, generator=torch.Generator().manual_seed(1))
    family.predict(parts, noisy, torch.tensor([100.0, 900.0]), complete).float().square().sum().backward()
    return [weight.grad for _, weight in weights if weight.grad is not None]


def plain_again(module: Any) -> None:
    """Plain layers with the dequantised weights in place of the quantised ones."""
    for name, layer in list(module.named_modules()):
        if isinstance(layer, QuantisedLinear):
            plain = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)
            plain.weight, plain.bias = nn.Parameter(layer.weight, requires_grad=False), layer.bias
            parent, _, last = name.rpartition(".")
            setattr(module.get_submodule(parent), last, plain)


@pytest.mark.parametrize(("name", "variant"), TRAINED)
def test_gradients_are_those_of_the_same_weights_in_plain_layers(name: str, variant: str | None) -> None:
    """The same products of the same numbers: what differs is the order of sums, 1e-5 of the largest in fp32."""
    family, parts = tiny_parts(name, **({} if variant is None else {"variant": variant}))
    config, side = TrainConfig(lora=LoraConfig(rank=2, product="plain")), SIZES[name] if variant is None else module_of(name).SIZE
    quantise_in_place(parts.denoiser, family.quantised.choose("nf4"))
    plain = copy.deepcopy(parts.denoiser)
    plain_again(plain)
    found = lora_gradients(family, parts, side, config)
    parts.denoiser = plain
    expected = lora_gradients(family, parts, side, config)
    acting = [gradient for gradient in expected if float(gradient.abs().max()) > 0]
    assert len(found) == len(expected) and len(acting) > len(expected) / 2  # of SD3's last block the text is not read any more
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-5 * float(other.abs().max()))


def quantised(settings: Settings, **given: Any) -> TrainConfig:
    return settings(base_dtype="nf4", text_encoder_dtype="int8", **given)


def tensors(file: Path | str) -> dict[str, Any]:
    with safe_open(file, framework="pt") as opened:
        return {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118  # it is no mapping


@pytest.fixture(scope="module")
def done(base: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    place = tmp_path_factory.mktemp("quantised")
    config = short_run(base, images, place / "runs", base_dtype="nf4", text_encoder_dtype="int8", checkpoint=CheckpointConfig(every=2))
    return run.run(config, Store(place / "home"))


def test_the_result_and_the_file_name_what_the_base_was_quantised_to(done: Any) -> None:
    found = done.result["quantised"]
    assert found["base_dtype"] == "nf4" and found["text_encoder_dtype"] == "int8"
    assert 0.06 < found["components"]["unet"]["relative_error"] < 0.12 and found["components"]["unet"]["layers"] == {"nf4": 40}
    assert 0.002 < found["components"]["text_encoder"]["relative_error"] < 0.01
    assert found["proven_on"] == "a fresh base, quantised to nf4 again"
    assert found["components"]["unet"]["worst"]["error"] >= found["components"]["unet"]["relative_error"]
    with safe_open(done.result["files"]["diffusers"], framework="pt") as file:
        header = file.metadata()
    assert "quantised to nf4" in header["modelspec.description"]
    assert json.loads(header["loraloom.manifest"])["config"]["base_dtype"] == "nf4"


@pytest.mark.slow
def test_a_run_that_is_resumed_gives_the_same_bytes(done: Any, settings: Settings, store: Store, tmp_path: Path) -> None:
    config = quantised(settings, steps=4, checkpoint=CheckpointConfig(every=2), out=str(tmp_path / "again"))
    place = stopped(config, store, at=3)
    again = run.resume(place, {}, store)
    assert Path(again.result["files"]["diffusers"]).read_bytes() == Path(done.result["files"]["diffusers"]).read_bytes()
    with pytest.raises(Faults, match="base_dtype"):
        run.resume(place, {"base_dtype": "int8"}, store)


@pytest.mark.slow
def test_another_dtype_trains_another_adapter(done: Any, settings: Settings, store: Store, tmp_path: Path) -> None:
    plain = run.run(settings(steps=4, out=str(tmp_path / "plain")), store)
    assert plain.result["quantised"] is None
    one, other = tensors(plain.result["files"]["diffusers"]), tensors(done.result["files"]["diffusers"])
    assert one.keys() == other.keys() and any(not torch.equal(one[key], other[key]) for key in one)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dora", "lokr", "loha", "oft"])
def test_every_kind_of_adapter_learns_on_it(kind: str, prepared: Callable[[TrainConfig], Any], settings: Settings) -> None:
    state = prepared(quantised(settings, lora=LoraConfig(rank=2, kind=kind))).state
    before = [weight.detach().clone() for _, weight in state.weights]
    state.step(0)
    assert any(not torch.equal(old, new) for old, (_, new) in zip(before, state.weights, strict=True))


@pytest.mark.slow
def test_half_precision_and_trained_text_encoders_work_on_it(settings: Settings, store: Store) -> None:
    config = quantised(settings, precision=Precision.bf16, lora=LoraConfig(rank=2, text_encoder=True), gradient_checkpointing=True)
    outcome = run.run(config, store)
    assert {tensor.dtype for tensor in tensors(outcome.result["files"]["diffusers"]).values()} == {torch.float32}


@pytest.mark.slow
def test_previews_are_drawn_with_the_quantised_model(settings: Settings, store: Store) -> None:
    outcome = run.run(quantised(settings, preview=PreviewConfig(prompts=["a red disc"], steps=2)), store)
    assert outcome.result["previews"]


def test_the_plan_counts_the_quantised_bytes_and_says_what_is_kept(settings: Settings, store: Store) -> None:
    plain, made = run.plan(settings(), store), run.plan(quantised(settings), store)
    assert made.quantised == {"unet": {"nf4": 40}, "text_encoder": {"int8": 12}} and plain.quantised == {}
    assert "unet: 40 layers in nf4; text_encoder: 12 layers in int8" in made.to_text() and "quantised" not in plain.to_text()
    assert made.estimate.memory["unet"] < plain.estimate.memory["unet"]
    assert made.estimate.memory["text_encoder"] < plain.estimate.memory["text_encoder"]
    assert made.estimate.activations and made.to_json()["quantised_layers"]["unet"] == {"nf4": 40}
    assert any("result.json" in note for note in made.notes) and not any("quantised" in note for note in plain.notes)


def test_counted_bytes_are_those_of_the_loaded_model(settings: Settings, store: Store) -> None:
    from train.plan.base import load

    made = run.plan(quantised(settings), store)
    parts = load(made.base, made.config, dtype=torch.float32)
    module = parts.denoiser
    held = sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))
    assert made.estimate.memory["unet"] == held


def test_what_cannot_be_is_refused_by_name() -> None:
    with pytest.raises(Faults, match=r"base_dtype must be int8, fp8, nf4, nf4-dq, or null.*got 'nf5'"):
        TrainConfig(base_dtype="nf5")
    with pytest.raises(Faults, match=r"adapter\.training must be null beside base_dtype"):
        TrainConfig(base_dtype="nf4", adapter=AdapterConfig(training="x"))
    TrainConfig(text_encoder_dtype="nf4", adapter=AdapterConfig(training="x"))


def test_fp8_is_refused_on_a_device_without_it() -> None:
    from train.plan.quantised import check_device

    check_device(TrainConfig(base_dtype="fp8"), torch.device("cuda"))
    with pytest.raises((Refused, Faults), match=r"base_dtype=fp8 needs .* mps"):
        check_device(TrainConfig(base_dtype="fp8"), torch.device("mps"))
    check_device(TrainConfig(base_dtype="int8"), torch.device("mps"))


def test_pissa_and_dora_are_noted(settings: Settings, store: Store) -> None:
    made = run.plan(quantised(settings, lora=LoraConfig(rank=2, kind="dora"), heldout=HeldoutConfig(every=100)), store)
    assert any("DoRA's magnitudes are made of the quantised weights" in note for note in made.notes)


@pytest.mark.slow
def test_swapped_blocks_of_a_quantised_base_give_the_same_weights(prepared: Callable[[TrainConfig], Any], settings: Settings) -> None:
    found = []
    for blocks in (0, 3):
        state = prepared(quantised(settings, swap_blocks=blocks, gradient_checkpointing=True)).state
        for step in range(2):
            state.step(step)
        found.append([weight.detach().clone() for _, weight in state.weights])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_a_swapped_block_is_counted_with_its_codes(settings: Settings, store: Store) -> None:
    swapped: dict[str, Any] = {"swap_blocks": 2, "gradient_checkpointing": True}
    plain, made = (run.plan(config, store) for config in (settings(**swapped), quantised(settings, **swapped)))
    assert plain.estimate.swap and made.estimate.swap
    block = "down_blocks.0.attentions.0.transformer_blocks.0"
    assert made.estimate.swap.sizes[block].weights < plain.estimate.swap.sizes[block].weights / 2
    whole = run.plan(quantised(settings), store).estimate.memory["unet"]
    assert made.estimate.memory["unet"] + made.estimate.swap.host_bytes == whole
