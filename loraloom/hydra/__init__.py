"""Hydra behind the command line: overrides, presets, help, jobs, sweeps."""
