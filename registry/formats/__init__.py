"""How model files spell things: the key dialects of adapters and checkpoints, read both ways."""
