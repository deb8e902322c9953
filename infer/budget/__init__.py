"""memory=12GiB of a grid: what drawing needs of a device, and the cheapest settings that fit."""
