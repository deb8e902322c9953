"""A second pass at a larger size: A1111's Hires. fix, and ComfyUI's second sampler behind an upscaled latent image."""
