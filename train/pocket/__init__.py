"""The recipe of `pocket`, the embedded base: drawings and captions -> tokenizer -> VAE -> denoiser -> fp16 folder."""
