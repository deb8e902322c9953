"""Where an HTML page goes that a command is asked to write."""

from pathlib import Path

from registry.errors import Refused
from registry.home import expanded


def html_path(given: str, option: str, page: str) -> Path:
    """The absolute path. Raises Refused, before anything is read, for what cannot be written there."""
    path = expanded(given).absolute()
    if path.suffix.lower() not in (".html", ".htm"):
        raise Refused(f"{option} {given}: the {page} is an HTML file. Give a name that ends in .html.")
    if path.is_dir():
        raise Refused(f"{option} {given} is a folder. Give the name of a file in it.")
    if not path.parent.is_dir():
        raise Refused(f"{option} {given}: there is no folder {path.parent}. Make it, or give another.")
    return path
