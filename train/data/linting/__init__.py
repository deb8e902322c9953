"""Checks of `loraloom data lint` on images and captions, each a function from a set to findings."""
