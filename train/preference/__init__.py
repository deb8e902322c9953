"""Learning from votes: which of two images people preferred (Diffusion-DPO, Flow-DPO)."""
