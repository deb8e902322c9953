"""What a model file is: formats, families, hashes, the index, merging. Floor 0: imports nothing of ours."""
