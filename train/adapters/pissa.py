"""PiSSA: a LoRA whose factors begin as the first part of the weight's own SVD (Meng et al. 2024, eq. 2 to 4).

The paper takes that part out of the base's weight. Here the weight stays as it is and the start is subtracted beside it, which is the same
change; so a base in half precision is not rounded again, the bare base is at hand, and the file is a plain LoRA for it.
"""

# R rank, O out-width, I in-width (a convolution's kernel with it)

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from registry.adapters.factors import Factors, leading_spectrum, one_thread, spectrum
from train.adapters.layer import AdapterLayer, product_norm

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


class Pissa(AdapterLayer):
    """D = (B A - B0 A0) * scale, B0 A0 * scale the part of the weight with its R largest singular values."""

    start_down: Tensor
    start_up: Tensor

    def __init__(self, base: Any, *, rank: int, scale: float, seed: int) -> None:
        super().__init__(base, rank=rank, scale=scale)
        self.kept: tuple[Tensor, Tensor] | None = None  # down, up of a file, in place of the parameters
        down = self._weight("lora_A", rank, math.prod(self.shape[1:]))
        up = self._weight("lora_B", self.shape[0], rank)
        if down.device.type != "meta":
            with torch.no_grad(), one_thread():
                found = leading_spectrum(base.weight.detach().float().cpu(), rank, seed=seed).cut(rank)
                held = min(rank, found.rank)
                down[:held] = (found.down / math.sqrt(scale)).to(down.device)
                up[:, :held] = (found.up / math.sqrt(scale)).to(up.device)
        self.register_buffer("start_down", down.detach().clone(), persistent=False)
        self.register_buffer("start_up", up.detach().clone(), persistent=False)

    def delta(self) -> Tensor:
        if self.kept is not None:
            down, up = self.kept
            return (up @ down * self.scale).reshape(self.shape)
        grown = self.lora_B @ (self.lora_A - self.start_down) + (self.lora_B - self.start_up) @ self.start_down  # nothing large cancels
        found: Tensor = (grown * self.scale).reshape(self.shape)
        return found

    def delta_norm(self) -> float:
        """Without making the delta: B A - B0 A0 is the product of [B, B - B0] and [A - A0; A0]."""
        if self.kept is not None:
            down, up = self.kept
        else:
            down = torch.cat([self.lora_A - self.start_down, self.start_down])
            up = torch.cat([self.lora_B, self.lora_B - self.start_up], dim=1)
        return self.scale * product_norm(up, down)

    def changed(self, inputs: Tensor, result: Tensor) -> Tensor:
        """Without making the delta where the layer is linear: the differences of both factors, so that nothing large cancels."""
        if len(self.shape) != 2 or self.kept is not None:
            return super().changed(inputs, result)
        values = inputs.float()
        moved = (values @ (self.lora_A - self.start_down).T) @ self.lora_B.T + (values @ self.start_down.T) @ (
            self.lora_B - self.start_up
        ).T
        found: Tensor = result + (moved * self.scale).to(result.dtype)
        return found

    def file_tensors(self) -> dict[str, Tensor]:
        """A LoRA of rank 2 R: the singular vectors of the change itself, in which half precision loses nothing by cancelling."""
        if self.kept is not None:
            down, up = self.kept
        else:
            a, b, a0, b0 = (t.detach().float().cpu() for t in (self.lora_A, self.lora_B, self.start_down, self.start_up))
            columns = a.shape[1]
            stacked = Factors(torch.cat([b, b - b0], dim=1), torch.cat([a - a0, a0]), (self.shape[0], columns))
            with one_thread():
                cut = spectrum(stacked).cut(2 * self.rank)
            down, up = (_padded(tensor, 2 * self.rank, dim) for tensor, dim in ((cut.down, 0), (cut.up, 1)))
        kernel = self.shape[2:]
        ones = (1,) * len(kernel)
        return {".lora_A.weight": down.reshape(-1, *self.shape[1:]), ".lora_B.weight": up.reshape(self.shape[0], -1, *ones)}

    def load_file_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Use a file's change as it is; training goes on from the parameters, which a file does not hold (`use_parameters`)."""
        device = self.lora_A.device
        self.kept = (tensors[".lora_A.weight"].flatten(1).to(device), tensors[".lora_B.weight"].flatten(1).to(device))

    def use_parameters(self) -> None:
        self.kept = None


def _padded(tensor: Tensor, rank: int, dim: int) -> Tensor:
    """Zeros up to this rank: narrow layers have fewer singular values."""
    missing = rank - tensor.shape[dim]
    shape = list(tensor.shape)
    shape[dim] = missing
    return tensor if missing <= 0 else torch.cat([tensor, tensor.new_zeros(shape)], dim=dim)
