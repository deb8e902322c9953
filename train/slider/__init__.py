"""Concept sliders: their set, their passes, what they reach."""
