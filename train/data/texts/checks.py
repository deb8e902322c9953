"""Faults and notes of settings that do not suit the captions of a set."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from registry.errors import Faults
from registry.printable import counted, some
from train.data.dataset import Sample, trigger_of
from train.data.texts.tags import movable, split_tags
from train.data.texts.wildcards import has_choice
from train.data.wording import MOST
from train.settings.data import DataConfig

USUAL = "|||"  # sd-scripts' documentation separates the tags that are kept with it
SENTENCE = re.compile(r"[.!?](?:\s|$)")  # the end of a sentence


def check_captioning(samples: Sequence[Sample], config: DataConfig) -> None:
    """Raise Faults with each setting of captions that cannot act on this set."""
    if faults := list(_faults(samples, config)):
        raise Faults("These settings do not suit the captions:", faults)


def _faults(samples: Sequence[Sample], config: DataConfig) -> Iterator[str]:
    captions = [(sample, caption) for sample in samples for caption in sample.captions]
    free = [movable(split_tags(caption, config), trigger_of(sample, config)) for sample, caption in captions]
    between = f"tags with {config.tag_separator!r} between them (data.tag_separator)"
    if config.shuffle_tags and max(free, default=0) < 2:
        yield f"data.shuffle_tags=true: no caption has two {between} that may change places."
    if config.tag_dropout and max(free, default=0) < 1:
        yield f"data.tag_dropout={config.tag_dropout:g}: no caption has {between} that may be left out."
    tags = config.shuffle_tags or config.tag_dropout > 0
    if tags and config.keep_separator is None and (held := [sample.name for sample, caption in captions if USUAL in caption]):
        yield (
            f"{some(dict.fromkeys(held), MOST)}: the captions hold {USUAL}, which would be shuffled and trained as text."
            f" Set data.keep_separator='{USUAL}', or take it out."
        )
    separator = config.keep_separator
    if separator and (many := [sample.name for sample, caption in captions if caption.count(separator) > 2]):
        yield f"{some(dict.fromkeys(many), MOST)}: hold data.keep_separator more than twice; it ends the first tags and begins the last."
    most = max((len(sample.captions) for sample in samples), default=0)
    if most > config.variants:
        yield f"data.variants={config.variants}: an image has {most} captions, and each needs a variant of its own. Give at least {most}."


def captioning_notes(samples: Sequence[Sample], config: DataConfig) -> Iterator[str]:
    """Notes on settings of captions that act on nothing, or on more than is meant."""
    captions = [caption for sample in samples for caption in sample.captions]
    tags = config.shuffle_tags or config.tag_dropout > 0
    if config.keep_tokens and not tags:
        yield f"data.keep_tokens={config.keep_tokens} acts on nothing: tags are neither shuffled nor dropped"
    if config.keep_separator and not any(config.keep_separator in caption for caption in captions):
        yield f"data.keep_separator={config.keep_separator!r} is in no caption"
    if not tags and config.keep_separator is None and (held := sum(USUAL in caption for caption in captions)):
        yield (
            f"{held} of {counted(len(captions), 'caption')} {'holds' if held == 1 else 'hold'} {USUAL}, which is trained as text; "
            f"data.keep_separator='{USUAL}' takes it out"
        )
    if config.wildcards and not any(map(has_choice, captions)):
        yield "data.wildcards=true acts on nothing: no caption has a choice such as {a|b}"
    if config.captions == "lines" and not any(len(sample.captions) > 1 for sample in samples):
        yield "data.captions=lines acts on nothing: no image has a text file of several lines"
    prose = sum(len(SENTENCE.findall(caption)) > 1 and caption.count(config.tag_separator) > 0 for caption in captions)
    if tags and prose:
        yield (
            f"{counted(prose, 'caption')} of {len(captions)} read as sentences: data.shuffle_tags and data.tag_dropout cut them at every"
            f" {config.tag_separator!r}"
        )
