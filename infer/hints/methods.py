"""All preparations: importing this fills the table."""

from infer.hints import edges, lines, stick_figure
from infer.hints.table import PREPARE

__all__ = ["PREPARE", "edges", "lines", "stick_figure"]
