"""Image-caption sets: read, split, checked."""
