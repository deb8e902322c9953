"""Model files in another form, exactly: adapters between dialects, pickles to safetensors, checkpoints between one file and a folder."""
