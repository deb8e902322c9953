"""Whether the text that a prompt asks for is in the image."""

from __future__ import annotations

import re
import unicodedata
from typing import Annotated, Any

from infer.score.models.reader import text_reader
from infer.score.scorer import SCORES, Found, Scene, Scorer, Subject, Value
from registry.options import Meaning

QUOTED = re.compile(r"\"([^\"]+)\"|“([^”]+)”|„([^“”]+)[“”]|«([^»]+)»|(?<!\w)'([^']+)'(?!\w)")
LONGEST = 2000  # letters that are compared

TextModel = Annotated[str | None, Meaning("a folder with an image-to-text model of transformers, such as TrOCR; null: tesseract")]


@SCORES.add("ocr")
def ocr(scene: Scene, *, model: TextModel = None) -> Scorer:
    """Text match: 1 - edit distance / length, of the text in quotes in the prompt and the text that is read in the image."""
    facts, opened = text_reader(scene, model)

    def value() -> Value:
        read = opened()

        def of(subject: Subject) -> Found:
            found = plain(read(subject.image()))
            return Found(similarity(plain(quoted(subject.prompt or "")), found), f"read: {found[:200]!r}")

        return of

    return Scorer(
        definition="1 - edit distance (Levenshtein 1966) / length of the longer, of the text in quotes in the prompt and the text that a"
        " model reads in the image; case, punctuation and spaces do not count.",
        unit="0 to 1; 1: the same text",
        better="higher",
        open=value,
        inputs=_text,
        lacks="the prompt has no text in quotes",
        model=facts,
    )


def _text(subject: Subject) -> dict[str, Any] | None:
    text = plain(quoted(subject.prompt or ""))
    return {"text": text} if text else None


def quoted(prompt: str) -> str:
    """The texts in quotes, joined by spaces."""
    return " ".join(next(part for part in match.groups() if part) for match in QUOTED.finditer(prompt))


def plain(text: str) -> str:
    """Letters and digits alone, in one case."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(letter for letter in folded if letter.isalnum())[:LONGEST]


def similarity(one: str, other: str) -> float:
    """1 - edit distance / length of the longer one."""
    longest = max(len(one), len(other))
    return 1 - distance(one, other) / longest if longest else 1.0


def distance(one: str, other: str) -> int:
    """The fewest letters to insert, leave out or change (Levenshtein 1966)."""
    row = list(range(len(other) + 1))
    for number, letter in enumerate(one, 1):
        before, row[0] = row[0], number
        for place, against in enumerate(other, 1):
            before, row[place] = row[place], min(row[place] + 1, row[place - 1] + 1, before + (letter != against))
    return row[-1]
