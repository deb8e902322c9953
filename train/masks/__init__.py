"""Masks of training images: found, read, fitted to latents, and made by a segmenter."""
