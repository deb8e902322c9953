"""One image: a Render, a loaded model, the denoising loop."""
