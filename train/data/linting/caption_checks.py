"""Findings about the captions of a set: copied ones, two manners of captioning, another tool's syntax, and their tokens in numbers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from registry.printable import counted
from train.data.captions import Count, Syntax, shortened
from train.data.linting.finding import Finding, median, share
from train.data.linting.words import segments, words

LONG = 8  # words of a caption, from which on two images do not have the same by chance
TAGS, TAG_WORDS = 4, 3.0  # parts between commas, and words in each of them on average: more of the first, fewer of the second are tags
SENTENCE, SENTENCE_WORDS = 8, 6.0  # words of a sentence, and words between its commas on average
BOTH = 0.1  # of the captions: a smaller share is not another manner, but an exception


@dataclass(frozen=True)
class TokenCounts:
    """Tokens of a set's captions for a base; `fits` are those that it reads."""

    by_image: Mapping[str, int]
    fits: int

    def to_json(self) -> dict[str, Any]:
        """Plain values, stable keys."""
        numbers = sorted(self.by_image.values())
        return {
            "fits": self.fits,
            "smallest": numbers[0],
            "median": median(numbers),
            "largest": numbers[-1],
            "longest": max(self.by_image, key=lambda name: self.by_image[name]),
            "over": sum(number > self.fits for number in numbers),
        }

    def to_text(self) -> str:
        """One line."""
        facts = self.to_json()
        span = f"captions have {facts['smallest']} to {counted(facts['largest'], 'token')}, {facts['median']:g} in the median"
        return f"{span} (longest: {facts['longest']}); the base reads {self.fits}"


def count_tokens(prompts: Mapping[str, str], count: Count | None) -> TokenCounts | None:
    """The tokens of every caption, or None without a base."""
    if count is None or not prompts:
        return None
    needs = {name: count(prompt) for name, prompt in prompts.items()}
    return TokenCounts({name: need for name, (need, _) in needs.items()}, next(iter(needs.values()))[1])


def caption_findings(prompts: Mapping[str, str], tokens: TokenCounts | None, syntax: Syntax) -> list[Finding]:
    """The findings; `prompts` are the captions by the names of their images, `syntax` what is in the parts of them that are read."""
    return [*cut_captions(tokens), *copied_captions(prompts), *mixed_manners(prompts), *syntax_findings(syntax)]


def cut_captions(tokens: TokenCounts | None) -> list[Finding]:
    """Captions that the base does not read whole; a note names their number already."""
    if tokens is None:
        return []
    cut = tuple(name for name, number in tokens.by_image.items() if number > tokens.fits)
    what = f"more than {counted(tokens.fits, 'token')}, the rest is not read"
    return [Finding("too-long", what, cut, "Shorten them", is_noted=True)] if cut else []


def copied_captions(prompts: Mapping[str, str]) -> list[Finding]:
    """Long captions that several images have word by word."""
    firsts: dict[bytes, str] = {}  # the hash of the words, which takes less memory than these
    several: dict[str, list[str]] = {}
    for name, prompt in prompts.items():
        there = words(prompt)
        first = firsts.setdefault(sha256(" ".join(there).encode("utf-8", "surrogatepass")).digest(), name)
        if first is not name and len(there) >= LONG:
            several.setdefault(first, [first]).append(name)
    if len(firsts) == 1 or not several:  # one caption for all is a choice
        return []
    copied = {name for names in several.values() for name in names}
    example = max((several[name] for name in prompts if name in several), key=len)
    return [
        Finding(
            "same-caption",
            f"{share(copied, len(prompts))} images have a long caption that another image has too"
            f" ({len(example)} times: {shortened(prompts[example[0]])!r})",
            tuple(name for name in prompts if name in copied),
            "Caption what differs between them, unless they do show the same",
        )
    ]


def mixed_manners(prompts: Mapping[str, str]) -> list[Finding]:
    """Sets whose captions are lists of tags for some images and sentences for others."""
    kinds: dict[str, list[str]] = defaultdict(list)
    for name, prompt in prompts.items():
        kinds[manner(prompt)].append(name)
    fewer, more = sorted((kinds["tags"], kinds["sentence"]), key=len)
    if len(fewer) < max(2, BOTH * len(prompts)):
        return []
    title = "tags" if fewer is kinds["tags"] else "sentences"
    other = "sentences" if title == "tags" else "tags"
    return [
        Finding(
            "mixed-captions",
            f"{share(fewer, len(prompts))} captions are {title}, {share(more, len(prompts))} are {other}",
            tuple(fewer),
            "Caption all images in one way, the way that the prompts will have; or keep both on purpose",
        )
    ]


def manner(prompt: str) -> str:
    """`tags`, `sentence`, or `short` where it cannot be said."""
    parts = segments(prompt)
    total = len(words(prompt))
    if len(parts) >= TAGS and total / len(parts) <= TAG_WORDS:
        return "tags"
    return "sentence" if total >= SENTENCE and total / max(1, len(parts)) >= SENTENCE_WORDS else "short"


def syntax_findings(syntax: Syntax) -> list[Finding]:
    """Captions with what user interfaces take as commands; a note has the words already."""
    return [
        Finding("syntax", f"captions hold {what}", tuple(name for name, _ in held), "Take it out of the captions", is_noted=True)
        for what, held in syntax.items()
    ]
