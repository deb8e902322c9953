"""Regularisation images: read from a folder or drawn by the base before it learns (prior preservation)."""
