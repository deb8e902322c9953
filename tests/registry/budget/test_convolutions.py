"""What a convolution on a CPU takes while it is computed, counted by hand."""

import torch
from torch.nn.functional import conv2d

from infer.draw.draw import most_decoded
from registry.budget.peak import trace

FLOAT = 4  # bytes
MEGA = 64 * 64 * 32 * FLOAT  # of an image of 32 channels


def peak(channels: int, made: int, kernel: int, *, on_cpu: bool = True) -> int:
    """Of one convolution whose input is there before."""
    image, weight = torch.empty(1, channels, 64, 64, device="meta"), torch.empty(made, channels, kernel, kernel, device="meta")
    return trace(lambda: conv2d(image, weight, padding=kernel // 2), [], on_cpu=on_cpu).peak


def test_onednn_copies_input_weights_and_result_into_blocks() -> None:
    assert peak(32, 32, 3, on_cpu=False) == MEGA
    assert peak(32, 32, 3) == MEGA + MEGA + 32 * 32 * 9 * FLOAT
    assert peak(32, 64, 3) == 2 * MEGA + 2 * MEGA, "the result is copied back once the input's copy is gone"


def test_channels_are_filled_up_to_whole_blocks_of_16() -> None:
    assert peak(24, 24, 3) == MEGA + MEGA + 24 * 32 * 9 * FLOAT


def test_the_plain_way_holds_all_windows() -> None:
    with torch.backends.mkldnn.flags(enabled=False):
        assert peak(32, 32, 3) == MEGA + 9 * MEGA
        assert peak(32, 32, 1) == MEGA


def test_a_call_of_the_vae_has_no_more_pixels_than_one_large_image() -> None:
    sizes = ((64, 64, 20), (512, 512, 2), (512, 512, 8), (1024, 1024, 4), (2048, 2048, 4))
    assert [most_decoded(width, height, images=images) for width, height, images in sizes] == [8, 2, 4, 1, 1]


def test_a_backward_pass_copies_the_gradient_into_blocks_and_the_result_out_of_them() -> None:
    shapes = ((2, 64, 64, 64), (2, 32, 64, 64), (64, 32, 3, 3))
    gradient, image, weight = (torch.empty(*shape, device="meta") for shape in shapes)

    def work(mask: tuple[bool, bool, bool]) -> None:
        torch.ops.aten.convolution_backward(gradient, image, weight, None, (1, 1), (1, 1), (1, 1), False, (0, 0), 1, mask)

    def of_image(*, on_cpu: bool) -> int:
        return trace(lambda: work((True, False, False)), [], on_cpu=on_cpu).peak

    made = 2 * MEGA
    assert of_image(on_cpu=False) == made
    assert of_image(on_cpu=True) == made + 2 * made + 64 * 32 * 9 * FLOAT, "the gradient has twice the image's channels"
    with torch.backends.mkldnn.flags(enabled=False):
        assert of_image(on_cpu=True) == made + 9 * MEGA, "windows of one image after the other"
