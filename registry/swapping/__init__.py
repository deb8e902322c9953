"""Block swap: frozen blocks of a denoiser in main memory, fetched to the device for as long as they compute.

The same in training and in drawing: the weights are not changed, so nothing is copied back.
"""
