"""Choosing a run's checkpoint and weight by blind votes: drawn, voted on, ranked, and the winner kept under an alias."""
