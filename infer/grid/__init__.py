"""A grid: its settings, axes, plan and cells."""
