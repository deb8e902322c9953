"""ControlNets during denoising: which are active at a step, on which rows, and the sum of their residuals."""

# B rows of one forward, N of them that one net steers

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from registry.errors import Refused
from registry.family import Control, Family
from registry.parts import Conditioning, Parts, Residuals

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Steering:
    """One ControlNet for one image: its hint, how strongly, and in which share of the steps."""

    net: nn.Module
    pixels: Tensor  # the hint (1, 3, h, w) in [0, 1], of the image's size
    scale: float = 1.0
    start: float = 0.0  # shares of the steps, as diffusers' control_guidance_start and _end
    end: float = 1.0
    mode: int | None = None  # of a union net

    def is_active(self, step: int, steps: int) -> bool:
        """Whether it acts at `step` of `steps`: the whole step is within its window, and its scale is not 0."""
        return self.scale != 0.0 and is_within(step, steps, self.start, self.end)


def is_within(step: int, steps: int, start: float, end: float) -> bool:
    """Whether all of `step` of `steps` is within a window of shares, as diffusers counts it."""
    return step / steps >= start and (step + 1) / steps <= end


@dataclass(frozen=True)
class ControlCall:
    """The `turn`-th Steering of one image with its hint encoded, and the rows of the forward that it steers."""

    turn: int
    steering: Steering
    hint: Tensor
    rows: tuple[int, ...]


def control_of(family: Family) -> Control:
    """The family's Control. Raises Refused with the reason where it has none."""
    if isinstance(family.control, str):
        raise Refused(f"{family.title} cannot be steered by a ControlNet: {family.control}.")
    return family.control


def encode_hints(family: Family, parts: Parts, steerings: Sequence[Steering], generator: torch.Generator) -> list[Tensor]:
    """The hints as their nets take them, in order; what the pipeline draws for them is drawn from the image's generator."""
    return [control_of(family).encode_hint(parts, one.net, one.pixels, generator) for one in steerings]


def steered(
    family: Family, parts: Parts, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning, calls: Sequence[ControlCall]
) -> tuple[Residuals | None, int]:
    """The sum of the nets' residuals for the rows `noisy` (B, C, H, W), and the number of net calls; None and 0 where none is active.

    Rows that a net does not steer get zeros. Equal turns of several images share a call.
    """
    groups: dict[tuple[int, int, float, int | None], list[ControlCall]] = {}
    for call in calls:
        groups.setdefault((call.turn, id(call.steering.net), call.steering.scale, call.steering.mode), []).append(call)
    total: Residuals | None = None
    for group in groups.values():
        control = control_of(family)
        asked = [replace(call, rows=call.rows[-1:]) for call in group] if control.conditional_only else group  # conditional rows are last
        added, scale = _residuals_of(control, parts, noisy, timesteps, conditioning, asked)
        rows = [row for call in group for row in call.rows]
        if control.conditional_only:
            answers = [answer for answer, call in enumerate(group) for _row in call.rows]
            added = _each(added, lambda tensor, answers=answers: tensor[answers])  # type: ignore[misc]
        own = _placed(added, None if rows == list(range(len(noisy))) else rows, count=len(noisy), scale=scale)
        total = own if total is None else _sum(total, own)
    return total, len(groups)


def _residuals_of(
    control: Control, parts: Parts, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning, calls: Sequence[ControlCall]
) -> tuple[Residuals, float]:
    """One net's residuals for the rows of these calls (N, ...), and the scale still to be applied."""
    steering = calls[0].steering
    rows = [row for call in calls for row in call.rows]
    everyone = rows == list(range(len(noisy)))
    inputs = (
        parts,
        steering.net,
        noisy if everyone else noisy[rows],
        timesteps if everyone else timesteps[rows],
        conditioning if everyone else {key: value[rows] for key, value in conditioning.items()},
        _hints(calls),
    )
    if control.scaled_residuals is not None and control.scales_itself(steering.net):
        return control.scaled_residuals(*inputs, mode=steering.mode, scale=steering.scale), 1.0
    return control.residuals(*inputs, mode=steering.mode), steering.scale


def _hints(group: Sequence[ControlCall]) -> Tensor:
    """(N, ...): each image's hint, once for each of its rows."""
    import torch

    return torch.cat([call.hint.expand(len(call.rows), *call.hint.shape[1:]) for call in group])


def _placed(added: Residuals, rows: list[int] | None, *, count: int, scale: float) -> Residuals:
    """The residuals (N, ...) scaled, and as (B, ...) with zeros in all other rows."""
    import torch

    def place(tensor: Tensor) -> Tensor:
        scaled = tensor * scale
        if rows is None:
            return scaled
        where = torch.tensor(rows, device=scaled.device)
        return scaled.new_zeros(count, *scaled.shape[1:]).index_copy(0, where, scaled)

    return _each(added, place)


def _each(added: Residuals, change: Callable[[Tensor], Tensor]) -> Residuals:
    """Every tensor changed, once: several places of the denoiser may share one."""
    done: dict[int, Tensor] = {}
    for tensor in (tensor for tensors in added.values() for tensor in tensors):
        if id(tensor) not in done:
            done[id(tensor)] = change(tensor)
    return {name: [done[id(tensor)] for tensor in tensors] for name, tensors in added.items()}


def _sum(one: Residuals, other: Residuals) -> Residuals:
    """Residuals of two nets together; a place that only one of them has is that one's (two nets of a family may differ in it)."""
    both: dict[str, Sequence[Tensor]] = {}
    for name in {**one, **other}:
        first, second = one.get(name, ()), other.get(name, ())
        both[name] = [a + b for a, b in zip(first, second, strict=True)] if first and second else (first or second)
    return both
