"""The training loop: encode, step, validate, preview, checkpoint."""
