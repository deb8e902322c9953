"""ControlNets at work: which of them speak at a step, to which rows, and what they add to the denoiser together."""

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

    def speaks(self, at: int, steps: int) -> bool:
        """Whether it steers step `at` of so many: the step lies whole within its window."""
        return self.scale != 0.0 and is_within(at, steps, self.start, self.end)


def is_within(at: int, steps: int, start: float, end: float) -> bool:
    """Whether step `at` of so many lies whole within a window of shares, as diffusers counts it."""
    return at / steps >= start and (at + 1) / steps <= end


@dataclass(frozen=True)
class ControlCall:
    """The `turn`-th Steering of one image with its hint encoded, and the rows of the forward that it steers."""

    turn: int
    steering: Steering
    hint: Tensor
    rows: tuple[int, ...]


def control_of(family: Family) -> Control:
    """The family's way to be steered. Raises Refused with the reason where there is none."""
    if isinstance(family.control, str):
        raise Refused(f"{family.title} cannot be steered by a ControlNet: {family.control}.")
    return family.control


def encode_hints(family: Family, parts: Parts, steerings: Sequence[Steering], generator: torch.Generator) -> list[Tensor]:
    """The hints as their nets take them, in order; what the pipeline draws for them is drawn from the image's generator."""
    return [control_of(family).encode_hint(parts, one.net, one.pixels, generator) for one in steerings]


def steered(
    family: Family, parts: Parts, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning, asks: Sequence[ControlCall]
) -> tuple[Residuals | None, int]:
    """What the nets add to the rows `noisy` (B, C, H, W), all together, and the calls it took; None and 0 where none speaks.

    A row that a net does not steer gets zeros of it. Equal turns of several images share a call.
    """
    groups: dict[tuple[int, int, float, int | None], list[ControlCall]] = {}
    for ask in asks:
        groups.setdefault((ask.turn, id(ask.steering.net), ask.steering.scale, ask.steering.mode), []).append(ask)
    total: Residuals | None = None
    for group in groups.values():
        control = control_of(family)
        told = [replace(ask, rows=ask.rows[-1:]) for ask in group] if control.asked_once else group  # the conditional rows come last
        added, scale = _asked(control, parts, noisy, timesteps, conditioning, told)
        rows = [row for ask in group for row in ask.rows]
        if control.asked_once:
            answers = [answer for answer, ask in enumerate(group) for _row in ask.rows]
            added = _each(added, lambda tensor, answers=answers: tensor[answers])  # type: ignore[misc]
        own = _placed(added, None if rows == list(range(len(noisy))) else rows, count=len(noisy), scale=scale)
        total = own if total is None else _sum(total, own)
    return total, len(groups)


def _asked(
    control: Control, parts: Parts, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning, asks: Sequence[ControlCall]
) -> tuple[Residuals, float]:
    """What one net says to the rows of these asks (N, ...), and the scale that it has still to be given."""
    steering = asks[0].steering
    rows = [row for ask in asks for row in ask.rows]
    everyone = rows == list(range(len(noisy)))
    inputs = (
        parts,
        steering.net,
        noisy if everyone else noisy[rows],
        timesteps if everyone else timesteps[rows],
        conditioning if everyone else {key: value[rows] for key, value in conditioning.items()},
        _hints(asks),
    )
    if control.scaled_residuals is not None and control.scales_itself(steering.net):
        return control.scaled_residuals(*inputs, mode=steering.mode, scale=steering.scale), 1.0
    return control.residuals(*inputs, mode=steering.mode), steering.scale


def _hints(group: Sequence[ControlCall]) -> Tensor:
    """(N, ...): each image's hint, once for each of its rows."""
    import torch

    return torch.cat([ask.hint.expand(len(ask.rows), *ask.hint.shape[1:]) for ask in group])


def _placed(added: Residuals, rows: list[int] | None, *, count: int, scale: float) -> Residuals:
    """The residuals (N, ...) scaled, and as (B, ...) with zeros in the rows that are not theirs."""
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
