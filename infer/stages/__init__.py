"""The stages of an image that the home keeps between grids: its final latents, by what they depend on."""
