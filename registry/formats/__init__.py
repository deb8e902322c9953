"""Model file formats: bytes to tensors and names, and the key dialects of adapters and checkpoints."""
