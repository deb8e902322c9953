"""Images made elsewhere as columns of a grid: a folder read, its images matched to prompts and seeds, nothing guessed."""
