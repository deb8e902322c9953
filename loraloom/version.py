"""The version of loraloom: the packaging reads it here too."""

__version__ = "0.1.0"
