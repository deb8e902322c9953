"""Scores of a grid's images: one function a score in kinds/, kept in the home by the content of image and definition."""
