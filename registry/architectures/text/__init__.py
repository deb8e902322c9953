"""Text encoders: CLIP, language models, textual inversion embeddings."""
