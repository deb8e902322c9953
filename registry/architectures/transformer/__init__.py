"""Diffusion transformers: loading, latent packing, flow schedules, key names, ControlNets."""
