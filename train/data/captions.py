"""Captions and the prompts made from them: the trigger word, and texts that cannot be captions."""

import re

JOIN = "{trigger}, {caption}"


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


def prompt_of(caption: str | None, trigger: str | None) -> str:
    """The prompt that is trained: line breaks become spaces; the trigger is prepended, unless the caption contains it.

    A set without captions is trained with the trigger alone.
    """
    text = " ".join((caption or "").split())
    if trigger is None:
        return text
    word = " ".join(trigger.split())
    if not text:
        return word
    return text if has_trigger(text, word) else JOIN.format(trigger=word, caption=text)
