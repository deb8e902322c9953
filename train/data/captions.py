"""Captions and the prompts made from them: the trigger word, the part that a model reads, and texts that cannot be captions."""

import re
from collections import Counter
from collections.abc import Callable, Iterable

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
    return re.search(rf"(?<!\w){re.escape(trigger)}(?!\w)", caption, re.IGNORECASE) is not None


def trigger_counts(captions: Iterable[str], trigger: str, count: Count | None) -> tuple[int, int]:
    """(captions that contain the trigger where the model reads it, those that contain it only behind the token limit)."""
    word = " ".join(trigger.split())
    containing = [text for caption in captions if has_trigger(text := prompt_of(caption, None), word)]
    read = sum(has_trigger(read_part(text, count), word) for text in containing)
    return read, len(containing) - read


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


def read_part(text: str, count: Count | None) -> str:
    """The beginning of a text that a model reads: as many whole words as fit; all of it without a count."""
    if count is None:
        return text
    needs, fits = count(text)
    if needs <= fits:
        return text
    ends = [word.end() for word in re.finditer(r"\S+", text)]
    low, high = 0, len(ends)  # so many words fit; so many do not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(text[: ends[middle - 1]])[0] <= fits else (low, middle)
    return text[: ends[low - 1]] if low else ""


def syntax_notes(texts: Iterable[str]) -> list[str]:
    """Notes on what user interfaces take as commands and training reads as it is written; `texts` are the parts that are read."""
    every = list(texts)
    notes = []
    for what, pattern in SYNTAX.items():
        held = [found[0] for text in every if (found := pattern.search(text))]
        if held:
            notes.append(
                f"{len(held)} of {counted(len(every), 'caption')} {'holds' if len(held) == 1 else 'hold'} {what} ({shortened(held[0])!r}): "
                "it is trained as it is written, but a user"
                " interface takes it as a command, and reads other tokens when the same text is typed. Take it out of the captions"
            )
    return notes


def tag_frequency(prompts: Iterable[str]) -> dict[str, int]:
    """How many times each tag (what lies between commas, in lower case) is in the prompts, as sd-scripts counts them."""
    tags = (tag.strip().lower() for prompt in prompts for tag in prompt.split(","))
    return dict(Counter(tag for tag in tags if tag))


def shortened(text: str, most: int = SHORT) -> str:
    """The text, its beginning alone where it is long."""
    return text if len(text) <= most else f"{text[:most].rstrip()}..."
