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
    return PRODUCT if narrow and _computes("bf16") else 0


def processor() -> list[bool]:
    """What torch asks of this CPU and process as it chooses between oneDNN and its own ways, so that a trace depends on it."""
    import torch

    return [_computes("bf16"), _computes("fp16"), bool(torch.backends.mkldnn.enabled), torch.get_num_threads() > 1]


def _computes(dtype: str) -> bool:
    """Whether oneDNN computes in it on this CPU; a torch without oneDNN, as for Macs, has no such question."""
    import torch

    there = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]  # of torch
    return bool(there and getattr(torch.ops.mkldnn, f"_is_mkldnn_{dtype}_supported")())
