"""Forwards that several images share, each with its own adapters, sampler, steps and guidance."""
