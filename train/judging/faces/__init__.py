"""Faces of drawn images beside those of the set: found by a detector, aligned, embedded by a model by path."""
