"""The marks of other programs' prompt grammars: here every letter of a prompt is read as it is, as diffusers' pipelines read it.

A1111 takes `<lora:NAME:WEIGHT>` out of the text and loads the adapter; in diffusers the same letters are words. (AUTOMATIC1111/
stable-diffusion-webui 1.10, modules/extra_networks.py, prompt_parser.py; sd-dynamic-prompts for `{a|b}` and `__file__`.)
"""

import re
from collections.abc import Iterable

from registry.printable import some

_NETWORK = re.compile(r"<(lora|lyco|lycoris|locon|hypernet):([^<>]*)>?", re.IGNORECASE)
_MARKS = re.compile(
    r"\bBREAK\b|\bAND\b"
    r"|\([^()]*:\s*[-+]?[\d.]+\s*\)"  # (red:1.3)
    r"|\[[^\[\]|:]*[|:][^\[\]]*\]"  # [a|b], [a:b:0.5]
    r"|\{[^{}|]*\|[^{}]*\}"  # {a|b}
    r"|__[\w/*-]+?__"  # __colour__
)
_BRACKET = re.compile(r"([\\()\[\]])")
_SHOWN = 6


def network_fault(name: str, text: str) -> str | None:
    """What is wrong with a prompt that holds `<lora:...>`, and what to write in its place; None where it holds none."""
    found = list(dict.fromkeys(match[0] for match in _NETWORK.finditer(text)))
    if not found:
        return None
    adapters = [_adapter(match[2]) for match in _NETWORK.finditer(text) if match[1].lower() != "hypernet"]
    instead = f"adapters={'+'.join(dict.fromkeys(adapters))}" if all(adapters) and adapters else "adapters=NAME:WEIGHT"
    return (
        f"{name} holds {', '.join(found)}. A prompt is read letter by letter here, so the adapter would not be loaded and its name would be"
        f" read as words. Leave it out of the text and give {instead}, or axes.adapter to compare; or give prompt_dialect=a1111."
    )


def _adapter(text: str) -> str:
    """ink:0.8 of NAME:WEIGHT, and of NAME:te=0.5:unet=0.8 the name alone."""
    name, *weights = text.split(":")
    return f"{name}:{weights[0]}" if len(weights) == 1 and re.fullmatch(r"-?[\d.]+", weights[0]) else name


def literal_note(texts: Iterable[str]) -> str | None:
    """The note on marks of other programs' grammars in prompts, which are read as letters; None where there are none."""
    found = list(dict.fromkeys(match[0] for text in texts for match in _MARKS.finditer(text)))
    if not found:
        return None
    split = [word for word in ("BREAK", "AND") if word in found]
    cannot = f" A1111 has no escape for {' and '.join(split)}: it splits the text of `parameters` there." if split else ""
    return f"Read letter by letter, as diffusers does, without a meaning of its own: {some(found, _SHOWN)}.{cannot}{_settings(found)}"


def _settings(found: Iterable[str]) -> str:
    """The settings that give marks their meaning."""
    braces = [mark[0] in "{_" for mark in found]
    ways = [*(["prompt_dialect=a1111"] if not all(braces) else []), *(["wildcards=true or a folder"] if any(braces) else [])]
    return f" They mean something with {' and '.join(ways)}."


def escape(text: str) -> str:
    """The text with its brackets escaped, so that A1111 reads them as brackets and not as weights: ( ) [ ] and the backslash."""
    return _BRACKET.sub(r"\\\1", text)
