"""Captions and the prompts made from them: the trigger word, the part that a model reads, and texts that cannot be captions."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache

from registry.printable import counted

JOIN = "{trigger}, {caption}"
Count = Callable[[str], tuple[int, int]]  # (tokens that a text needs, tokens that fit)
SYNTAX = {  # of the prompts of A1111, ComfyUI and their relatives; in a caption each is text like any other
    "BREAK": re.compile(r"\bBREAK\b"),
    "weights such as (word:1.2)": re.compile(r"\([^()]*:\s*-?\d*\.?\d+\s*\)"),
    "escaped brackets such as \\(": re.compile(r"\\[()\[\]{}]"),
    "alternatives such as {a|b}": re.compile(r"\{[^{}]*\|[^{}]*\}|\[[^\[\]]*\|[^\[\]]*\]"),
    "generation settings such as Steps: 20, Sampler: Euler": re.compile(r"\bSteps: *\d+, *Sampler:|\bNegative prompt:", re.IGNORECASE),
    "options such as --ar 16:9": re.compile(r"(?<!\S)--(?:ar|aspect|chaos|niji|seed|stylize|style|weird) +\S+|(?<!\S)--v +\d"),
    "adapters such as <lora:name:1>": re.compile(r"<(?:lora|lyco|hypernet):[^<>]*>", re.IGNORECASE),
}
NEEDED = re.compile(r"BREAK|--|[(\\{\[:<]")  # every text that has a sign of SYNTAX has one of these, and most captions have none
SHORT = 80  # characters of a text in a message


def check_caption(caption: str) -> str | None:
    """Why the text cannot be a caption, or None."""
    if not caption.strip():
        return "its caption is empty"
    if "\x00" in caption or "�" in caption:
        return "its caption holds unreadable characters; save it as UTF-8"
    return None


def has_trigger(caption: str, trigger: str) -> bool:
    """Whether the caption contains the trigger as a separate word, ignoring case."""
    return _as_word(trigger).search(caption) is not None


@lru_cache(maxsize=64)
def _as_word(trigger: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(trigger)}(?!\w)", re.IGNORECASE)


def trigger_counts(captions: Iterable[str], trigger: str, count: Count | None) -> tuple[int, int]:
    """(captions that contain the trigger where the model reads it, those that contain it only behind the token limit)."""
    word = " ".join(trigger.split())
    containing = (text for caption in captions if has_trigger(text := prompt_of(caption, None), word))
    times = Counter(has_trigger(read_part(text, count), word) for text in containing)
    return times[True], times[False]


def prompt_of(caption: str | None, trigger: str | None, *, count: Count | None = None) -> str:
    """The prompt that is trained: line breaks become spaces; the trigger is prepended, unless the caption contains it.

    With `count` it must be in the part that the model reads. A set without captions is trained with the trigger alone.
    """
    text = " ".join((caption or "").split())
    if trigger is None:
        return text
    word = " ".join(trigger.split())
    if not text:
        return word
    return text if has_trigger(read_part(text, count), word) else JOIN.format(trigger=word, caption=text)


class Remembered:
    """A count of tokens that remembers the texts it counted and the parts of them that are read: several notes ask for each prompt."""

    def __init__(self, count: Count) -> None:
        self._count = count
        self._needs: dict[str, tuple[int, int]] = {}
        self._parts: dict[str, str] = {}

    def __call__(self, text: str) -> tuple[int, int]:
        if text not in self._needs:
            self._needs[text] = self._count(text)
        return self._needs[text]

    def read(self, text: str) -> str:
        """The part that is read of a text that does not fit."""
        if text not in self._parts:
            self._parts[text] = _cut(text, *self(text), self._count)  # the beginnings that it counts are not remembered
        return self._parts[text]


def read_part(text: str, count: Count | None) -> str:
    """The beginning of a text that a model reads: as many whole words as fit; all of it without a count."""
    if count is None:
        return text
    needs, fits = count(text)
    if needs <= fits:
        return text
    return count.read(text) if isinstance(count, Remembered) else _cut(text, needs, fits, count)


def _cut(text: str, needs: int, fits: int, count: Count) -> str:
    """As many whole words as fit."""
    ends = [word.end() for word in re.finditer(r"\S+", text)]
    low, high = 0, len(ends)  # so many words fit; so many do not
    middle, step = high * fits // needs, 1  # words have about equally many tokens, so that the search begins where they would end
    while high - low > 1:
        middle = min(max(middle, low + 1), high - 1)
        if count(text[: ends[middle - 1]])[0] <= fits:
            low, middle = middle, middle + step
        else:
            high, middle = middle, middle - step
        step *= 2
        if not low < middle < high:
            middle = (low + high) // 2
    return text[: ends[low - 1]] if low else ""


Syntax = dict[str, list[tuple[str, str]]]  # what user interfaces take as a command -> (name, the words) of each text that has it


def syntax_of(texts: Mapping[str, str]) -> Syntax:
    """What of SYNTAX the texts hold, by their names."""
    some = {name: text for name, text in texts.items() if NEEDED.search(text)}
    found = {what: [(name, held[0]) for name, text in some.items() if (held := sign.search(text))] for what, sign in SYNTAX.items()}
    return {what: held for what, held in found.items() if held}


def syntax_notes(texts: Sequence[str]) -> list[str]:
    """Notes on what user interfaces take as commands and training reads as it is written; `texts` are the parts that are read."""
    return notes_of_syntax(syntax_of({str(number): text for number, text in enumerate(texts)}), len(texts))


def notes_of_syntax(found: Syntax, captions: int) -> list[str]:
    """syntax_notes of what was found in so many captions."""
    return [
        f"{len(held)} of {counted(captions, 'caption')} {'holds' if len(held) == 1 else 'hold'} {what} ({shortened(held[0][1])!r}): "
        "it is trained as it is written, but a user"
        " interface takes it as a command, and reads other tokens when the same text is typed. Take it out of the captions"
        for what, held in found.items()
    ]


def tag_frequency(prompts: Iterable[str]) -> dict[str, int]:
    """How many times each tag (what lies between commas, in lower case) is in the prompts, as sd-scripts counts them."""
    tags = (tag.strip().lower() for prompt in prompts for tag in prompt.split(","))
    return dict(Counter(tag for tag in tags if tag))


def shortened(text: str, most: int = SHORT) -> str:
    """The text, its beginning alone where it is long."""
    return text if len(text) <= most else f"{text[:most].rstrip()}..."
