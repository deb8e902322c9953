"""The tokens of a text for CLIP's tokenizer, counted word by word: each word is read once, however many captions have it.

CLIP's tokenizer reads words apart: its expression matches no white space, and nothing of its normalisation reaches over a space (NFC
composes nothing with one, and lower case is letter by letter). So a text has as many tokens as its words have together, and two marks.
"""

from __future__ import annotations

import json
from typing import Any
from weakref import WeakKeyDictionary

MOST = 1 << 16  # words that are kept of a tokenizer, about 100 bytes each
_PIECES = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
SPLITS = (_PIECES, r"<\|startoftext\|>|<\|endoftext\|>|" + _PIECES)  # of OpenAI's tokenizer.json, and of transformers
NORMALS = ({"type": "NFC"}, {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "}, {"type": "Lowercase"})


class WordCounts:
    """Of one tokenizer, as long as it has as many tokens as now."""

    def __init__(self, tokenizer: Any) -> None:
        self.size = len(tokenizer)
        self._marks = _read(tokenizer, "")
        self._apart = reads_words_apart(tokenizer)
        self._known: dict[str, int] = {"": 0}  # between two spaces

    def count(self, tokenizer: Any, text: str) -> int:
        """The tokens of a text, the marks too."""
        if not self._apart:
            return _read(tokenizer, text)
        known = self._known
        words = text.split(" ")
        try:
            return self._marks + sum(map(known.__getitem__, words))
        except KeyError:
            if len(known) > MOST:
                known.clear()
            new = {word for word in words if word not in known}  # a set less known.keys() would go through all that is known
            known.update((word, _read(tokenizer, word) - self._marks) for word in new)
        return self._marks + sum(map(known.__getitem__, words))


_COUNTS: WeakKeyDictionary[Any, WordCounts] = WeakKeyDictionary()


def tokens_of(tokenizer: Any, text: str) -> int:
    """The tokens of a text with its marks, as many as the tokenizer gives for it whole."""
    counts = _COUNTS.get(tokenizer)
    if counts is None or counts.size != len(tokenizer):  # tokens were added
        counts = _COUNTS[tokenizer] = WordCounts(tokenizer)
    return counts.count(tokenizer, text)


def reads_words_apart(tokenizer: Any) -> bool:
    """Whether it is CLIP's, and no token that was added has white space."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or not type(tokenizer).__module__.startswith("transformers.") or backend.pre_tokenizer is None:
        return False
    split = json.loads(backend.pre_tokenizer.__getstate__()).get("pretokenizers", [{}])
    normal = json.loads(backend.normalizer.__getstate__()).get("normalizers") if backend.normalizer else None
    added = (token.content for token in tokenizer.added_tokens_decoder.values())
    return (
        len(split) == 2
        and split[0].get("pattern", {}).get("Regex") in SPLITS
        and split[0].get("invert") is True
        and split[1] == {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
        and normal == list(NORMALS)
        and not any(map(str.isspace, "".join(added)))
    )


def _read(tokenizer: Any, text: str) -> int:
    return len(tokenizer(text, truncation=False, verbose=False).input_ids)
