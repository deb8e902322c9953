"""Tokens that would not work are refused by name, and what a token begins with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from registry.errors import Faults, Refused
from registry.families import FAMILIES
from tests.tiny import tiny_parts
from train.config import TrainConfig
from train.settings.tokens import TokensConfig
from train.tokens.new_token import find_tokens, token_keys, with_new_tokens


def config(*tokens: Mapping[str, Any]) -> TrainConfig:
    return TrainConfig(tokens=TokensConfig(add=list(tokens)))


@pytest.mark.parametrize(
    ("token", "fault"),
    [
        ({"token": "InkStyle"}, "tokens.add\\[0\\].token must be 2 to 64 of a-z"),  # CLIP reads lower case
        ({"token": "ink style"}, "tokens.add\\[0\\].token must be 2 to 64 of a-z"),
        ({"token": "(ink:1)"}, "tokens.add\\[0\\].token must be"),
        ({"token": "<ink"}, "tokens.add\\[0\\].token must be"),
        ({"token": "inks", "vectors": 0}, "tokens.add\\[0\\].vectors must be 1 to 32"),
        ({"token": "inks", "vector": 1}, "tokens.add\\[0\\].vector is no key of a token"),
        ({"token": "inks", "init": " "}, "tokens.add\\[0\\].init must not be empty"),
        ({"token": "inks", "vectors": "many"}, "tokens.add\\[0\\].vectors"),
        ({"vectors": 1}, "tokens.add\\[0\\].token must be"),
    ],
)
def test_a_spelling_out_of_range(token: dict[str, Any], fault: str) -> None:
    with pytest.raises(Faults, match=fault):
        config(token)


def test_tokens_inside_each_other_and_files_of_one_name() -> None:
    with pytest.raises(Faults, match="would be found inside 'inkstyle'"):
        config({"token": "inkstyl"}, {"token": "inkstyle"})
    with pytest.raises(Faults, match="files of different names"):
        config({"token": "<ab>"}, {"token": "a*b"})


def test_settings_that_have_no_meaning_together() -> None:
    from train.config import LoraConfig, OptimConfig

    with pytest.raises(Faults, match=r"needs tokens\.add: nothing else would be trained"):
        TrainConfig(lora=LoraConfig(kind="none"))
    with pytest.raises(Faults, match=r"optim\.token_lr needs tokens\.add"):
        TrainConfig(optim=OptimConfig(token_lr=1e-3))
    tokens = TokensConfig(add=[{"token": "inks"}], share=0.5)
    with pytest.raises(Faults, match=r"tokens\.share must be 1 with lora\.kind=none"):
        TrainConfig(lora=LoraConfig(kind="none"), tokens=tokens)


def test_a_token_of_the_vocabulary_and_first_texts_that_do_not_fit() -> None:
    family, parts = tiny_parts("sd1")
    for token, fault in (
        ({"token": "ab", "init": "a red disc", "vectors": 2}, "init='a red disc' is 8 tokens, and vectors is 2. Give vectors=8"),
        ({"token": "<ab>", "vectors": 32}, "takes 34 tokens of a prompt with its marks, and 24 fit"),
    ):
        with pytest.raises(Faults, match=fault):
            find_tokens(config(token), family, parts)
    tokenizer = parts.tokenizers["tokenizer"]
    tokenizer.add_tokens(["inkstyl"])
    with pytest.raises(Faults, match="'inkstyl' is in the base's vocabulary already"):
        find_tokens(config({"token": "inkstyl"}), family, parts)


def test_what_a_token_is_made_of() -> None:
    family, parts = tiny_parts("sdxl")
    (token,) = find_tokens(config({"token": "<ab>", "init": "red"}), family, parts)
    assert token.vectors == 3 and token.parameters == 3 * (32 + 48)  # the tiny tokenizers read letter by letter
    assert token.keys == {"text_encoder": "clip_l", "text_encoder_2": "clip_g"} and token.file_name == "ab"
    longer = with_new_tokens(parts, [token]).tokenizers["tokenizer"]
    count = len(parts.tokenizers["tokenizer"])
    assert longer("a <ab>").input_ids[2:-1] == [count, count + 1, count + 2]
    (random,) = find_tokens(config({"token": "<ab>"}), family, parts)
    assert random.vectors == 1 and random.ids == {"text_encoder": (), "text_encoder_2": ()}


def test_the_families_that_take_tokens() -> None:
    assert {name for name, family in FAMILIES.items() if token_keys(family)} == {"sd1", "sd2", "sdxl"}
    for name, reason in (("flux1", "its other text encoder is a language model"), ("z_image", "it reads prompts with a language model")):
        with pytest.raises(Refused, match=f"takes no new tokens: {reason}"):
            find_tokens(config({"token": "<ab>"}), *tiny_parts(name))
