"""Freed memory is given back before a block where it has grown, and not where it has not."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from registry.budget import trimmed
from registry.budget.trimmed import Trimming

MIB = 1 << 20


def test_memory_is_given_back_where_it_has_grown(monkeypatch: pytest.MonkeyPatch) -> None:
    resident = iter([500, 400, 450, 490, 380, 478, 481, 410, 490])  # MiB: at a look, and after each giving back
    given: list[int] = []
    monkeypatch.setattr(trimmed, "resident_bytes", lambda: next(resident) * MIB)
    monkeypatch.setattr(trimmed, "give_back", lambda: given.append(1))
    trimming = Trimming(100 * MIB)
    for _ in range(6):
        trimming.look()
    # 500: the first look, 400 left. 450, 490: within 100 of it. 380: lower. 478: within 100 of that. 481: above, 410 left.
    assert trimming.times == len(given) == 2 and next(resident) == 490


def test_each_block_is_looked_at_before_it_is_computed() -> None:
    trimming, blocks = Trimming(1 << 50), [nn.Linear(2, 2), nn.Linear(2, 2)]
    looks: list[int] = []
    trimming.look = lambda: looks.append(1)  # type: ignore[method-assign]
    trimming.watch(blocks)
    out = checkpoint(blocks[0], torch.ones(1, 2, requires_grad=True), use_reentrant=False)
    blocks[1](out).sum().backward()
    assert len(looks) == 3  # the first one is computed twice


def test_each_block_is_looked_at_before_its_backward_pass_too_and_gradients_stay() -> None:
    torch.manual_seed(0)
    plain, looked, looks = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), [], list[str]()
    held = copy.deepcopy(plain)
    trimming = Trimming(1 << 50)
    trimming.look = lambda: looks.append("look")  # type: ignore[method-assign]
    trimming.watch(held, backward=True)
    given = torch.randn(3, 4)
    for model in (plain, held):
        out = model(given)
        looked.append(len(looks))
        out.square().sum().backward()
    assert looked == [0, 2] and len(looks) == 4
    pairs = zip(plain.parameters(), held.parameters(), strict=True)
    assert all(one.grad is not None and other.grad is not None and torch.equal(one.grad, other.grad) for one, other in pairs)
