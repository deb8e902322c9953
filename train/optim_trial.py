"""An optimizer tried on small weights before a model is loaded: that it takes steps, what it keeps, and that a resume has the same bits."""

from __future__ import annotations

import io
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from registry.errors import Refused
from registry.launch.importing import importing
from train.optim_state import has_evaluation_weights, load_state, set_rate, state_bytes, tensor_bytes

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter

Build = Callable[[Sequence[dict[str, Any]]], Any]  # groups -> optimizer
WIDTH = 512  # of the tried matrices: a layer of usual size, whose moments an 8-bit or a factored optimizer keeps as it does in training
STEPS = 3  # before and after the checkpoint


@dataclass(frozen=True)
class Trial:
    """What was found on the small weights."""

    moments: float  # numbers of fp32 that it keeps for each weight; an 8-bit moment is a quarter
    inexact: str | None  # what differs after a resume; None: not a bit
    own_average: bool  # the weights to use are other ones than those that it trains, as a schedule-free optimizer's are


def try_steps(build: Build, *, rank: int, rates: Sequence[float], lr: float, setting: str) -> Trial:
    """Take steps with a group for each factor in `rates`, and again from a checkpoint in the middle.

    Raises Refused, naming the `setting`, for what the optimizer refuses or fails in, and for a state that cannot be saved or put back.
    """
    with importing(), _random_states() as back, redirect_stdout(io.StringIO()):  # a plan uses torch here first
        weights = _weights(rank, len(rates))
        optimizer = _attempt(lambda: _built(build, weights, rates), setting, "does not work with these options")
        _attempt(lambda: _steps(optimizer, weights, lr, range(STEPS)), setting, "does not work with these options")
        moments = state_bytes(optimizer) / 4
        states = back()
        saved, values = _attempt(lambda: _through_a_file(optimizer, weights), setting, "cannot be resumed, as its state cannot be saved")
        _steps(optimizer, weights, lr, range(STEPS, 2 * STEPS))
        other = [[weight.detach().clone().requires_grad_() for weight in group] for group in _weights(rank, len(rates))]
        resumed = _built(build, other, rates)
        _attempt(lambda: load_state(resumed, saved), setting, "cannot be resumed, as its state cannot be put back")
        for weight, value in zip(_flat(other), values, strict=True):
            weight.data.copy_(value)
        states()
        _attempt(lambda: _steps(resumed, other, lr, range(STEPS, 2 * STEPS)), setting, "cannot be resumed, as it fails after it")
    return Trial(moments, _difference(_flat(weights), _flat(other)), has_evaluation_weights(optimizer))


def numbers_kept(build: Build, shapes: Mapping[tuple[int, ...], int], lr: float) -> float | None:
    """Numbers of fp32 that the optimizer keeps for each weight, of weights of these shapes as often as given; None: it cannot be told.

    A factored state is a row and a column a matrix, and an 8-bit one leaves small weights in fp32, so that it depends on the shapes.
    """
    import torch

    with _random_states(), redirect_stdout(io.StringIO()):
        weights = {shape: torch.nn.Parameter(torch.full(shape, 0.01)) for shape in shapes}
        optimizer = _built(build, [list(weights.values())], [1.0])
        _steps(optimizer, [list(weights.values())], lr, range(1))
    states = {shape: optimizer.state[weight] for shape, weight in weights.items() if weight in optimizer.state}
    if len(states) < len(shapes):
        return None
    numbers = sum(math.prod(shape) * count for shape, count in shapes.items())
    return sum(tensor_bytes(states[shape]) * count for shape, count in shapes.items()) / 4 / numbers


def _attempt(work: Callable[[], Any], setting: str, what: str) -> Any:
    try:
        return work()
    except Refused:
        raise
    except Exception as error:  # whatever a class from elsewhere raises
        raise Refused(f"{setting} {what}: {type(error).__name__}: {error}") from error


def _weights(rank: int, groups: int) -> list[list[Parameter]]:
    """A pair of factors a group: A drawn, B zero, as a LoRA begins."""
    import torch

    generator = torch.Generator().manual_seed(0)
    pairs = [(torch.randn(rank, WIDTH, generator=generator) / WIDTH**0.5, torch.zeros(WIDTH, rank)) for _ in range(groups)]
    return [[torch.nn.Parameter(factor) for factor in pair] for pair in pairs]


def _built(build: Build, weights: Sequence[Sequence[Any]], rates: Sequence[float]) -> Any:
    return build([{"params": list(group), "rate": rate} for group, rate in zip(weights, rates, strict=True)])


def _flat(groups: Sequence[Sequence[Any]]) -> list[Any]:
    return [weight for group in groups for weight in group]


def _steps(optimizer: Any, weights: Sequence[Sequence[Any]], lr: float, numbers: range) -> None:
    import torch

    for number in numbers:
        generator = torch.Generator().manual_seed(number)
        for weight in _flat(weights):
            weight.grad = 1e-3 * torch.randn(weight.shape, generator=generator)
        set_rate(optimizer, lr)
        optimizer.step()


def _through_a_file(optimizer: Any, weights: Sequence[Sequence[Any]]) -> tuple[Mapping[str, Any], list[Tensor]]:
    """State and weights as a checkpoint gives them back: tensors and plain values alone."""
    import torch

    file = io.BytesIO()
    torch.save({"state": optimizer.state_dict(), "weights": [weight.detach().clone() for weight in _flat(weights)]}, file)
    file.seek(0)
    found = torch.load(file, weights_only=True)
    return found["state"], found["weights"]


def _difference(straight: Sequence[Tensor], resumed: Sequence[Tensor]) -> str | None:
    """What differs after the resume, against how far the weights went; None: not a bit."""
    import torch

    if all(torch.equal(one, other) for one, other in zip(straight, resumed, strict=True)):
        return None
    largest = max(float((one - other).detach().abs().max()) for one, other in zip(straight, resumed, strict=True))
    return f"{STEPS} steps after a resume its weights differ by up to {largest:.2g}: it has a state that it does not save"


@contextmanager
def _random_states() -> Iterator[Callable[[], Callable[[], None]]]:
    """The global generators as they were, afterwards; a call gives what puts them back to where they are at that call."""
    import numpy
    import torch

    def keep() -> Callable[[], None]:
        kept = torch.get_rng_state(), random.getstate(), numpy.random.get_state()

        def put_back() -> None:
            torch.set_rng_state(kept[0])
            random.setstate(kept[1])
            numpy.random.set_state(kept[2])

        return put_back

    before = keep()
    try:
        yield keep
    finally:
        before()
