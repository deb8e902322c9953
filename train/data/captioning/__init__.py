"""Captions of images by a local model: an image-to-text model of transformers, or a tagger in ONNX."""
