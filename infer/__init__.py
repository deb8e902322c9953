"""What a model draws: renders, axes, grids, reports. Floor 1: imports registry."""
