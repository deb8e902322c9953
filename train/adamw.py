"""AdamW over weights that lie in one buffer: one kernel for a group, in place of one for each weight."""

# n numbers of a group

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch.optim.adamw import adamw

if TYPE_CHECKING:
    from torch import Tensor

    from train.adapters.flat import FlatGroup, FlatWeights

Moments = tuple["Tensor", "Tensor", "Tensor"]  # steps (), averages (n,) of the gradients and of their squares


class FlatAdamW(torch.optim.AdamW):
    """torch's AdamW. With `flat` its moments lie in buffers too; its state is that of each weight, as torch's is."""

    flat: FlatWeights | None = None
    _moments: dict[int, Moments] | None = None  # by the number of the group
    _apart = False  # whether some weights had fewer steps than others of their group

    def state_dict(self) -> dict[str, Any]:
        """torch's: the weights of a group count their steps in one tensor here, which torch would count up once for each of them."""
        found: dict[str, Any] = super().state_dict()
        return {**found, "state": {number: _own_steps(state) for number, state in found["state"].items()}}

    def load_state_dict(self, state_dict: Any) -> None:
        """The next step puts the moments into buffers."""
        super().load_state_dict(state_dict)
        for state in self.state.values():
            state.update(_own_steps(state))
        self._moments, self._apart = None, False

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step over all weights."""
        flat = self.flat
        if closure is None and flat is not None and flat.collected and self._moments is None and not self._apart:
            self._apart = not all(map(self._in_step, flat.groups))
        if closure is not None or flat is None or not flat.collected or self._apart:
            return super().step(closure)
        if self._moments is None:
            self._moments = {number: self._moments_of(own) for number, own in enumerate(flat.groups)}
        for number, (group, own) in enumerate(zip(self.param_groups, flat.groups, strict=True)):
            steps, averages, squares = self._moments[number]
            adamw(
                [own.values],
                [own.gradients],
                [averages],
                [squares],
                [],
                [steps],
                fused=group["fused"],
                grad_scale=getattr(self, "grad_scale", None),
                found_inf=getattr(self, "found_inf", None),
                amsgrad=False,
                beta1=group["betas"][0],
                beta2=group["betas"][1],
                lr=group["lr"],
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                maximize=False,
            )
        return None

    def _in_step(self, own: FlatGroup) -> bool:
        """Whether all weights of a group had as many steps; not where some had no gradient in steps before."""
        return len({float(self.state[weight]["step"]) if weight in self.state else 0.0 for weight in own.weights}) <= 1

    def _moments_of(self, own: FlatGroup) -> Moments:
        """Those of the weights' state, or zeros; the state has views of them from now on."""
        averages, squares = torch.zeros_like(own.values), torch.zeros_like(own.values)
        steps: Tensor = self.state[own.weights[0]].get("step", torch.zeros((), device=own.values.device))
        place = 0
        for weight in own.weights:
            state, end = self.state[weight], place + weight.numel()
            for name, buffer in (("exp_avg", averages), ("exp_avg_sq", squares)):
                view = buffer[place:end].view(weight.shape)
                state[name] = view.copy_(state[name]) if name in state else view
            state["step"] = steps
            place = end
        return steps, averages, squares


def _own_steps(state: dict[str, Any]) -> dict[str, Any]:
    return {**state, "step": state["step"].clone()} if "step" in state else state
