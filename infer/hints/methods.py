"""All preparations: importing this fills the table."""

from infer.hints import depth, edges, hed, lines, pose, stick_figure
from infer.hints.table import PREPARE

__all__ = ["PREPARE", "depth", "edges", "hed", "lines", "pose", "stick_figure"]
