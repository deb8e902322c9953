"""Rules that make a short prompt more exact, without a model: the same text for the same prompt, everywhere.

`concrete` puts a thing in the place of a vague word: "an animal in a forest" is "a fox in a forest", "something to eat" is "a pizza".
`detailed` does that, and adds what the prompt does not say of medium, place, light and framing. The prompt's own words stay.
"""

import re
from collections.abc import Sequence
from hashlib import sha256

from infer.prompt.upsampling import words

VERSION = 1  # counts up when a prompt gets another text
MOST_WORDS = 25  # a longer prompt has its details
_SOMETHING = re.compile(
    rf"\b(?:something|anything)\s+({'|'.join(sorted(map(re.escape, words.SOMETHING), key=len, reverse=True))})(?![\w-])", re.IGNORECASE
)
_VAGUE = re.compile(
    rf"(?<![\w-])(?P<before>(?P<article>an?|some|the|any|one|two|three|four|five|many|several)\s+(?:(?:{'|'.join(words.ADJECTIVES)})\s+){{0,3}})?"
    rf"(?P<word>{'|'.join(words.VAGUE)})(?P<plural>s?)(?![\w-])(?P<next>\s+[a-z]+)?",
    re.IGNORECASE,
)
# words that may follow a noun without making it the first half of a longer name ("animal print", "fruit salad")
_FOLLOWING = (
    "in on at with under near beside behind before above below inside outside between among over across by from for to and or as is are"
    " that which who whose while during against around along through without wearing holding made"
)
_FOLLOWS = frozenset(_FOLLOWING.split())
_WORD = re.compile(r"[a-z0-9-]+")


def concrete(prompt: str) -> str:
    """The prompt with things in the place of its vague words; itself where none is vague."""
    chosen = _Chooser(prompt)
    named = _SOMETHING.sub(lambda found: _with_article(chosen(words.THINGS[words.SOMETHING[found[1].lower()]])), prompt)
    return _VAGUE.sub(lambda found: _named(found, chosen), named)


def detailed(prompt: str) -> str:
    """`concrete`, and behind it what the prompt does not say; a prompt above MOST_WORDS words is left as `concrete` gives it."""
    text, chosen = concrete(prompt), _Chooser(prompt)
    said = _WORD.findall(text.lower())
    if not said or len(said) > MOST_WORDS:
        return text
    added = [
        chosen(choices)
        for signs, choices in (
            (words.PLACE, words.PLACES),
            (words.FRAMING, words.FRAMINGS),
            (words.LIGHT, words.LIGHTS),
            (words.MEDIUM, words.MEDIA),
        )
        if not set(signs.split()) & set(said)
    ]
    return ", ".join([text.rstrip(" ,."), *added])


def _named(found: re.Match[str], chosen: "_Chooser") -> str:
    """A vague word as a thing, its article made to fit."""
    article, before, following = found["article"], found["before"] or "", (found["next"] or "").strip().lower()
    alone = found.start() == 0 and found.end() == len(found.string.rstrip(" ."))
    if (article is None and not alone) or (following and following not in _FOLLOWS and not following.endswith("ing")):
        return found[0]  # a tag behind a thing that is named, or the first half of a longer name
    thing = chosen(words.THINGS[words.VAGUE[found["word"].lower()]])
    if article is None and not found["plural"]:
        return _with_article(thing)
    name = _plural(thing) if found["plural"] else thing
    if article is not None and article.lower() in ("a", "an", "some") and not found["plural"]:
        adjectives = before[len(article) :].strip()
        return _with_article(f"{adjectives} {name}".strip()) + (found["next"] or "")
    return f"{before}{name}{found['next'] or ''}"


class _Chooser:
    """Choices that depend on the prompt alone, each on another part of its digest."""

    def __init__(self, prompt: str) -> None:
        self._digest = sha256(f"{VERSION} {' '.join(prompt.lower().split())}".encode()).digest()
        self._taken = 0

    def __call__(self, options: Sequence[str]) -> str:
        number = self._digest[self._taken % len(self._digest)]
        self._taken += 1
        return options[number % len(options)]


def _with_article(thing: str) -> str:
    return f"{'an' if thing[0].lower() in 'aeiou' else 'a'} {thing}"


def _plural(thing: str) -> str:
    """Of the nouns in `words`: the noun before "of", "with", "under" or "in", or the last word."""
    head, mark, rest = thing, "", ""
    for word in (" of ", " with ", " under ", " in ", " and "):
        if word in thing:
            head, mark, rest = thing.partition(word)
            break
    if head.endswith("y") and head[-2] not in "aeiou":
        return f"{head[:-1]}ies{mark}{rest}"
    return f"{head}{'es' if head.endswith(('s', 'ch', 'x', 'sh', 'tomato')) else 's'}{mark}{rest}"
