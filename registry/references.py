"""References: `name`, `name@alias`, `name@key=value` (a sweep's run), `sha256:<prefix>`, a path; with weights `ink:0.6+hat:0.4`."""

import math
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from registry.errors import Refused
from registry.home import expanded
from registry.plain_values import storable
from registry.printable import one_line

HASH = re.compile(r"sha256:([0-9a-fA-F]{4,64})")
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?|[+-]?inf|nan", re.IGNORECASE)
SIGNED = re.compile(r":\s*([+-]?(\d+(\.\d*)?|\.\d+)[eE])?$")  # text before the sign of a number
NONE = "none"  # no adapter at all
POCKET = "pocket"  # the embedded base, always registered under this name
POCKET_LINES = "pocket-lines"  # its ControlNet, likewise
EMBEDDED = {POCKET: "the embedded base", POCKET_LINES: "the embedded base's ControlNet"}
GENERIC = (
    "model",
    "diffusion_pytorch_model",
    "pytorch_lora_weights",
    "adapter_model",
    "lora",
    "pytorch_model",
)  # file names that identify no model
LONGEST = 200  # bytes of a name: file systems take 255, with endings and numbers
NEVER = r"@+:/\\\x00-\x1f\ud800-\udfff"  # in no name; the last are bytes that are no UTF-8, as Python holds them
PART = rf"[^\s{NEVER}](?:[^{NEVER}]*[^\s{NEVER}])?"
NAME = re.compile(rf"{PART}(?:@(?=[^@]*=){PART})?")  # the second part is an override of a sweep's run: ink@lora.rank=4


@dataclass(frozen=True)
class Weighted:
    """A reference and its weight; 1.0 is as trained."""

    reference: str
    weight: float = 1.0

    def __str__(self) -> str:
        return f"{self.reference}:{self.weight:g}"


def parse_adapters(text: str) -> tuple[Weighted, ...]:
    """`ink:0.6+hat:0.4` as references with weights; `none` and an empty text are no adapter.

    A weight is a last `:number`; `@` is never a weight. A `+` in a path that exists is part of the path. Raises Refused.
    """
    text = text.strip()
    if not text or text.lower() == NONE:
        return ()
    return tuple(_weighted(part, text) for part in _parts(text))


def _parts(text: str) -> list[str]:
    if "+" not in text or os.path.exists(split_weight(text)[0]):
        return [text]
    return split_joined(text)


def split_joined(text: str) -> list[str]:
    """The text at every `+` that joins: not the sign of `ink:+0.5` or of an exponent, `ink:1e+2`."""
    signs = [place for place, sign in enumerate(text) if sign == "+" and not SIGNED.search(text[:place])]
    return [text[start:end] for start, end in zip([0, *(place + 1 for place in signs)], [*signs, len(text)], strict=True)]


def _weighted(part: str, text: str) -> Weighted:
    reference, number = split_weight(part.strip())
    if not reference:
        raise Refused(f"{text!r} has an adapter without a name. Write `name:weight`, several joined by `+`: ink:0.6+hat:0.4.")
    if reference.lower() == NONE:
        raise Refused(f"{text!r} joins 'none' with adapters. `none` alone is no adapter.")
    weight = 1.0 if number is None else float(number)
    if not math.isfinite(weight):
        raise Refused(f"The weight {number!r} in {text!r} is not a finite number. 1.0 is as trained, 0 is without.")
    return Weighted(reference, weight)


def split_weight(text: str) -> tuple[str, str | None]:
    """A text split at its last colon when a number follows; None where there is none."""
    head, colon, tail = text.rpartition(":")
    if colon and NUMBER.fullmatch(tail.strip()) and head.strip().lower() != "sha256" and not os.path.exists(text):
        return head.strip(), tail.strip()
    return text, None


def is_hash(reference: str) -> str | None:
    """The prefix of a `sha256:<prefix>` reference, lower-case; None for other references. Raises Refused for a malformed one."""
    if not reference.lower().startswith("sha256:"):
        return None
    found = HASH.fullmatch(reference.lower())
    if not found:
        raise Refused(f"{reference!r} is not a hash reference. Write sha256: and 4 to 64 hex digits.")
    return found[1]


def looks_like_path(reference: str) -> bool:
    """Whether a reference is a path: it has a separator, a model file's suffix, or a leading `.` or `~`."""
    separators = "/" in reference or "\\" in reference
    return separators or reference.startswith((".", "~")) or reference.lower().endswith((".safetensors", ".gguf", ".ckpt", ".pt", ".bin"))


def split_alias(reference: str) -> tuple[str, str | None]:
    """`name@alias` in two; the alias is the part after the last `@`, None when there is none."""
    name, at, alias = reference.rpartition("@")
    return (name, alias) if at and name and alias else (reference, None)


def absolute(path: Path | str) -> Path:
    """The path without `..` and `~`; links are not resolved."""
    return Path(os.path.abspath(expanded(path)))


def spelled(path: Path) -> Path:
    """The path. Raises Refused where its name is not valid Unicode."""
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        shown = os.fsencode(path).decode("utf-8", "replace")
        raise Refused(f"{shown} has a name that is not valid Unicode. Rename it to register it.") from None
    return path


def file_name(path: Path) -> str:
    """The default name of a file: its stem, or its folder's name where the stem is GENERIC."""
    return path.parent.name if path.stem in GENERIC and path.parent.name else path.stem


def check_name(name: str | None) -> None:
    """Raise Refused for a name that a reference cannot hold."""
    if name is None:
        return
    if not NAME.fullmatch(name) or name.lower() == "none":
        raise Refused(
            f"{name!r} cannot be a name. Use letters, digits, spaces, `.`, `-`, `_`; not @ + : / \\ (@ only as @KEY=VALUE), and not 'none'."
        )
    if len(name.encode()) > LONGEST:
        raise Refused(f"A name has at most {LONGEST} bytes, files and folders are called by it: {name[:40]!r}... has {len(name.encode())}.")
    if name in EMBEDDED:
        raise Refused(f"{name!r} is the name of {EMBEDDED[name]}. Choose another name.")


def check_alias(alias: str) -> None:
    """Raise Refused for an alias that a reference cannot hold."""
    if not re.fullmatch(PART, alias) or set(alias) & {"=", "*"} or alias.lower() == NONE:
        raise Refused(f"{alias!r} cannot be an alias. Use letters, digits, spaces, `.`, `-` and `_`; not @ + : / \\ = *, and not 'none'.")


def check_texts(texts: Iterable[str | None]) -> None:
    """Raise Refused for texts that are no Unicode, which no index, header or settings file can hold."""
    wrong = [one_line(text) for text in texts if text is not None and storable(text) != text]
    if wrong:
        raise Refused(f"Not UTF-8: {', '.join(wrong)}. Write it in UTF-8, and rename files and folders that have such a name.")


def check_labels(what: str, labels: Iterable[str]) -> None:
    """Raise Refused for tags or trigger words that are no text that anyone can see."""
    labels = list(labels)
    check_texts(labels)
    if blank := [label for label in labels if not label.strip()]:
        raise Refused(f"{blank[0]!r} cannot be a {what}: it has no letters. Leave it out.")


def without_blank(labels: Iterable[str]) -> tuple[str, ...]:
    """A record's labels for another record: those that `check_labels` takes. An older index may hold blank ones."""
    return tuple(label for label in labels if label.strip())


def without_alias(name: str) -> str:
    """The name without an alias: `ink` of `ink@20260102-030405`; a sweep's `ink@lora.rank=4` is a name."""
    return name if NAME.fullmatch(name) else name.rpartition("@")[0] or name


def names_like(pattern: str, names: Iterable[str]) -> list[str]:
    """The names that match a pattern such as `ink@lora.rank=*`, sorted by numbers. A `*` is any text without an `@`."""
    regex = re.compile("[^@]*".join(map(re.escape, pattern.split("*"))))
    return sorted((name for name in names if regex.fullmatch(name)), key=_by_numbers)


def _by_numbers(name: str) -> list[tuple[int, float, str]]:
    """A key that sorts `rank=4` before `rank=16`."""
    parts = re.split(r"(?<==)([+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)", name)
    return [(0, float(part), "") if index % 2 else (1, 0.0, part) for index, part in enumerate(parts)]


def proper_name(text: str) -> str:
    """A folder's name as a valid name: invalid characters become `-`."""
    if NAME.fullmatch(text) and text.lower() != NONE:
        return text
    name = re.sub(f"[{NEVER}]", "-", text).strip() or "unnamed"
    return f"{name}-" if name.lower() == "none" else name
