"""Blind votes on a finished grid, and the ranking that they give."""
