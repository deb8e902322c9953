"""Where a file goes that a command is asked to write."""

from collections.abc import Sequence
from pathlib import Path

from registry.errors import Refused
from registry.home import expanded


def html_path(given: str, option: str, page: str) -> Path:
    """The absolute path of an HTML page. Raises Refused, before anything is read, for what cannot be written there."""
    return output_path(given, option, page, (".html", ".htm"))


def output_path(given: str, option: str, what: str, endings: Sequence[str]) -> Path:
    """The absolute path of a file with one of these endings. Raises Refused for what cannot be written there."""
    path = expanded(given).absolute()
    if path.suffix.lower() not in endings:
        kind = "an HTML file" if ".html" in endings else f"a file that ends in {endings[0]}"
        raise Refused(f"{option} {given}: the {what} is {kind}. Give a name that ends in {endings[0]}.")
    if path.is_dir():
        raise Refused(f"{option} {given} is a folder. Give the name of a file in it.")
    if not path.parent.is_dir():
        raise Refused(f"{option} {given}: there is no folder {path.parent}. Make it, or give another.")
    return path
