"""Code that a process keeps for what a CPU computes: oneDNN writes it for the shapes that it meets, each product's and convolution's own.

It stays until the process ends (or 1,024 others were met), and no tensor of a model has it: of a small model it is more than the weights.
The sizes were measured on an AMD EPYC (Zen 5) with oneDNN of torch 2.13, at 1 to 4,096 rows and widths of 16 to 1,280; another CPU's code
has another size, and is estimated by these.
"""

from __future__ import annotations

from typing import Any

PRODUCT = 560 * 2**10  # bytes of a product in bfloat16, whatever its shape: 555 to 612 KiB
CONVOLUTION = 90 * 2**10  # 59 to 98 KiB in bfloat16, up to 93 in fp32


def code_bytes(func: Any, args: Any) -> int:
    """Bytes of the code of an operation of aten on tensors of these shapes; 0 where oneDNN does not compute it."""
    import torch

    aten = torch.ops.aten
    if func in (aten.convolution.default, aten.convolution_backward.default):
        return CONVOLUTION
    products = (aten.mm.default, aten.addmm.default, aten.bmm.default, aten.baddbmm.default)
    narrow = func in products and args[-1].dtype is torch.bfloat16
    return PRODUCT if narrow and torch.ops.mkldnn._is_mkldnn_bf16_supported() else 0


def processor() -> list[bool | int]:
    """What torch asks of this CPU and process as it chooses between oneDNN and its own ways, so that a trace depends on it."""
    import torch

    supported = (torch.ops.mkldnn._is_mkldnn_bf16_supported(), torch.ops.mkldnn._is_mkldnn_fp16_supported())
    return [*supported, torch.backends.mkldnn.enabled, torch.get_num_threads() > 1]
