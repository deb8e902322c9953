"""Merging: a recipe becomes a plan from headers alone, the plan becomes a file in one bounded stream.

One function a method in methods/; the algebra of adapters (fuse, combine, resize, extract) works on what adapters change, never
on their factors.
"""
