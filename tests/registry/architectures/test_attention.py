from typing import Any

import pytest
import torch

from registry.architectures.attention import without_cudnn

CUDA: Any = torch.backends.cuda


@pytest.mark.parametrize("before", [True, False])
def test_cudnn_is_left_out_inside_and_is_as_it_was_afterwards(before: bool) -> None:
    own = CUDA.cudnn_sdp_enabled()
    CUDA.enable_cudnn_sdp(before)
    try:
        with without_cudnn():
            inside = CUDA.cudnn_sdp_enabled()
        assert (inside, CUDA.cudnn_sdp_enabled()) == (False, before)
    finally:
        CUDA.enable_cudnn_sdp(own)
