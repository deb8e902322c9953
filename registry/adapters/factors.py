"""A delta as two factors, and everything that can be done with it without making it: sums, cuts, norms, angles.

QR of both factors leaves a core of (sum of ranks)^2, whose SVD is that of the whole delta: exact, and 75 times as fast on four
rank-32 adapters of a 1280 x 1280 layer as the SVD of the delta.
"""

# R rank, I in-width (a convolution's kernel with it), O out-width

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from registry.errors import Refused, is_out_of_memory

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Factors:
    """up (O, R) and down (R, I) whose product is a delta of `shape`: (O, I) or (O, I, h, w). fp32."""

    up: Tensor
    down: Tensor
    shape: tuple[int, ...]

    @property
    def rank(self) -> int:
        return int(self.down.shape[0])

    def product(self) -> Tensor:
        """The delta."""
        return (self.up @ self.down).reshape(self.shape)


def concatenated(parts: Sequence[tuple[Factors, float]]) -> Factors:
    """The exact weighted sum of deltas: factors side by side, the weight on `up`. The rank is the sum of the ranks."""
    import torch

    sizes = {(part.up.shape[0], part.down.shape[1]) for part, _ in parts}
    if len(sizes) > 1:
        raise Refused(f"the adapters change one layer in different shapes: {' and '.join(str(part.shape) for part, _ in parts)}.")
    ups = [part.up * weight if weight != 1.0 else part.up for part, weight in parts]
    return Factors(torch.cat(ups, dim=1), torch.cat([part.down for part, _ in parts]), parts[0][0].shape)


@dataclass(frozen=True)
class Spectrum:
    """The singular value decomposition of a delta: u (O, K), values (K,) falling, vh (K, I); fp64."""

    u: Tensor
    values: Tensor
    vh: Tensor
    shape: tuple[int, ...]
    whole: float | None = None  # the sum of the squares of all values, where these are the first ones alone

    def cut(self, rank: int) -> Factors:
        """The best factors of this rank (Eckart-Young), the values shared between both, so that half precision holds them."""
        rank = max(1, min(rank, len(self.values)))
        root = self.values[:rank].sqrt()
        return Factors((self.u[:, :rank] * root).float(), (root[:, None] * self.vh[:rank]).float(), self.shape)

    def energy(self, rank: int) -> float:
        """Share of the squared Frobenius norm that the first `rank` values hold; 1 for a delta of nothing."""
        total = self.square
        return float(self.values[:rank].square().sum()) / total if total > 0 else 1.0

    @property
    def square(self) -> float:
        """The squared Frobenius norm of the delta."""
        return float(self.values.square().sum()) if self.whole is None else self.whole

    @property
    def norm(self) -> float:
        """Frobenius norm."""
        return math.sqrt(self.square)

    @property
    def effective_rank(self) -> float:
        """exp of the entropy of the values' shares (Roy and Vetterli 2007); 0 for a delta of nothing."""
        total = float(self.values.sum())
        if total <= 0:
            return 0.0
        shares = [float(value) / total for value in self.values if value > 0]
        return math.exp(-sum(share * math.log(share) for share in shares))


def spectrum(factors: Factors) -> Spectrum:
    """The exact SVD by QR of both factors and the SVD of the core."""
    import torch

    up, down = factors.up.double(), factors.down.double()
    if not (bool(up.isfinite().all()) and bool(down.isfinite().all())):
        raise Refused(NO_NUMBERS)
    if factors.rank > min(up.shape[0], down.shape[1]):
        return dense_spectrum((up @ down).reshape(factors.shape))
    left, core_left = torch.linalg.qr(up)
    right, core_right = torch.linalg.qr(down.T)
    u, values, vh = svd(core_left @ core_right.T)
    return Spectrum(left @ u, values, vh @ right.T, factors.shape)


def dense_spectrum(change: Tensor) -> Spectrum:
    """The SVD of a delta that is no product of small factors. Raises Refused where none is found."""
    u, values, vh = svd(change.double().flatten(1))
    return Spectrum(u, values, vh, tuple(change.shape))


LEAST = 400  # rows and columns from which the first values alone are found faster than all: of 320 x 320 it takes as long
BAND = 160  # rows of a Gram matrix that are made at a time: what is above its diagonal is not needed
RESIDUAL = 1e-11  # of the largest value: what a pair of vectors may be off; the factors' fp32 rounds by thousands of times as much


def first_spectrum(change: Tensor, count: int | None) -> Spectrum:
    """The first `count` values and vectors of a delta, exact; all (None: all) where that is as cheap. Raises Refused where none are found.

    The eigenvectors of the smaller Gram matrix span the vectors, and the SVD inside their span (Rayleigh and Ritz) gives the values to
    all digits, which the Gram matrix alone does not. The residual proves each pair, and the eigenvalues that none was passed over; where
    either is too large, all values are found.
    """
    matrix = change.double().flatten(1)
    if count is None or min(matrix.shape) < max(LEAST, 2 * count):
        return dense_spectrum(change)
    turned = matrix.shape[0] > matrix.shape[1]
    found = _leading(matrix.T if turned else matrix, count)
    if found is None:
        return dense_spectrum(change)
    near, values, far, whole = found
    u, v = (far, near) if turned else (near, far)
    return Spectrum(u, values, v.T, tuple(change.shape), whole)


def _leading(wide: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor, float] | None:
    """(left vectors (N, K), values, right vectors (M, K), squared norm) of a matrix (N, M), N <= M; None where they are not proven."""
    import torch

    gram = wide.new_zeros(len(wide), len(wide))  # its lower half
    for first in range(0, len(wide), BAND):
        gram[first : first + BAND, : first + BAND] = wide[first : first + BAND] @ wide[: first + BAND].T
    if not bool(gram.isfinite().all()):
        return None
    squares, vectors = torch.linalg.eigh(gram)
    squares, basis = squares[-count:].flip(0), vectors[:, -count:]
    far, core = torch.linalg.qr(wide.T @ basis)  # (M, K), (K, K)
    inner, values, outer = svd(core)
    near, far = basis @ outer.T, far @ inner
    residual = torch.linalg.matrix_norm(wide @ far - near * values)  # the transposed equation holds by the construction
    passed_over = (values.square() - squares).abs().max()
    proven = residual <= RESIDUAL * values[0] and passed_over <= RESIDUAL * squares[0]
    return (near, values, far, float(gram.trace())) if bool(proven) else None


NO_NUMBERS = "a module's numbers are NaN, infinite, or so large that their product has no singular values. Train the adapter again."


def svd(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """u, values and vh of a matrix, thin. Raises Refused where none are found."""
    import torch

    try:
        u, values, vh = torch.linalg.svd(matrix, full_matrices=False)
    except RuntimeError as error:  # torch's LinAlgError is one
        if is_out_of_memory(error):
            raise
        raise Refused(NO_NUMBERS) from error
    return u, values, vh


@contextmanager
def one_thread() -> Iterator[None]:
    """The order of sums in QR and SVD must not depend on the number of threads: the same recipe gives the same bytes."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


OVERSAMPLE, POWER = 16, 4  # of the randomised SVD: more columns and turns than the rank needs (Halko et al. 2011, 4.4 and 4.5)


def leading_spectrum(change: Tensor, rank: int, *, seed: int) -> Spectrum:
    """The first values of a large delta by a randomised SVD (Halko, Martinsson, Tropp 2011); the whole where that is as cheap."""
    import torch

    matrix = change.float().flatten(1)
    width = rank + OVERSAMPLE
    if width * 2 >= min(matrix.shape):
        return dense_spectrum(change)
    start = torch.randn(matrix.shape[1], width, generator=torch.Generator().manual_seed(seed))
    basis = torch.linalg.qr(matrix @ start)[0]
    for _ in range(POWER):
        basis = torch.linalg.qr(matrix @ torch.linalg.qr(matrix.T @ basis)[0])[0]
    u, values, vh = torch.linalg.svd((basis.T @ matrix).double(), full_matrices=False)
    return Spectrum((basis.double() @ u)[:, :rank], values[:rank], vh[:rank], tuple(change.shape))


def inner(one: Factors, other: Factors) -> float:
    """<D1, D2> = sum of (B1^T B2) * (A1 A2^T): never makes the deltas."""
    return float(((one.up.double().T @ other.up.double()) * (one.down.double() @ other.down.double().T)).sum())


# --- how many values to keep


@dataclass(frozen=True, kw_only=True)
class Keep:
    """Which rank a layer is cut to: at most `rank`, and by one of the measures where given."""

    rank: int | None = None
    sv_ratio: float | None = None
    sv_fro: float | None = None
    energy: float | None = None

    def faults(self) -> list[str]:
        """What is wrong with the numbers."""
        found = []
        if self.rank is not None and self.rank < 1:
            found.append(f"rank must be at least 1, got {self.rank}.")
        if self.sv_ratio is not None and not self.sv_ratio >= 1:
            found.append(f"sv-ratio must be at least 1, got {self.sv_ratio:g}.")
        for name, value in (("sv-fro", self.sv_fro), ("energy", self.energy)):
            if value is not None and not 0 < value <= 1:
                found.append(f"{name} must be above 0 and at most 1, got {value:g}.")
        chosen = [name for name in ("sv_ratio", "sv_fro", "energy") if getattr(self, name) is not None]
        if len(chosen) > 1:
            found.append(f"{' and '.join(chosen)} are different measures: give one.")
        return found

    def of(self, values: Tensor, total: float | None = None) -> int:
        """The rank for a layer with these singular values; at least 1. `total` is the sum of all squares, when these are the first ones.

        sv_ratio: those above the first / sv_ratio. sv_fro: so many that the Frobenius norm keeps this share; energy: its square.
        """
        count = len(values)
        squares = values.double().square()
        if self.sv_ratio is not None:
            count = int((values > values[0] / self.sv_ratio).sum())
        share = self.energy if self.energy is not None else self.sv_fro**2 if self.sv_fro is not None else None
        if share is not None:
            enough = squares.cumsum(0) >= share * (float(squares.sum()) if total is None else total) * (1 - 1e-12)
            count = int(enough.nonzero()[0, 0]) + 1 if bool(enough.any()) else count
        return max(1, min(count, self.rank) if self.rank is not None else count)

    def to_plain(self) -> dict[str, float]:
        """What was given."""
        return {name: value for name in ("rank", "sv_ratio", "sv_fro", "energy") if (value := getattr(self, name)) is not None}
