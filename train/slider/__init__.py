"""Passes of other kinds than denoising: concept sliders with their set and what they reach, targets that keep guidance."""
