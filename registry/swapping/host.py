"""Main memory that a GPU copies from beside its arithmetic: page-locked where it lies, without a second copy.

torch's own pinned tensors come from an allocator that rounds each up to a power of two, which wastes up to half.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

PORTABLE = 1  # cudaHostRegisterPortable: for every device of the process


def locked_memory(size: int) -> tuple[Tensor, bool]:
    """So many bytes of main memory, and whether they are page-locked: the system may lock no more."""
    import torch

    whole = torch.empty(size, dtype=torch.uint8)
    driver: Any = torch.cuda.cudart()  # type: ignore[no-untyped-call]
    if int(driver.cudaHostRegister(whole.data_ptr(), whole.nbytes, PORTABLE)) != 0:
        return whole, False
    weakref.finalize(whole.untyped_storage(), driver.cudaHostUnregister, whole.data_ptr())
    return whole, True
