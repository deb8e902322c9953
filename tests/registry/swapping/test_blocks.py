"""Which blocks are swapped, and what that is worth."""

import pytest

from registry.errors import Refused
from registry.swapping.blocks import BlockSize, block_sizes, blocks_of, spread, swap_of
from tests.tiny import tiny_parts


@pytest.mark.parametrize(
    ("count", "total", "places"), [(0, 4, []), (1, 4, [2]), (2, 4, [1, 3]), (4, 4, [0, 1, 2, 3]), (2, 5, [1, 3]), (3, 7, [1, 3, 5])]
)
def test_swapped_blocks_are_spread_evenly(count: int, total: int, places: list[int]) -> None:
    assert spread(count, total) == places


def test_two_slots_of_the_largest_swapped_block_stay_on_the_device() -> None:
    sizes = {name: BlockSize(size, size) for name, size in (("a", 100), ("b", 300), ("c", 200), ("d", 400))}
    two = swap_of(sizes, 2, title="X")
    assert two.swapped == ("b", "d") and (two.host_bytes, two.slots, two.slot_bytes, two.saved_bytes) == (700, 2, 400, -100)
    one, none = swap_of(sizes, 1, title="X"), swap_of(sizes, 0, title="X")
    assert (one.swapped, one.slots, one.saved_bytes) == (("c",), 1, 0)
    assert (none.swapped, none.slots, none.slot_bytes, none.saved_bytes) == ((), 0, 0, 0)


def test_more_blocks_than_there_are_is_refused_with_their_number_and_size() -> None:
    sizes = {"double.0": BlockSize(4_000_000, 1), "double.1": BlockSize(4_000_000, 1), "single.0": BlockSize(1_500_000, 1)}
    with pytest.raises(Refused) as found:
        swap_of(sizes, 4, title="FLUX.1")
    assert str(found.value) == (
        "swap_blocks=4, but FLUX.1 has 3 blocks that can be swapped (2 double.* of 4 MB each, 1 single.* of 1.5 MB each). Give at most 3."
    )
    with pytest.raises(Refused, match="has no blocks that can be swapped"):
        swap_of({}, 1, title="X")


def test_a_unets_blocks_are_its_resnets_and_the_transformer_blocks_inside_attention() -> None:
    family, parts = tiny_parts("sdxl")
    names = list(blocks_of(family, parts.denoiser))
    assert {name.split(".")[-2] for name in names} == {"resnets", "transformer_blocks"}
    assert "mid_block.resnets.1" in names and "mid_block.resnets.0" not in names, "diffusers checkpoints all but the first of the middle"
    count = sum(name.endswith("transformer_blocks.0") for name in names)
    assert count == sum(type(module).__name__ == "Transformer2DModel" for module in parts.denoiser.modules()) > 0


def test_a_blocks_size_is_that_of_its_weights_and_buffers() -> None:
    family, parts = tiny_parts("flux1")
    sizes = block_sizes(family, parts.denoiser, lambda tensor: tensor.numel() * 2)
    assert list(sizes) == ["transformer_blocks.0", "transformer_blocks.1", "single_transformer_blocks.0", "single_transformer_blocks.1"]
    block = parts.denoiser.transformer_blocks[1]
    assert sizes["transformer_blocks.1"].weights == 2 * sum(weight.numel() for weight in block.parameters())
    assert 0 <= sizes["transformer_blocks.1"].slot - sizes["transformer_blocks.1"].weights < 576 * len(list(block.parameters()))
