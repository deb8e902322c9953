"""Autoencoders: KL, Qwen's video VAE, and another VAE in a base's place."""
