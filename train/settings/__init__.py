"""The groups of a training run's settings, each with its ranges."""
