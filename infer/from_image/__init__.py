"""A grid's settings from an image's metadata: one file for each part that is taken over."""
