"""Activations in main memory between the passes: the same bytes, and less of them on the device at a time."""

import weakref
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from registry.budget.peak import Trace, backward, trace
from registry.swapping.activations import AHEAD, ActivationOffload, rounded
from registry.swapping.blocks import blocks_of
from registry.swapping.swap import BlockSwap
from tests.registry.swapping.test_swap import BUILDS, CPU, Step, same

pytestmark = pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning")


def passes(step: Step, offload: ActivationOffload) -> list[torch.Tensor]:
    """Prediction and gradients, the forward pass with what it keeps put away."""
    with offload.keeping():
        found = step.forward()
    return [found.detach(), *torch.autograd.grad(found.square().sum(), step.weights())]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "variant"), BUILDS, ids=[name for name, _ in BUILDS])
def test_gradients_are_the_same_bytes_and_nothing_is_left(name: str, variant: str | None) -> None:
    step = Step(name, variant)
    step.checkpointed()
    before = step.gradients()
    offload = ActivationOffload([step.denoiser])
    ledger = offload.ledger
    own = sum(tensor.nbytes for tensor in (step.noisy, step.times, *step.complete.values()))
    for _ in range(2):
        assert same(passes(step, offload), before)
        assert ledger.host == 0 and ledger.resident <= own, "but for the inputs everything is freed with the pass"
    assert ledger.host_peak > 0


class Live(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's modes are untyped
    """Bytes of the tensors that operations made and something holds, but for main memory, which is used again, and those given."""

    def __init__(self, ledger: Any, *given: torch.Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.ledger, self.live, self.peak = ledger, 0, 0
        self.held = {tensor.untyped_storage()._cdata for tensor in given}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, torch.Tensor) and leaf.untyped_storage()._cdata not in self.held:
                storage = leaf.untyped_storage()
                self.held.add(storage._cdata)
                self.live += storage.nbytes()
                weakref.finalize(storage, self.gone, storage._cdata, storage.nbytes())
        self.peak = max(self.peak, self.live - (self.ledger.host_peak if self.ledger else 0))
        return made

    def gone(self, key: int, size: int) -> None:
        self.held.discard(key)
        self.live -= size


class Deep(torch.nn.Module):
    """Checkpointed blocks, each of which keeps its input and one number that they all take."""

    def __init__(self, depth: int, width: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = torch.nn.ModuleList(torch.nn.Linear(width, width) for _ in range(depth))

    def forward(self, inputs: torch.Tensor, shared: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            inputs = torch.utils.checkpoint.checkpoint(lambda x, y, b=block: torch.tanh(b(x) * y) + x, inputs, shared, use_reentrant=False)
        return inputs


DEPTH, ROWS, WIDTH = 12, 2048, 16
BYTES = ROWS * WIDTH * 4  # of a block's input


def passed(depth: int, *, away: bool) -> tuple[int, int, list[torch.Tensor], Any]:
    """(bytes after the forward pass, most at any time, gradients, ledger) of a forward and a backward pass."""
    model, inputs, shared = Deep(depth, WIDTH), torch.ones(ROWS, WIDTH), torch.ones(ROWS, WIDTH)
    offload = ActivationOffload([model]) if away else None
    ledger = offload.ledger if offload else None
    with Live(ledger, inputs, shared, *model.parameters()) as live:
        with offload.keeping() if offload else nullcontext():
            made = model(inputs, shared)
        after = live.live - (ledger.host_peak if ledger else 0)
        backward(made.sum())
    return after, live.peak, [weight.grad for weight in model.parameters() if weight.grad is not None], ledger


def test_the_device_holds_a_few_blocks_inputs_however_many_blocks_there_are() -> None:
    """Counted twice: by the ledger, and by every tensor that any operation makes."""
    kept, peak, plain, _ = passed(DEPTH, away=False)
    kept_away, peak_away, gradients, ledger = passed(DEPTH, away=True)
    assert len(plain) == 2 * DEPTH and all(one.equal(other) for one, other in zip(plain, gradients, strict=True))
    assert kept >= (DEPTH - 1) * BYTES and kept_away <= 2 * BYTES and peak_away < peak - 5 * BYTES
    deeper, deeper_away = (passed(2 * DEPTH, away=away)[1] for away in (False, True))
    assert deeper >= peak + (DEPTH - 1) * BYTES and deeper_away < peak_away + BYTES
    assert ledger.host_peak == (DEPTH + 1) * BYTES, "what all blocks take lies there once"
    assert ledger.peak <= (3 + AHEAD) * BYTES, "those in use and on their way, and the caller's own"


def test_on_the_meta_device_a_trace_counts_what_the_device_holds() -> None:
    inputs = torch.empty(ROWS, WIDTH, device="meta")

    def traced(depth: int, *, away: bool) -> tuple[Trace, int]:
        model = Deep(depth, WIDTH).to("meta")
        offload = ActivationOffload([model])

        def work() -> None:
            with offload.keeping() if away else nullcontext():
                found = model(inputs, inputs + 1)
            backward(found.sum())

        return trace(work, [model]), offload.ledger.host_peak

    (plain, _), (away, host) = (traced(DEPTH, away=away) for away in (False, True))
    assert away.peak < plain.peak - 5 * BYTES and away.operations == plain.operations and host == (DEPTH + 1) * BYTES
    assert traced(2 * DEPTH, away=True)[0].peak < away.peak + BYTES
    assert abs(away.peak - passed(DEPTH, away=True)[1]) <= BYTES, "what was measured on the CPU"


def test_views_strides_and_weights_stay_what_they_are() -> None:
    """A transposed part of a storage comes back with its strides and offset; a weight that a product keeps is not put away."""
    weight = torch.nn.Linear(64, 64)
    offload = ActivationOffload([weight])
    whole = torch.randn(3, 64, 64).requires_grad_()
    with offload.keeping():
        part = (whole * 1)[1:2].transpose(1, 2)
        found = weight(part.sin())
        seen = found.grad_fn.next_functions
    assert seen and offload.ledger.host_peak == 3 * 64 * 64 * 4 + 64 * 64 * 4, "the storage of the part, and the product's input"
    (gradient,) = torch.autograd.grad(found.sum(), [whole])
    plain = (whole * 1)[1:2].transpose(1, 2)
    assert torch.autograd.grad(weight(plain.sin()).sum(), [whole])[0].equal(gradient)


def test_together_with_swapped_blocks_every_byte_stays() -> None:
    step = Step("flux1")
    swap = BlockSwap(step.family, step.denoiser, len(blocks_of(step.family, step.denoiser)))
    step.checkpointed()
    before = step.gradients()
    swap.begin(CPU)
    offload = ActivationOffload([step.denoiser])
    assert same(passes(step, offload), before) and same(passes(step, offload), before)
    assert set(swap.ledger.fetches.values()) == {4} and swap.ledger.resident == 0


def test_a_pass_that_fails_leaves_nothing_behind() -> None:
    step = Step("flux1")
    step.checkpointed()
    before, offload = step.gradients(), ActivationOffload([step.denoiser])
    handle = step.denoiser.single_transformer_blocks[1].register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        passes(step, offload)
    handle.remove()
    assert same(passes(step, offload), before) and offload.ledger.host == 0


def test_main_memory_is_used_again() -> None:
    step = Step("flux1")
    step.checkpointed()
    offload = ActivationOffload([step.denoiser])
    passes(step, offload)
    pieces = {piece.data_ptr() for pieces in offload._memory.free.values() for piece in pieces}
    passes(step, offload)
    assert pieces == {piece.data_ptr() for pieces in offload._memory.free.values() for piece in pieces}
    assert all(size <= rounded(size) <= size * 9 / 8 + 128 for size in (1024, 1025, 5000, 1 << 20, (1 << 20) + 1, 3_000_001))


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["flux1", "sdxl"])
def test_on_a_gpu_gradients_are_the_same_bytes(name: str) -> None:
    """Ten steps with and without: a copy that overtakes the arithmetic, or the other way round, shows as other bytes."""
    found = []
    for away in (False, True):
        step = Step(name)
        step.checkpointed()
        step.denoiser.to("cuda")
        step.noisy, step.times = step.noisy.cuda(), step.times.cuda()
        step.complete = {key: value.cuda() for key, value in step.complete.items()}
        offload = ActivationOffload([step.denoiser])
        found.append([passes(step, offload) if away else step.gradients() for _ in range(10)])
    assert offload.ledger.host == 0 and offload.ledger.host_peak > 0
    assert all(piece.is_pinned() for pieces in offload._memory.free.values() for piece in pieces)
    assert all(same(one, other) for one, other in zip(*found, strict=True))
