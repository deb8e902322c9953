"""Texts on the command line, taken as typed: Hydra's grammar gives a meaning to , [ ] ( ) { } : = ~ $ and to spaces.

A quoted value keeps Hydra's rules. So `prompt=a cat, (red)` and `'prompt="a cat, (red)"'` mean the same.
"""

import re
from typing import Any

from loraloom.hydra.settings import Schema
from registry.plain_values import from_json, from_yaml

_QUOTED = r"""(?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')"""
QUOTED = re.compile(_QUOTED, re.DOTALL)
QUOTED_SEVERAL = re.compile(rf"{_QUOTED}(?:\s*,\s*{_QUOTED})+", re.DOTALL)
NAME = re.compile(r"[\w/\-\\+.$%*@?|()\[\]{}:, ]+", re.ASCII)
NO_TEXT = re.compile(r"null|true|false|[+-]?(?:[\d._]+(?:e[+-]?\d+)?|inf|nan)|.* | .*", re.IGNORECASE)  # is read as something else
EXPONENT = re.compile(r"[:\[,]\s*[+-]?\d+e[+-]?\d", re.IGNORECASE)
PLAIN_ITEM = re.compile(r"[+-]?[\w.+-]+")


def quote(text: str) -> str:
    """The text as a quoted value of Hydra's grammar that is read back as exactly this text.

    Backslashes escape before a quote or at the end (Hydra), and before `${` (OmegaConf); nowhere else.
    """
    text = re.sub(r"(\\*)\$\{", lambda match: match[1] * 2 + r"\${", text)
    text = re.sub(r"(\\*)('|\Z)", lambda match: match[1] * 2 + ("\\'" if match[2] else ""), text)
    return f"'{text}'"


def take_literally(argument: str, schema: Schema, *, multirun: bool) -> str:
    """The argument with its value quoted, when it sets a text and is not quoted already; else as it is.

    With `multirun`, several quoted texts with commas between them are a sweep, and so are several bare words.
    """
    key, equals, value = argument.partition("=")
    setting = schema.settings.get(key.lstrip("+"))
    if not equals or setting is None or not setting.is_text:
        return argument
    if (value == "null" and setting.optional) or QUOTED.fullmatch(value):
        return argument
    if multirun and (QUOTED_SEVERAL.fullmatch(value) or (setting.word and "," in value)):
        return argument
    return quote_value(argument)


def quote_value(argument: str) -> str:
    """KEY=VALUE with the value quoted."""
    key, _, value = argument.partition("=")
    return f"{key}={quote(value)}"


def is_open_text(argument: str, schema: Schema) -> bool:
    """Whether a setting that takes any value is given something that is neither a list, nor a dict, nor in quotes."""
    value = argument.partition("=")[2]
    return takes_anything(argument, schema) and not value.lstrip().startswith(("[", "{", '"', "'"))


def takes_anything(argument: str, schema: Schema) -> bool:
    """Whether it gives a value to a setting that takes any."""
    key, equals, _ = argument.partition("=")
    setting = schema.settings.get(key.lstrip("+"))
    return bool(equals) and setting is not None and setting.is_open


def as_mappings(argument: str) -> str:
    """KEY={name: value, ...}, or a list of such mappings, of YAML's or JSON's spelling in Hydra's grammar; as it is where it is neither."""
    key, _, value = argument.partition("=")
    try:
        found = _read(value) if value.lstrip().startswith(("[", "{")) else None
        rows = found if isinstance(found, list) else [found]
        return f"{key}={_in_grammar(found)}" if rows and all(isinstance(row, dict) for row in rows) else argument
    except ValueError:
        return argument


def _read(value: str) -> Any:
    """Of JSON, else of YAML. Raises ValueError where it is neither, and for 1e-8, which YAML takes for a text (1.0e-8 is its number)."""
    try:
        return from_json(value)
    except ValueError:
        if EXPONENT.search(value):
            raise
        return from_yaml(value)


def _in_grammar(value: Any) -> str:
    """A plain value. Raises ValueError for one that the grammar has no spelling of."""
    if isinstance(value, dict):
        return f"{{{','.join(f'{_name(name)}:{_in_grammar(inner)}' for name, inner in value.items())}}}"
    if isinstance(value, list):
        return f"[{','.join(map(_in_grammar, value))}]"
    if isinstance(value, str):
        return quote(value)
    if value is not None and type(value) not in (int, float, bool):
        raise ValueError(f"a {type(value).__name__} has no spelling")
    return "null" if value is None else str(value).lower()


def _name(name: object) -> str:
    """The name of an entry, which Hydra takes without quotes: what has a meaning is escaped."""
    if not isinstance(name, str) or not NAME.fullmatch(name) or NO_TEXT.fullmatch(name):
        raise ValueError(f"{name!r} cannot be a name")
    return re.sub(r"[\\()\[\]{}:, ]", r"\\\g<0>", name)


def rightly_quoted(argument: str) -> str:
    """How the argument could have been meant, for an error: texts in double quotes, all of it in single ones for the shell."""
    key, _, value = argument.partition("=")
    if value.replace(" ", "").startswith("[{"):
        return f"""'{key}=[{{name: "a text", name: 2}}, {{name: "another"}}]' (all of it in single quotes for the shell)"""
    if value.startswith("{"):
        return f"""'{key}={{name: "a text", name: 2}}' (no quotes inside a name; all of it in single quotes for the shell)"""
    if value.startswith("["):
        items = [
            item if PLAIN_ITEM.fullmatch(item) else _double(item) for item in _split(value.strip().removeprefix("[").removesuffix("]"))
        ]
        value = f"[{','.join(items)}]"
    else:
        value = _double(value)
    return "'" + f"{key}={value}".replace("'", "'\\''") + "'"


def unclear_list(argument: str) -> tuple[str, str] | None:
    """The two readings of a list of sentences without quotes, [a cat, sitting]: one text with a comma, or two. None for a clear list."""
    key, _, value = argument.partition("=")
    inside = value.strip().removeprefix("[").removesuffix("]")
    bare = [item for item in _split(inside) if not QUOTED.fullmatch(item) and item != "null"]
    if not value.startswith("[") or len(bare) < 2 or not (", " in inside or any(" " in item for item in bare)):
        return None
    return rightly_quoted(f"{key}=[{_double(inside.strip())}]"), rightly_quoted(argument)


def _double(text: str) -> str:
    if QUOTED.fullmatch(text):
        return text
    return '"' + re.sub(r'(\\*)("|\Z)', lambda match: match[1] * 2 + ('\\"' if match[2] else ""), text) + '"'


def _split(text: str) -> list[str]:
    """The items between commas outside quotes and brackets."""
    items, depth, rest = [""], 0, text
    while rest:
        quoted = QUOTED.match(rest)
        piece = quoted[0] if quoted else rest[0]
        depth += (piece in "([{") - (piece in ")]}")
        if piece == "," and depth <= 0:
            items.append("")
        else:
            items[-1] += piece
        rest = rest[len(piece) :]
    return [item.strip() for item in items if item.strip()]
