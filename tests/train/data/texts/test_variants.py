from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from registry.formats.image_file import Size
from train.data.dataset import Sample
from train.data.texts.variants import chosen, is_drawn, is_dropped, plain_prompt, prompts_of, variant
from train.settings.data import DataConfig

SAMPLE = Sample("cat.png", "7" * 64, Size(8, 8), "sks, red hat, blue sky, tree", bytes)


def config(**settings: Any) -> DataConfig:
    return DataConfig(trigger="sks", **settings)


def test_nothing_is_drawn_by_default() -> None:
    several_tags = replace(SAMPLE, caption="a ||| {b|c}, d")
    assert prompts_of(several_tags, config(), 0) == ("sks, a ||| {b|c}, d",)
    assert not is_drawn(SAMPLE, config(keep_tokens=2, keep_separator="|||"))


def test_tags_in_sixteen_orders_with_the_trigger_in_its_place() -> None:
    found = prompts_of(SAMPLE, config(shuffle_tags=True), 0)
    assert len(found) == 16 and set(found) <= {
        "sks, red hat, blue sky, tree", "sks, red hat, tree, blue sky", "sks, blue sky, red hat, tree",
        "sks, blue sky, tree, red hat", "sks, tree, red hat, blue sky", "sks, tree, blue sky, red hat",
    }  # fmt: skip
    assert len(set(found)) > 3
    assert found == prompts_of(replace(SAMPLE, name="other"), config(shuffle_tags=True), 0)
    assert found != prompts_of(SAMPLE, config(shuffle_tags=True), 1) and found != prompts_of(
        replace(SAMPLE, sha256="8" * 64), config(shuffle_tags=True), 0
    )


def test_a_trigger_that_captions_lack_is_in_front_of_every_variant() -> None:
    found = prompts_of(replace(SAMPLE, caption="a, b, c"), config(shuffle_tags=True, tag_dropout=0.5), 0)
    assert all(prompt.split(", ")[0] == "sks" for prompt in found) and "sks" in found  # all three may be dropped


def test_dropped_tags_keep_the_share_of_each_text() -> None:
    found = Counter(prompts_of(replace(SAMPLE, caption="sks, a"), config(tag_dropout=0.25, variants=4000), 0))
    assert set(found) == {"sks", "sks, a"} and found["sks"] == pytest.approx(1000, abs=90)  # 3.3 deviations


def test_several_captions_are_used_equally_often() -> None:
    three = replace(SAMPLE, caption="a", others=("b", "c"))
    assert prompts_of(three, config(), 0) == ("sks, a", "sks, b", "sks, c")
    found = prompts_of(replace(three, others=("b", "c, d")), config(shuffle_tags=True), 0)
    assert len(found) == 15 and Counter(prompt[5] for prompt in found if prompt[5] in "ab") == {"a": 5, "b": 5}


def test_the_plain_prompt_is_the_first_caption_as_it_is_written() -> None:
    several = replace(SAMPLE, caption="{red|blue} hat ||| sky, tree", others=("other",))
    assert plain_prompt(several, config(wildcards=True, keep_separator="|||", shuffle_tags=True)) == "sks, red hat, sky, tree"
    assert plain_prompt(several, config()) == "sks, {red|blue} hat ||| sky, tree"


def test_alternatives_are_drawn_about_equally() -> None:
    found = Counter(prompts_of(replace(SAMPLE, caption="{a|b} sks"), config(wildcards=True, variants=1000), 0))
    assert set(found) == {"a sks", "b sks"} and found["a sks"] == pytest.approx(500, abs=50)


def test_without_a_cache_every_place_of_every_step_has_its_own_variant() -> None:
    long = replace(SAMPLE, caption=", ".join("abcdefghij"))
    found = [variant(long, config(shuffle_tags=True), 0, step, place) for step in range(10) for place in range(2)]
    assert len(set(found)) == 20 and found[0] == variant(long, config(shuffle_tags=True), 0, 0, 0)


def test_what_a_step_uses_is_drawn_from_its_number_and_place() -> None:
    assert chosen(("a",), 0, 3, 1) == 0
    counts = Counter(chosen("abcd", 0, step, place) for step in range(100) for place in range(10))
    assert set(counts) == {0, 1, 2, 3} and min(counts.values()) > 200
    assert [chosen("abcd", 0, step, 0) for step in range(8)] != [chosen("abcd", 1, step, 0) for step in range(8)]


def test_captions_are_dropped_with_their_probability() -> None:
    dropped = [is_dropped(0.1, 0, step, 0) for step in range(2000)]
    assert sum(dropped) == pytest.approx(200, abs=45) and not any(is_dropped(0.0, 0, step, 0) for step in range(50))


def test_regularisation_images_have_no_trigger_but_their_own() -> None:
    prior = replace(SAMPLE, caption="a cat", prior=True)
    assert plain_prompt(prior, config()) == "a cat"
    assert plain_prompt(replace(prior, trigger="dog"), config()) == "dog, a cat"
    assert plain_prompt(replace(SAMPLE, caption="a cat", trigger="bob"), config()) == "bob, a cat"
