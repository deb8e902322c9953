"""What the denoiser is trained to answer: targets, timesteps, weightings, losses."""
