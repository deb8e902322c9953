"""Where the new tokens stand in the captions: a token that no image has learns nothing, one inside another word is read in parts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from registry.errors import Faults
from registry.printable import some
from train.data.captions import has_trigger
from train.data.dataset import Sample, trigger_of
from train.data.texts.variants import plain_prompt
from train.settings.data import DataConfig
from train.tokens.new_token import NewToken

LISTED = 3  # images that a message names


def check_token_captions(tokens: Sequence[NewToken], trained: Sequence[Sample], heldout: Sequence[Sample], data: DataConfig) -> None:
    """Raise Faults for tokens that stand in no caption, or in another spelling than their own."""
    faults = []
    for token in tokens:
        if not any(_has(sample, token.token, data) for sample in trained):
            faults.append(
                f"{token.token!r} stands in no caption. Write it into the captions, or give"
                f" data.trigger={token.token}, which adds it to each."
            )
        if wrong := [sample.name for sample in (*trained, *heldout) if any(_misspelt(sample, token.token, data))]:
            faults.append(
                f"{token.token!r} stands inside another word or in another case in the captions of {some(wrong, LISTED)}, where it is not"
                " read as the token. Write it apart and in lower case."
            )
    if faults:
        raise Faults("tokens.add does not suit the captions:", faults)


def token_counts(tokens: Sequence[NewToken], trained: Sequence[Sample], data: DataConfig) -> dict[str, int]:
    """Token -> how many images have it in their prompt."""
    return {token.token: sum(_has(sample, token.token, data) for sample in trained) for token in tokens}


def _texts(sample: Sample, data: DataConfig) -> list[str]:
    return [plain_prompt(sample, data), *sample.captions]


def _has(sample: Sample, token: str, data: DataConfig) -> bool:
    return any(has_trigger(text, token) for text in _texts(sample, data))


def _misspelt(sample: Sample, token: str, data: DataConfig) -> Iterator[str]:
    """Occurrences that are not the token as a word of its own in its own letters."""
    if trigger := trigger_of(sample, data):
        yield from _wrong(trigger, token)
    for text in sample.captions:
        yield from _wrong(text, token)


def _wrong(text: str, token: str) -> Iterator[str]:
    for found in re.finditer(re.escape(token), text, re.IGNORECASE):
        before, after = text[: found.start()][-1:], text[found.end() :][:1]
        if found[0] != token or re.match(r"\w", before) or re.match(r"\w", after):
            yield found[0]
