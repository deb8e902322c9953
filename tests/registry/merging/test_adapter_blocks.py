"""Block weights in the forms that people write, held against the blocks of real families."""

from __future__ import annotations

from typing import Any

import pytest

from registry.errors import Refused
from registry.merging.adapter_blocks import Factors, as_numbers, blocks_of, factors, on_blocks, read_block_weights
from registry.tensors.layout import read_layout
from tests.tiny import shared_folder

NAMES = [*(f"IN{number:02d}" for number in range(12)), "M00", *(f"OUT{number:02d}" for number in range(12))]  # of SD 1
ATTENDED = ["IN01", "IN02", "IN04", "IN05", "IN07", "IN08", "M00", *(f"OUT{number:02d}" for number in range(3, 12))]


def weighed(given: Any) -> dict[str, float]:
    return factors(on_blocks(str(read_block_weights(given)), NAMES, ATTENDED))


def test_seventeen_numbers_are_base_and_the_blocks_with_attention() -> None:
    numbers = [0.5, 0, 0, 1, 1, 1, 1, 1, 0.25, 1, 1, 1, 1, 1, 1, 1, 0]
    found = weighed(numbers)
    assert weighed(",".join(map(str, numbers))) == found
    assert {name: weight for name, weight in found.items() if name in {"BASE", *ATTENDED}} == {
        "BASE": 0.5,
        "IN01": 0.0,
        "IN02": 0.0,
        "OUT03": 0.25,
        "OUT11": 0.0,
    }
    assert found["IN00"] == found["OUT00"] == 0.0  # that extension has 0 for blocks that it does not name


def test_all_blocks_with_and_without_base() -> None:
    assert weighed([1, 0] + [1] * 24) == {"IN00": 0.0}
    assert weighed([0] + [1] * 24) == {"IN00": 0.0}
    assert as_numbers("IN00=0", NAMES) == "1,0," + ",".join(["1"] * 24)


def test_names_patterns_and_presets() -> None:
    assert weighed({"OUT*": 0.5, "OUT03": 1, "BASE": 0}) == {"BASE": 0.0} | {
        name: 0.5 for name in NAMES if "OUT" in name and name != "OUT03"
    }
    assert weighed("M00=0.5") == {"M00": 0.5}
    assert weighed("flat_50") == dict.fromkeys(NAMES, 0.5)
    assert on_blocks("IN*=1", NAMES, ATTENDED) is None  # nothing but the adapter's own weight


def test_what_is_by_name_stays_as_it_is() -> None:
    once = on_blocks("OUT*=0.5,BASE=0", NAMES, ATTENDED)
    assert once is not None and on_blocks(once, NAMES, ATTENDED) == once


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([1, 0, 1], "this base takes 25 (all blocks), 26 (BASE and all blocks), 17 (BASE and the blocks with attention)"),
        ({"IN44": 0}, "'IN44' is none of this base, which has BASE and IN00 to OUT11"),
        ("OUTD", "give their numbers"),
        ("1,0,x", "'x' is no block weight"),
        ({"IN00": True}, "True is no block weight"),
        ([1, float("nan")], "no block weight"),
        ({"a,b": 1}, "no name of a block"),
        (7, "no block weights"),
        ("", "no block weights"),
        ({}, "no block weights"),
        ([], "no block weights"),
    ],
)
def test_what_is_refused(given: Any, said: str) -> None:
    with pytest.raises(Refused) as refused:
        weighed(given)
    assert said in str(refused.value)


@pytest.mark.parametrize("text", ["IN00=abc", "=1", "IN00", "1,x", "IN00=1,,", "IN00=1e999", ",", "IN00=1=2"])
def test_a_text_that_anyone_may_have_written_is_refused(text: str) -> None:
    with pytest.raises(Refused):
        on_blocks(text, NAMES, ATTENDED)


@pytest.mark.parametrize(
    ("family", "module", "block"),
    [
        ("sd1", "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q", "IN01"),
        ("sdxl", "mid_block.attentions.0.transformer_blocks.0.attn1.to_q", "M00"),
        ("flux1", "single_transformer_blocks.1.attn.to_q", "single_transformer_blocks.1"),
        ("z_image", "layers.1.attention.to_q", "layers.1"),
    ],
)
def test_the_block_of_a_module(family: str, module: str, block: str) -> None:
    blocks = blocks_of(read_layout(str(shared_folder(family))))
    assert blocks.of_module[module] == block and block in blocks.attended
    weighted = Factors(on_blocks(f"{block}=0.25,BASE=0.5", blocks.names, blocks.attended), blocks)
    assert weighted.of_denoiser(module) == 0.25 and weighted.of_text == 0.5 and weighted.of_denoiser("elsewhere") == 1.0
