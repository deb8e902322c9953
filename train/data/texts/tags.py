"""A caption as tags: those that keep their places, and those that are shuffled and dropped. Separators do not get into the prompt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from train.data.captions import has_trigger
from train.settings.data import DataConfig

Random = Callable[[], float]  # in [0, 1)


@dataclass(frozen=True)
class Tags:
    """A caption's tags: `head` and `tail` keep their places."""

    head: tuple[str, ...]
    body: tuple[str, ...]
    tail: tuple[str, ...] = ()

    @property
    def every(self) -> tuple[str, ...]:
        return (*self.head, *self.body, *self.tail)


def reads_tags(config: DataConfig) -> bool:
    """Whether captions are cut into tags at all."""
    return config.shuffle_tags or config.tag_dropout > 0 or config.keep_separator is not None


def split_tags(caption: str, config: DataConfig) -> Tags:
    """The caption's tags. data.keep_separator ends those in front, a second one begins those at the end, as in sd-scripts;
    without one in the caption data.keep_tokens counts those in front.
    """

    def cut(part: str) -> tuple[str, ...]:
        tags = (" ".join(tag.split()) for tag in part.split(config.tag_separator))
        return tuple(tag for tag in tags if tag)

    if config.keep_separator and config.keep_separator in caption:
        head, _, rest = caption.partition(config.keep_separator)
        body, _, tail = rest.partition(config.keep_separator)
        return Tags(cut(head), cut(body), cut(tail))
    tags = cut(caption)
    return Tags(tags[: config.keep_tokens], tags[config.keep_tokens :])


def joined(tags: tuple[str, ...], config: DataConfig) -> str:
    """The prompt of the tags."""
    return f"{config.tag_separator.strip()} ".join(tags)


def movable(tags: Tags, trigger: str | None) -> int:
    """How many tags may change their places or be dropped: those of the body without the trigger."""
    return sum(not _is_fixed(tag, trigger) for tag in tags.body)


def varied(tags: Tags, trigger: str | None, config: DataConfig, random: Random) -> tuple[str, ...]:
    """The tags of one variant: the body shuffled, and some of it dropped. A tag with the trigger stays where it is."""
    free = [tag for tag in tags.body if not _is_fixed(tag, trigger)]
    kept = [random() >= config.tag_dropout for _ in free] if config.tag_dropout else [True] * len(free)
    left = [tag for tag, keep in zip(free, kept, strict=True) if keep]
    if config.shuffle_tags:
        keys = [random() for _ in left]
        left = [left[place] for place in sorted(range(len(left)), key=lambda place: (keys[place], place))]
    body, next_tag, places = [], iter(left), iter(kept)
    for tag in tags.body:
        if _is_fixed(tag, trigger):
            body.append(tag)
        elif next(places):
            body.append(next(next_tag))
    return (*tags.head, *body, *tags.tail)


def _is_fixed(tag: str, trigger: str | None) -> bool:
    return trigger is not None and has_trigger(tag, " ".join(trigger.split()))
