"""pocket's CLIP: its training, and how often it finds the prompt of an image."""
