"""Grids beside two loops over diffusers' pipeline."""
