"""Quantised linear layers: frozen weights in 8 or 4 bits, made while a model is loaded."""
