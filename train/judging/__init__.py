"""A run's checkpoints judged by their images: drawn by the grid's engine beside the bare base, measured, compared with intervals."""
