"""OFT: the outputs of a layer turned block by block by rotations (Qiu et al. 2023, sec. 3.2), as LyCORIS and sd-scripts store them.

peft turns the inputs and approximates the rotation by a series, which no other tool reads; here the outputs are turned, exactly.
"""

# K blocks, N size of a block, O out-width

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from registry.errors import JobFailed
from train.adapters.delta import DeltaOfWeight
from train.adapters.layer import AdapterLayer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

UNBOUND = 32768.0  # the file's alpha: the longest that the blocks may be. A1111 and sd-scripts read 0 as "nothing", ComfyUI as no bound


def block_of(width: int, size: int) -> int:
    """The largest number up to `size` that divides the width."""
    return next(number for number in range(min(size, width), 0, -1) if width % number == 0)


class Oft(AdapterLayer):
    """y = R W x + b, R = (I - Q)^-1 (I + Q) transposed as the readers turn rows; Q is skew-symmetric and begins at zero."""

    def __init__(self, base: Any, *, rank: int, scale: float, size: int) -> None:
        super().__init__(base, rank=rank, scale=scale)
        self.size = block_of(self.shape[0], size)
        self._weight("oft_vectors", self.shape[0] // self.size, self.size * (self.size - 1) // 2)  # above the diagonal of each block

    def blocks(self) -> Tensor:
        """(K, N, N) with the numbers above the diagonal: Q is this less its transpose."""
        rows, columns = torch.triu_indices(self.size, self.size, 1, device=self.oft_vectors.device)
        found = self.oft_vectors.new_zeros(self.oft_vectors.shape[0], self.size, self.size)
        blocks: Tensor = found.index_put((torch.arange(len(found), device=found.device)[:, None], rows, columns), self.oft_vectors)
        return blocks

    def turn(self) -> Tensor:
        """(I + Q)(I - Q)^-1, (K, N, N): row n of the weight goes to row m by [n, m]."""
        blocks = self.blocks()
        skew = blocks - blocks.transpose(1, 2)
        unit = torch.eye(self.size, device=skew.device)
        found: Tensor = torch.linalg.solve(unit - skew, unit + skew, left=False)
        return found

    def changed(self, inputs: Tensor, result: Tensor) -> Tensor:
        """The outputs turned, without the bias, which stays as it is."""
        bias, convolution = self.base_layer.bias, isinstance(self.base_layer, nn.Conv2d)
        rows = result.movedim(1, -1) if convolution else result
        plain = rows.float() if bias is None else rows.float() - bias.float()
        with torch.autocast(device_type=rows.device.type, enabled=False) if rows.device.type != "meta" else torch.enable_grad():
            turned = torch.einsum("knm,...kn->...km", self.turn(), plain.unflatten(-1, (-1, self.size))).flatten(-2)
        turned = turned if bias is None else turned + bias.float()
        return (turned.movedim(-1, 1) if convolution else turned).to(result.dtype)

    def delta(self) -> Tensor:
        return self._delta_of(self.base_layer.weight.detach().to(self.oft_vectors.device).float())

    def change(self) -> DeltaOfWeight:
        kept = self.without_base()
        return DeltaOfWeight(lambda weight: kept._delta_of(weight).__getitem__, self.shape)

    def _delta_of(self, weight: Tensor) -> Tensor:
        turn = self.turn() - torch.eye(self.size, device=weight.device)
        rows = weight.reshape(-1, self.size, weight[0].numel())
        return torch.einsum("knm,kni->kmi", turn, rows).reshape(self.shape)

    def file_tensors(self) -> dict[str, Tensor]:
        blocks = self.blocks().detach()
        length = float((blocks - blocks.transpose(1, 2)).norm())
        if length >= UNBOUND:
            raise JobFailed(f"The rotation of a layer has a length of {length:.3g}, which no reader keeps. Train with a lower optim.lr.")
        return {".oft_blocks": blocks} | self._alpha(UNBOUND)

    def load_file_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        rows, columns = torch.triu_indices(self.size, self.size, 1)
        with torch.no_grad():
            self.oft_vectors.copy_(tensors[".oft_blocks"][:, rows, columns])
