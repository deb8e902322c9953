"""What a convolution takes on a CPU beside its tensors while it is computed: copies in another layout, or every window as a column.

torch has several ways to convolve; which one it takes is asked of torch itself. oneDNN keeps channels in blocks of 16: it copies input and
weights into blocks, and the result back into plain rows once the input's copy is gone. The plain way multiplies the weights by all windows
of the input, one beside the other (im2col): nine times the input for 3 x 3.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

BLOCK = 16  # channels; an input of fewer is read as it is
SUMMED = 64  # channels of a 1 x 1 convolution in half precision, beyond which oneDNN keeps its sums in fp32 from block to block


def workspace(func: Any, args: Any, made: Any) -> int:
    """The most bytes that an operation of aten takes while it makes `made`, with `made`; 0 where it is no convolution."""
    import torch

    if func is torch.ops.aten.convolution.default:
        image, weight, _bias, *settings = args
        return _needed(_way(image, weight, settings), image, weight, made, image_is_made=False, transposed=settings[3])
    if func is torch.ops.aten.convolution_backward.default and made[0] is not None:
        gradient, image, weight, _bias_sizes, *settings, _mask = args
        return _needed(_way(image, weight, settings), gradient, weight, made[0], image_is_made=True, transposed=settings[3])
    return 0


def _way(image: Tensor, weight: Tensor, settings: Any) -> str:
    """The name of torch's backend for such a convolution on a CPU; no memory is taken for it."""
    import torch

    alike = [torch.zeros(1, dtype=one.dtype, device="cpu").expand(one.shape) for one in (image, weight)]
    return str(torch._C._select_conv_backend(*alike, None, *settings).name)


def _needed(way: str, source: Tensor, weight: Tensor, made: Tensor, *, image_is_made: bool, transposed: bool) -> int:
    if way.startswith("Slow"):
        windows = prod(weight.shape[2:])
        places = prod((source if image_is_made != transposed else made).shape[2:])
        images = source.shape[0] if way in ("Slow2d", "Slow3d") and not image_is_made else 1  # the others go from image to image
        columns = images * weight.shape[1] * windows * places * source.element_size()
        if image_is_made:  # half precision is summed in fp32 columns beside its own
            return made.nbytes + columns * (3 if source.element_size() == 2 else 1)
        return made.nbytes + (columns if windows > 1 else 0)
    if way != "Mkldnn":
        return int(made.nbytes)
    narrow = weight.element_size() == 2 and prod(weight.shape[2:]) == 1 and source.shape[1] > SUMMED
    sums = 4 * made[0].numel() if narrow else 0
    read = _in_blocks(source) if source.shape[1] >= BLOCK else 0
    return _in_blocks(made) + max(made.nbytes, read + _in_blocks(weight) + sums)


def _in_blocks(tensor: Tensor) -> int:
    """Bytes of (B, C, ...) or of weights (O, C, ...) with whole blocks of channels."""
    return int(tensor.nbytes // tensor.shape[1] * -(-tensor.shape[1] // BLOCK) * BLOCK)
