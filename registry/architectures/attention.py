"""Which of torch's kernels compute attention on a GPU."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_cudnn() -> Iterator[None]:
    """Attention by flash or memory-efficient kernels, and not by cuDNN's.

    cuDNN's backward pass ended in an illegal memory access in a step of FLUX.1 at 1024 pixels (torch 2.11.0, CUDA 13.0, H200), in peft's
    own layers too; the flash kernel computes the same step.
    """
    import torch

    cuda = torch.backends.cuda
    before = cuda.cudnn_sdp_enabled()  # type: ignore[no-untyped-call]
    cuda.enable_cudnn_sdp(False)
    try:
        yield
    finally:
        cuda.enable_cudnn_sdp(before)
