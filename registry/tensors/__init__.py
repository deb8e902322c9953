"""Lazy tensors over files: where they lie, memory maps, chunks, and one model in another's layout."""
