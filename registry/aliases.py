"""The names by which the metadata of other tools call a family."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Aliases:
    """What other tools call a family, in lower case: a value that begins with one of the words names it."""

    modelspec: tuple[str, ...] = ()  # modelspec.architecture
    base_version: tuple[str, ...] = ()  # ss_base_model_version of sd-scripts and musubi-tuner
    civitai: tuple[str, ...] = ()  # baseModel of a .civitai.info, "sd version" of A1111's .json
    entries: Mapping[str, str] = field(default_factory=dict)  # whole entries of a header that only this family's files have


Words = Callable[[Aliases], tuple[str, ...]]
KEYS: Mapping[str, Words] = {  # entry of a header -> the aliases its value is compared with
    "modelspec.architecture": lambda aliases: aliases.modelspec,
    "ss_base_model_version": lambda aliases: aliases.base_version,
}


def family_named(text: str, words: Words, families: Mapping[str, Aliases]) -> str | None:
    """The family that a text names, by the longest alias it begins with; None where it names none."""
    text = text.strip().lower()
    if not text:
        return None
    found = {word: name for name, aliases in families.items() for word in words(aliases) if text.startswith(word)}
    return found[max(found, key=len)] if found else None


def declared_family(metadata: Mapping[str, str], families: Mapping[str, Aliases]) -> tuple[str, str] | None:
    """(family, the entry that names it) as the metadata of a header declare it; None where they do not."""
    for key, words in KEYS.items():
        value = metadata.get(key, "").strip().lower()
        if family := family_named(value, words, families):
            return family, f"{key} {value!r}"
    for name, aliases in families.items():
        for key, value in aliases.entries.items():
            if metadata.get(key) == value:
                return name, f"{key} {value!r}"
    return None
