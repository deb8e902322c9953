"""Trained weights in one buffer and their gradients in another: one kernel does what took one for each weight.

Weights keep their names, shapes and identity: each is a view. What is elementwise gives the same numbers; the norm of all gradients is
added up in another order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter

    from train.adapters.stacks import Stack


@dataclass(frozen=True)
class FlatGroup:
    """A group of the optimizer: its weights in their order in the buffers, and the part (n,) of both that is theirs."""

    weights: Sequence[Parameter]
    values: Tensor
    gradients: Tensor


class FlatWeights:
    """The weights of an optimizer's groups, fp32 and on one device; those of a stack lie side by side, and it has views of them."""

    def __init__(self, groups: Sequence[Sequence[Parameter]], stacks: Sequence[Stack] = ()) -> None:
        runs = [weights for stack in stacks for weights in (stack.down, stack.up)]
        turn = {weight: number for number, weights in enumerate(runs) for weight in weights}
        ordered = [sorted(group, key=lambda weight: turn.get(weight, len(runs))) for group in groups]
        self._every = [weight for group in ordered for weight in group]
        self._all = nn.Parameter(torch.cat([weight.detach().flatten() for weight in self._every]))
        self._ordered = ordered
        self._stacks = stacks
        self._places: dict[Parameter, int] = {}
        self._gradients: dict[Parameter, Tensor] = {}  # views of their buffer, once they are collected
        self.groups: list[FlatGroup] = []  # then too
        place = 0
        for weight in self._every:
            self._places[weight] = place
            weight.data = self._view(self._all.data, weight)
            place += weight.numel()
        for stack in stacks:
            stack.downs = self._stacked(self._all.data, stack.down).requires_grad_()
            stack.ups = self._stacked(self._all.data, stack.up).requires_grad_()

    @property
    def collected(self) -> bool:
        """Whether the weights' gradients are views yet."""
        return self._all.grad is not None

    def _view(self, buffer: Tensor, weight: Parameter) -> Tensor:
        place = self._places[weight]
        return buffer[place : place + weight.numel()].view(weight.shape)

    def _stacked(self, buffer: Tensor, weights: Sequence[Parameter]) -> Tensor:
        """(n, ...) of weights that lie side by side."""
        begun, size = self._places[weights[0]], weights[0].numel()
        assert [self._places[weight] for weight in weights] == list(range(begun, begun + len(weights) * size, size))
        return buffer[begun : begun + len(weights) * size].view(len(weights), *weights[0].shape)

    def zero(self) -> None:
        """No gradients, before the passes of a step."""
        if self._all.grad is None:
            for weight in self._every:
                weight.grad = None
            return
        self._all.grad.zero_()
        for weight, view in self._gradients.items():
            if weight.grad is not view:  # an optimizer put another in its place
                weight.grad = view

    def collect(self) -> None:
        """After each pass: the gradients in one buffer, where those of later passes and steps are added up in the same order.

        Nothing is, where a weight has none: an optimizer leaves such a weight alone, and would let one with a gradient of 0 decay.
        """
        if self.collected:
            return
        for stack in self._stacks:
            stack.give_gradients()
        if any(weight.grad is None for weight in self._every):
            return
        buffer = self._all.grad = torch.empty_like(self._all)  # not before: activations are freed now
        for weight in self._every:
            assert weight.grad is not None
            self._gradients[weight] = weight.grad = self._view(buffer, weight).copy_(weight.grad)
        for stack in self._stacks:
            stack.downs.grad, stack.ups.grad = (self._stacked(buffer, weights) for weights in (stack.down, stack.up))
        for group in self._ordered:
            begun, count = self._places[group[0]], sum(weight.numel() for weight in group)
            self.groups.append(FlatGroup(group, *(each[begun : begun + count] for each in (self._all.data, buffer))))

    def clip(self, accelerator: Any, most: float) -> Tensor:
        """The norm of all gradients, before they are clipped to `most` (0: they are not)."""
        norm: Tensor = accelerator.clip_grad_norm_([self._all] if self.collected else self._every, most or inf)
        return norm
