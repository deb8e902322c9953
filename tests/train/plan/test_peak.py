"""The worst moment of a piece of work, counted by hand where it can be, and against a real run on the CPU."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from registry.budget.peak import backward, trace
from registry.families import FAMILIES
from registry.store import Store
from train import run
from train.config import LoraConfig, Precision, PreviewConfig, TrainConfig

SD1 = FAMILIES["sd1"]
FLOAT = 4  # bytes


def test_a_chain_without_gradients_holds_two_results_at_a_time() -> None:
    with torch.device("meta"):
        layers = nn.Sequential(*[nn.Linear(16, 16, bias=False) for _ in range(5)])
        given = torch.empty(8, 16)

    def work() -> None:
        with torch.no_grad():
            layers(given)

    found = trace(work, layers)
    assert found.peak == 2 * 8 * 16 * FLOAT  # what goes into a layer and what comes out; the first input was there before
    assert found.operations == 5 * 2 * 8 * 16 * 16


def test_with_gradients_every_input_of_a_layer_that_learns_stays() -> None:
    with torch.device("meta"):
        layers = nn.Sequential(*[nn.Linear(16, 16, bias=False) for _ in range(4)])
        given = torch.empty(8, 16)
    found = trace(lambda: backward(layers(given).sum()), layers)
    kept = 3 * 8 * 16 * FLOAT  # inputs of layers 2 to 4
    gradients = 4 * 16 * 16 * FLOAT
    assert kept + gradients / 2 < found.peak < 2 * kept + 2 * gradients
    assert found.operations == (4 + 4 + 3) * 2 * 8 * 16 * 16  # forward, weights' gradients, inputs' gradients but the first


def test_attention_never_holds_the_matrix_of_all_pairs() -> None:
    query = torch.empty(1, 1, 4096, 8, device="meta", requires_grad=True)
    found = trace(lambda: backward(nn.functional.scaled_dot_product_attention(query, query, query).sum()), [])
    assert found.peak < 4096 * 4096 * FLOAT / 50
    assert found.operations == 2 * 4096 * 4096 * (8 + 8) * 3.5


@pytest.mark.parametrize("on_cpu", [False, True])
def test_half_precision_casts_as_autocast_does(on_cpu: bool) -> None:
    def work(device: str) -> list[torch.dtype]:
        linear = nn.functional.linear(torch.empty(2, 4, device=device), torch.empty(4, 4, device=device))
        norm, group = nn.functional.layer_norm(linear, (4,)), nn.functional.group_norm(linear, 2)
        return [one.dtype for one in (linear, norm, group, linear.softmax(-1), linear.exp(), linear.pow(2), linear.sum())]

    seen: list[torch.dtype] = []
    trace(lambda: seen.extend(work("meta")), [], low=torch.bfloat16, on_cpu=on_cpu)
    if on_cpu:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert seen == work("cpu")
    else:
        assert seen[:3] == [torch.bfloat16, torch.float32, torch.float32]


@pytest.mark.slow
def test_the_empty_model_keeps_what_a_real_one_keeps(base: Path) -> None:
    """The same step on real numbers, its storages counted the same way: the meta device stands in for them."""
    peaks = []
    for device in ("cpu", "meta"):
        parts = SD1.load(base, dtype=torch.float32, device=device)
        parts.denoiser.requires_grad_(True)
        noisy, times = torch.zeros(2, 4, 8, 8, device=device), torch.zeros(2, device=device)
        with torch.no_grad():
            state = SD1.encode_prompts(parts, ["a", "b"])
        modules = [parts.denoiser, *parts.text_encoders.values()]
        peaks.append(trace(lambda p=parts, n=noisy, t=times, s=state: backward(SD1.predict(p, n, t, s).sum()), modules).peak)  # type: ignore[misc]
    assert peaks[0] == pytest.approx(peaks[1], rel=0.05)  # kernels of the CPU differ a little in what they keep


def test_checkpointing_computes_again_what_it_does_not_keep() -> None:
    with torch.device("meta"):
        blocks = [nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 64)).requires_grad_(False) for _ in range(8)]
        given = torch.empty(512, 64, requires_grad=True)

    def work(keep: bool) -> None:
        state = given
        for block in blocks:
            state = block(state) if keep else checkpoint(block, state, use_reentrant=False)
        backward(state.sum())

    kept, again = (trace(lambda keep=keep: work(keep), blocks) for keep in (True, False))  # type: ignore[misc]
    assert again.peak < 0.7 * kept.peak and again.operations > 1.2 * kept.operations


@pytest.mark.slow
def test_the_plan_tells_what_each_stage_needs(settings: Callable[..., TrainConfig], store: Store) -> None:
    found = run.plan(settings(), store).estimate
    assert list(found.stages) == ["images are encoded", "prompts are encoded", "steps are taken", "held-out losses are measured"]
    assert all(count > 0 for count in found.stages.values())
    assert {"unet", "vae", "text_encoder"} <= set(found.memory)
    assert found.process > 200 * 2**20, "torch, diffusers and transformers are loaded"
    assert not found.on_device and found.total == found.process + sum(found.memory.values()) + max(found.activations or 0, found.passing)
    drawn = run.plan(settings(preview=PreviewConfig(prompts=["a disc"])), store).estimate.stages
    assert drawn["previews are drawn"] > found.memory["unet"] + found.memory["vae"] and len(drawn) == 5
    less = run.plan(settings(gradient_checkpointing=True, batch_size=8), store).estimate
    more = run.plan(settings(batch_size=8), store).estimate
    assert less.activations is not None and more.activations is not None and less.activations < more.activations
    half = run.plan(settings(precision=Precision.bf16, lora=LoraConfig(rank=2)), store).estimate
    assert half.memory["unet"] == found.memory["unet"] / 2
