"""Block swap on a denoiser: gradients byte-equal to those without, two fetches a step, nothing left on the device between passes."""

from typing import Any

import pytest
import torch

from registry.errors import JobFailed, Refused
from registry.parts import collate
from registry.swapping.blocks import blocks_of
from registry.swapping.swap import BlockSwap
from tests.tiny import tiny_parts
from tests.tiny_families import builds, module_of

pytestmark = pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning")

CPU = torch.device("cpu")
SIZES = {"sd1": 32, "sdxl": 32, "flux1": 64}
DRAWN_ALONE_OR_ALIKE = {"sdxl_refiner", "sd2"}  # the one is not trained, the other has SD 1's blocks
FIRST = {name: variant for name, variant in reversed(builds()) if name not in DRAWN_ALONE_OR_ALIKE}  # one build of each family
FORWARD_ALONE = {"sdxl": ["down_blocks.0.resnets.0"]}  # nothing that learns is before them, so that no gradient goes into them
BUILDS: list[tuple[str, str | None]] = [*((name, None) for name in SIZES), *FIRST.items()]


class Step:
    """The denoiser of a tiny build with a LoRA, ready for the same step again and again."""

    def __init__(self, name: str, variant: str | None = None) -> None:
        self.family, self.parts = tiny_parts(name, **({} if variant is None else {"variant": variant}))
        side = SIZES[name] if variant is None else module_of(name).SIZE
        cells = side // self.parts.latent_factor
        shape = (2, self.family.channels(self.parts), cells, cells)
        self.noisy = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        self.times = torch.tensor([100.0, 900.0])
        with torch.no_grad():
            states = collate([self.family.encode_prompts(self.parts, [prompt]) for prompt in ("a cat", "two dogs")])
            self.complete = self.family.complete(self.parts, states, height=side, width=side, guidance=1.0)

    def checkpointed(self) -> None:
        from peft import LoraConfig, inject_adapter_in_model

        preset = self.family.lora_presets["attention"]
        targets = preset if isinstance(preset, str) else list(preset)
        torch.manual_seed(1)
        inject_adapter_in_model(LoraConfig(r=2, target_modules=targets, init_lora_weights="gaussian"), self.parts.denoiser)
        for weight in self.weights():
            torch.nn.init.normal_(weight, std=0.1)
        self.denoiser.enable_gradient_checkpointing()
        self.denoiser.train()

    @property
    def denoiser(self) -> Any:
        return self.parts.denoiser

    def weights(self) -> list[torch.Tensor]:
        return [weight for weight in self.denoiser.parameters() if weight.requires_grad]

    def forward(self) -> torch.Tensor:
        found: torch.Tensor = self.family.predict(self.parts, self.noisy, self.times, self.complete)
        return found

    def gradients(self) -> list[torch.Tensor]:
        found = self.forward()
        return [found.detach(), *torch.autograd.grad(found.square().sum(), self.weights())]


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    learned = sum(bool(a.any()) for a in one)
    return learned > len(one) / 2 and all(a.equal(b) for a, b in zip(one, other, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "variant"), BUILDS, ids=[name for name, _ in BUILDS])
def test_gradients_are_the_same_bytes_and_each_block_is_fetched_twice_a_step(name: str, variant: str | None) -> None:
    step = Step(name, variant)
    every = list(blocks_of(step.family, step.denoiser))
    swap = BlockSwap(step.family, step.denoiser, len(every))
    step.checkpointed()
    before = step.gradients()
    at_home = {id(tensor): tensor.data_ptr() for tensor in step.denoiser.parameters()}
    swap.begin(CPU)
    assert same(step.gradients(), before) and same(step.gradients(), before)
    ledger = swap.ledger
    assert ledger.fetches == dict.fromkeys(every, 4) | dict.fromkeys(FORWARD_ALONE.get(name, ()), 2), "two steps"
    assert 0 < ledger.peak <= ledger.cap and ledger.resident == 0
    assert at_home == {id(tensor): tensor.data_ptr() for tensor in step.denoiser.parameters()}
    with torch.no_grad():
        assert step.forward().equal(before[0])
    assert ledger.fetches == dict.fromkeys(every, 5) | dict.fromkeys(FORWARD_ALONE.get(name, ()), 3) and ledger.resident == 0
    assert all(id(weight) not in swap._held for weight in step.weights()), "adapters stay"
    assert id(next(step.denoiser.parameters())) not in swap._held, "Parts.device is where the first weight lies"


@pytest.mark.parametrize("name", ["flux1", "sdxl"])
def test_blocks_that_lie_together_give_the_same_bytes(name: str) -> None:
    """As on a GPU, where each lies in a page-locked piece of main memory."""
    step = Step(name)
    every = list(blocks_of(step.family, step.denoiser))
    swap = BlockSwap(step.family, step.denoiser, len(every))
    step.checkpointed()
    before = step.gradients()
    for block in swap._blocks.values():
        block.gather(torch.empty(block.size, dtype=torch.uint8))
    swap.begin(CPU)
    assert same(step.gradients(), before) and same(step.gradients(), before)
    assert swap.ledger.fetches == dict.fromkeys(every, 4) | dict.fromkeys(FORWARD_ALONE.get(name, ()), 2)
    assert 0 < swap.ledger.peak <= swap.ledger.cap and swap.ledger.resident == 0


def test_two_forward_passes_and_one_backward_pass_are_four_fetches() -> None:
    step = Step("flux1")
    swap = BlockSwap(step.family, step.denoiser, 2)
    step.checkpointed()
    swap.begin(CPU)
    loss = step.forward().square().sum() + 2 * step.forward().square().sum()
    with torch.no_grad():
        step.forward()
    found = torch.autograd.grad(loss, step.weights())
    assert swap.ledger.fetches == {"transformer_blocks.1": 5, "single_transformer_blocks.1": 5} and swap.ledger.resident == 0
    plain = Step("flux1")
    plain.checkpointed()
    loss = plain.forward().square().sum() + 2 * plain.forward().square().sum()
    assert same([loss, *found], [loss, *torch.autograd.grad(loss, plain.weights())])


def test_the_next_block_is_on_its_way_while_one_computes() -> None:
    """From the second pass on, and in the order of the pass: forwards, then backwards."""
    step = Step("flux1")
    swap = BlockSwap(step.family, step.denoiser, 4)
    step.checkpointed()
    swap.begin(CPU)
    names = list(swap._blocks)
    seen: list[tuple[str, set[str]]] = []
    for name, module in swap._modules.items():

        def look(_module: object, _inputs: object, name: str = name) -> None:
            assert swap._slots is not None
            seen.append((name, {slot.block.name for slot in swap._slots._slots if slot.block is not None}))

        module.register_forward_pre_hook(look)
    step.gradients()
    del seen[:]
    step.gradients()
    order = [*names, *reversed(names)]
    ahead = [*names[1:], None, *reversed(names[:-1]), None]
    assert seen == [(name, {name, after} - {None}) for name, after in zip(order, ahead, strict=True)]


class Reads(torch.autograd.Function):
    """A product whose backward pass reads the layer's weight and keeps no tensor, as that of a quantised layer."""

    @staticmethod
    def forward(ctx: Any, inputs: torch.Tensor, layer: Any) -> torch.Tensor:
        ctx.layer = layer
        return torch.nn.functional.linear(inputs, layer.weight, layer.bias)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        ctx.layer.seen.append(ctx.layer.weight.data_ptr())
        return gradients[0] @ ctx.layer.weight, None


def test_a_layer_that_reads_its_weight_first_of_all_in_the_backward_pass_finds_it_on_the_device() -> None:
    """The last layer of a UNet's transformer block, behind which only a sum follows: nothing is computed again before it."""
    step = Step("sd1")
    swap = BlockSwap(step.family, step.denoiser, len(blocks_of(step.family, step.denoiser)))
    step.checkpointed()
    layers: list[Any] = [step.denoiser.get_submodule(name).ff.net[2] for name in swap._modules if ".transformer_blocks." in name]
    for layer in layers:
        layer.seen = []
        layer.forward = lambda inputs, layer=layer: Reads.apply(inputs, layer)  # type: ignore[no-untyped-call]
    swap.begin(CPU)
    step.gradients()
    assert swap._slots is not None and len(layers) > 1
    inside = [range(slot.buffer.data_ptr(), slot.buffer.data_ptr() + slot.buffer.nbytes) for slot in swap._slots._slots]
    assert all(len(layer.seen) == 1 and any(layer.seen[0] in room for room in inside) for layer in layers)
    assert set(swap.ledger.fetches.values()) == {2}


def test_a_failure_inside_a_block_leaves_a_model_that_works() -> None:
    step = Step("flux1")
    swap = BlockSwap(step.family, step.denoiser, 4)
    step.checkpointed()
    before = step.gradients()
    swap.begin(CPU)
    handle = step.denoiser.single_transformer_blocks[0].register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        step.gradients()
    handle.remove()
    assert same(step.gradients(), before) and swap.ledger.resident == 0


def test_gradients_without_checkpointing_are_refused() -> None:
    step = Step("flux1")
    swap = BlockSwap(step.family, step.denoiser, 2)
    step.checkpointed()
    step.denoiser.disable_gradient_checkpointing()
    swap.begin(CPU)
    with pytest.raises(JobFailed, match="gradient_checkpointing=true"):
        step.forward()
    with torch.no_grad():
        step.forward()


def test_a_weight_that_two_blocks_share_stays_on_the_device() -> None:
    step = Step("flux1")
    one, two = step.denoiser.transformer_blocks
    step.denoiser.x_embedder.weight = one.ff.net[2].weight
    swap = BlockSwap(step.family, step.denoiser, 4)
    assert id(one.ff.net[2].weight) not in swap._held and id(two.ff.net[2].weight) in swap._held


def test_more_blocks_than_there_are_are_refused() -> None:
    step = Step("flux1")
    with pytest.raises(Refused, match=r"FLUX\.1 has 4 blocks that can be swapped"):
        BlockSwap(step.family, step.denoiser, 5)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["flux1", "sdxl"])
def test_on_a_gpu_gradients_are_the_same_bytes(name: str) -> None:
    """Ten steps with and without: a copy that overtakes the arithmetic, or the other way round, shows as other bytes."""
    device = torch.device("cuda")
    found = []
    for swapped in (False, True):
        step = Step(name)
        count = len(blocks_of(step.family, step.denoiser))
        swap = BlockSwap(step.family, step.denoiser, count)
        step.checkpointed()
        if swapped:
            swap.begin(device)
            assert all(tensor.is_pinned() for block in swap._blocks.values() for tensor in block.tensors)
        else:
            step.denoiser.to(device)
        step.noisy = step.noisy.to(device)
        step.complete = {key: value.to(device) for key, value in step.complete.items()}
        step.times = step.times.to(device)
        found.append([step.gradients() for _ in range(10)])
        if swapped:
            assert set(swap.ledger.fetches.values()) <= {10, 20} and swap.ledger.resident == 0
    assert all(same(one, other) for one, other in zip(*found, strict=True))
