"""Muon for hidden weights (Jordan et al. 2024), AdamW for the rest.

Muon moves a weight matrix along its orthogonalised momentum. The Newton-Schulz iteration runs on the small Gram matrix (all its factors are
polynomials of G G^T and commute), and each process of a team orthogonalises only its share of the matrices.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from train.pocket.team import Team

QUINTIC = (3.4445, -4.7750, 2.0315)  # Jordan et al. 2024: maps singular values in (0, 1] near 1 in five rounds


def orthogonalise(matrix: Tensor, *, rounds: int = 5) -> Tensor:
    """The matrix with its singular values brought near 1, (rows, columns) as given."""
    a, b, c = QUINTIC
    wide = matrix if matrix.size(0) <= matrix.size(1) else matrix.T
    wide = wide / (wide.norm() + 1e-7)  # float32: in bfloat16 the Gram form amplifies rounding until the training diverges
    gram = wide @ wide.T
    product: Tensor | None = None
    for last in [False] * (rounds - 1) + [True]:
        factor = b * gram + c * (gram @ gram)
        factor.diagonal().add_(a)
        product = factor if product is None else factor @ product
        if not last:
            gram = factor @ gram @ factor
    assert product is not None
    flat = product @ wide
    turned: Tensor = flat if matrix.size(0) <= matrix.size(1) else flat.T
    return turned


class MuonAdam:
    """Muon on matrices and convolution kernels (flattened to rows), AdamW on vectors and on weights whose name has one of `adam_names`."""

    def __init__(
        self,
        named: Sequence[tuple[str, Tensor]],
        team: Team,
        *,
        lr: float,
        adam_lr: float,
        weight_decay: float = 0.01,
        adam_names: Sequence[str] = (),
        momentum: float = 0.95,
    ) -> None:
        by_muon = [p.ndim >= 2 and not any(k in n for k in adam_names) for n, p in named]
        self.matrices = [p for (_, p), m in zip(named, by_muon, strict=True) if m]
        self.others = [p for (_, p), m in zip(named, by_muon, strict=True) if not m]
        self.team, self.lr, self.adam_lr, self.weight_decay, self.momentum = team, lr, adam_lr, weight_decay, momentum
        self.buffers = [torch.zeros_like(p) for p in self.matrices]
        self.adam = torch.optim.AdamW(self.others, adam_lr, betas=(0.9, 0.98), weight_decay=weight_decay)
        self.owners = self._deal()

    def _deal(self) -> list[int]:
        """An owner for each matrix, so that the processes have about the same work."""
        loads, owners = [0.0] * self.team.size, [0] * len(self.matrices)
        for i in sorted(range(len(self.matrices)), key=lambda i: -self.matrices[i].numel()):
            rows = self.matrices[i].reshape(self.matrices[i].size(0), -1)
            owners[i] = loads.index(min(loads))
            loads[owners[i]] += rows.numel() * min(rows.shape)
        return owners

    @torch.no_grad()
    def step(self, factor: float) -> None:
        """One update from the gradients, with both learning rates times `factor`."""
        for group in self.adam.param_groups:
            group["lr"] = self.adam_lr * factor
        self.adam.step()
        updates = []
        for p, buffer, owner in zip(self.matrices, self.buffers, self.owners, strict=True):
            assert p.grad is not None
            buffer.lerp_(p.grad, 1 - self.momentum)
            if owner == self.team.rank:
                ahead = p.grad.lerp(buffer, self.momentum)  # Nesterov
                updates.append(orthogonalise(ahead.reshape(ahead.size(0), -1)).reshape(p.shape))
            else:
                updates.append(torch.empty_like(p))
        self.team.share(updates, self.owners)
        for p, update in zip(self.matrices, updates, strict=True):
            scale = 0.2 * max(p.size(0), p.numel() // p.size(0)) ** 0.5  # an RMS of 0.2, as AdamW's updates have (Liu et al. 2025)
            p.mul_(1 - self.lr * factor * self.weight_decay).add_(update, alpha=-self.lr * factor * scale)

    def state_dict(self) -> dict[str, object]:
        return {"buffers": self.buffers, "adam": self.adam.state_dict()}

    def load_state_dict(self, state: dict[str, object]) -> None:
        for mine, given in zip(self.buffers, state["buffers"], strict=True):  # type: ignore[call-overload]
            mine.copy_(given)
        self.adam.load_state_dict(state["adam"])  # type: ignore[arg-type]
