r"""Texts of files, folders and metadata as a terminal may show them: control characters are written as escapes such as \x1b.

A terminal acts on C0 and C1 controls (ESC begins commands, BEL rings, CR overwrites), and bidirectional controls reorder a line
(Unicode Standard Annex 9). Bytes of a file name that are no UTF-8, which Python holds as lone surrogates, are written as \xff.
"""

import json
import re
import shlex
from collections.abc import Iterable

__all__ = ["as_lines", "counted", "json_printable", "one_line", "printable", "script_json", "shell_line", "shell_word", "some"]

BIDI = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
HIDDEN = re.compile(f"[\x00-\x1f\x7f-\x9f\u2028\u2029{BIDI}\ud800-\udfff]")
SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


def printable(text: str) -> str:
    """The text with its lines as they are, and every other control character as an escape."""
    return HIDDEN.sub(lambda match: "\n" if match[0] == "\n" else _escape(match[0]), text)


def one_line(text: object) -> str:
    """The text of a value on a single line: a newline is an escape as well."""
    return HIDDEN.sub(lambda match: _escape(match[0]), str(text))


def as_lines(lines: Iterable[object]) -> str:
    """Each value on a line of its own."""
    return "\n".join(map(one_line, lines))


def counted(number: float | str | None, one: str, many: str | None = None) -> str:
    """1 caption, 3 captions; `many` is a plural that is more than an s: 1 entry is, 3 entries are."""
    return f"{number} {one if number == 1 else many or f'{one}s'}"


def some(names: Iterable[str], most: int = 3, *, between: str = ", ") -> str:
    """The first names of many, for a message: 'a, b, c and 5 more'; with another mark between them 'a; b; c; and 5 more'."""
    listed = list(names)
    rest = f"{' ' if between == ', ' else between}and {len(listed) - most} more" if len(listed) > most else ""
    return between.join(listed[:most]) + rest


def json_printable(document: str) -> str:
    r"""A JSON document whose strings have control characters as \u escapes: it reads back as the same values."""
    return HIDDEN.sub(lambda match: "\n" if match[0] == "\n" else f"\\u{ord(match[0]):04x}", document)


def shell_word(word: str) -> str:
    r"""The word for a shell; control characters, on which a terminal would act where they are pasted, as escapes: $'a\x1bb'."""
    if not HIDDEN.search(word):
        return shlex.quote(word)
    escaped = re.sub(r"[\\']", r"\\\g<0>", word)
    return "$'" + HIDDEN.sub(lambda match: "".join(f"\\x{byte:02x}" for byte in _bytes_of(match[0])), escaped) + "'"


def _bytes_of(character: str) -> bytes:
    return character.encode("utf-8", "surrogateescape" if "\udc80" <= character <= "\udcff" else "surrogatepass")


def shell_line(*words: object) -> str:
    """A command with its words for a shell."""
    return " ".join(shell_word(str(word)) for word in words)


def script_json(value: object) -> str:
    """JSON that no HTML parser can leave: `</script>` and `<!--` inside a string are spelt with escapes."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # PEP 383: an undecodable byte of a file name
        code -= 0xDC00
    return SHORT.get(character) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")
