"""Builds that were distilled to a few sampling steps: how one is known, how it is drawn, and what a LoRA for it is trained on instead.

A LoRA that is trained on such a build by the usual loss teaches it the slow path again: at its few steps the images blur.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from registry.record import Record

UNDONE = r"de[-_ ]?(turbo|distill)|un[-_ ]?distill"  # names of builds from which the distillation was trained away again
MANY = 20  # least steps of the many that a few-step image is compared with
TIMES = 4  # the many are at least so many times the few
SHOWING = ("modelspec.title", "modelspec.architecture", "ss_sd_model_name", "ss_base_model_version")  # metadata that names a build


@dataclass(frozen=True, kw_only=True)
class FewStep:
    """One kind of a family's few-step builds. It is known by its variant, or by a word in its name where no tensor shows it."""

    title: str  # "FLUX.1 schnell"
    variants: tuple[str, ...] = ()  # values of Record.variant
    word: str | None = None  # a regular expression, looked for in its names whatever the case
    unless: str | None = None  # a regular expression for names of builds that look alike and are not distilled
    steps: int  # as its makers draw it
    guidance: float  # in this family's count; without an unconditional pass
    instead: str  # the build to train on
    training_adapter: str | None = None  # a published training adapter for it

    def evidence(self, record: Record) -> str | None:
        """By what the record is this kind; None: it is not."""
        names = [(place, text, text.lower()) for place, text in names_of(record)]
        if any(re.search(pattern, lower) for pattern in (UNDONE, self.unless) if pattern for _, _, lower in names):
            return None
        if record.variant in self.variants:
            return f"its variant is {record.variant}"
        found = (f"its {place} is {text}" for place, text, lower in names if self.word and re.search(self.word, lower))
        return next(found, None)


@dataclass(frozen=True)
class FoundFewStep:
    """A base's few-step kind, and by what it is known."""

    kind: FewStep
    evidence: str


def names_of(record: Record) -> Iterator[tuple[str, str]]:
    """(what it is, the text) of everything that names a model: registered name, file or folder, entries of its header."""
    yield "name", record.name
    if record.path is not None:
        yield "folder" if record.metadata.get("root") else "file", Path(record.path).name
    yield from ((key, str(record.metadata[key])) for key in SHOWING if record.metadata.get(key))


def few_step_of(kinds: Sequence[FewStep], record: Record) -> FoundFewStep | None:
    """The first of a family's kinds that this model is; None: nothing shows that it is one."""
    return next((FoundFewStep(kind, evidence) for kind in kinds if (evidence := kind.evidence(record)) is not None), None)


def steps_of_test(few: int) -> tuple[int, int]:
    """The few and the many steps of a few-step test."""
    return few, max(MANY, TIMES * few)
