"""Models by path that give an image, and where it has a text side a text, one vector: CLIP, SigLIP, DINOv2, SSCD and their relatives."""
