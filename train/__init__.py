"""What a model learns: data, caches, objectives, loop, checkpoints. Floor 2: imports registry; only its previews import infer."""
