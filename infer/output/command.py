"""The command line that draws one image of a grid alone: the same settings, and the same key."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any

from infer.draw.files import Adapter, ControlNet, Embedding, ImageFile
from infer.draw.render import SETTINGS, Render
from infer.draw.values import number
from infer.hints.setting import Prepare
from infer.hires.setting import Hires
from registry.home import expanded
from registry.printable import shell_line
from registry.settings import spelled

PLAIN = re.compile(r"(?!none$)[A-Za-z0-9_][\w.@-]*", re.ASCII | re.IGNORECASE)  # a name that no grammar reads as anything else
LEFT_OUT = ("upsample", "shared")  # the prompt is the text that came of the one; batch_size gives the other
NAMES: Mapping[type, Mapping[str, str]] = {
    Adapter: {"reference": "adapter"},
    Embedding: {"reference": "embedding"},
    ControlNet: {"reference": "net", "picture": "image"},
}


def command_of(render: Render, lasting: Callable[[str], str] = str) -> str:
    """The line for a shell that draws a resolved Render from any folder; "" where no command line can have its texts.

    `lasting` gives a model's reference as it is valid from any folder; by default it stays as it was given.
    """
    words = words_of(_from_anywhere(render, lasting))
    if any("\0" in word or not _is_utf8(word) for word in words):
        return ""
    return shell_line("loraloom", "grid", *words)


def place(path: str) -> str:
    """The absolute path of a file that is no registered model."""
    return str(expanded(path).absolute())


def _from_anywhere(render: Render, lasting: Callable[[str], str]) -> Render:
    """The Render with the files it names as they are found from any folder."""
    changes: dict[str, Any] = {}
    for one in SETTINGS.values():
        value = getattr(render, one.field)
        if isinstance(value, ImageFile):
            changes[one.field] = replace(value, path=place(value.path))
        elif one.file and isinstance(value, str):
            changes[one.field] = lasting(value)
        elif one.file and isinstance(value, tuple):
            changes[one.field] = tuple(_file_from_anywhere(file, lasting) for file in value)
    return replace(render, **changes)


def _file_from_anywhere(file: Any, lasting: Callable[[str], str]) -> Any:
    file = replace(file, reference=lasting(file.reference))
    if not isinstance(file, ControlNet):
        return file
    prepare = file.prepare if file.prepare is None else replace(file.prepare, options=absolute_options(file.prepare))
    return replace(file, picture=replace(file.picture, path=place(file.picture.path)), prepare=prepare)


def absolute_options(prepare: Prepare) -> tuple[tuple[str, Any], ...]:
    """The options of a preparation, its network by an absolute path."""
    return tuple((name, place(value) if name == "model" and isinstance(value, str) else value) for name, value in prepare.options)


def _is_utf8(word: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in word)


def words_of(render: Render) -> list[str]:
    """The same as KEY=VALUE arguments."""
    return [f"{name}={spelled(value)}" for name, value in settings_given(render).items()]


def settings_given(render: Render) -> dict[str, Any]:
    """The settings of `loraloom grid` that draw it, as plain values: the prompt, the base, and what differs from the defaults."""
    given = {one.name: _value(one.value(render)) for one in SETTINGS.values() if one.help and one.field not in LEFT_OUT}
    plain = {one.name: _value(one.fill(one.default)[one.field]) for one in SETTINGS.values() if one.help}
    kept = {name: value for name, value in given.items() if value is not None and (name in ("prompt", "base") or value != plain[name])}
    if render.shared:
        kept["batch_size"] = 2  # any number but 1: denoiser calls as they are when they are shared
    return kept


def _value(value: Any) -> Any:
    """A value of a Render as a command line takes it."""
    if isinstance(value, ImageFile):
        return value.path
    if isinstance(value, Hires):
        return value.to_record()
    if isinstance(value, Prepare):
        return replace(value, sha256=None).to_json()
    if isinstance(value, tuple) and value and all(side is None or type(side) is int for side in value):
        return None if None in value else "x".join(map(str, value))
    if isinstance(value, tuple):
        names = [_name(one) for one in value]
        return ("+".join(filter(None, names)) if all(names) else [_record(one) for one in value]) or None
    return value


def _name(one: Any) -> str | None:
    """An adapter in its short form, ink:0.6; None where only a record has all of it."""
    if not isinstance(one, Adapter) or not PLAIN.fullmatch(one.reference):
        return None
    if one != Adapter(reference=one.reference, weight=one.weight, sha256=one.sha256):
        return None
    return one.reference if one.weight == 1.0 else f"{one.reference}:{number(one.weight)}"


def _record(one: Any) -> dict[str, Any]:
    """A file of a Render with what was given beside it."""
    names = NAMES[type(one)]
    given = ((field.name, getattr(one, field.name)) for field in fields(one) if field.name != "sha256")
    plain = {field.name: field.default for field in fields(one)}
    return {names.get(name, name): _value(value) for name, value in given if value != plain[name]}
