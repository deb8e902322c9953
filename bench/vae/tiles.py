"""How far an image decoded in tiles is from the whole decoding: our tiles, and those of diffusers, with the embedded base's VAE.

OMP_NUM_THREADS=1 python -m bench.vae.tiles [FOLDER]     16 drawings of a folder (datasets/ink) at 128 pixels, encoded and decoded again
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy
import torch
from PIL import Image

from registry.architectures.vae.tiles import decode_tiled
from registry.detect.loading import load_base
from registry.home import pocket_dir

SIDE, IMAGES, TILES = 128, 16, (32, 64)


def main(folder: Path) -> None:
    family, parts = load_base(str(pocket_dir()), dtype=torch.float32, device="cpu")
    latents = []
    for file in sorted(folder.glob("*.png"))[:IMAGES]:
        with Image.open(file) as image:
            pixels = numpy.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS), dtype=numpy.float32)
        with torch.no_grad():
            latents.append(family.encode_images(parts, torch.from_numpy(pixels / 127.5 - 1).permute(2, 0, 1)[None]).mean)
    print("| tile | ours, of 255 | diffusers, of 255 |\n|---|---|---|")
    vae: Any = parts.vae
    for side in TILES:
        apart = [0.0, 0.0]
        for one in latents:
            with torch.no_grad():
                vae.disable_tiling()
                whole = family.decode(parts, one)
                ours = decode_tiled(family.decode, parts, one, side)
                vae.enable_tiling()
                vae.tile_sample_min_size, vae.tile_latent_min_size = side, side // parts.latent_factor
                tiled = family.decode(parts, one)
            apart = [total + float((each - whole).abs().mean()) * 127.5 for total, each in zip(apart, (ours, tiled), strict=True)]
        print(f"| {side} | {apart[0] / len(latents):.2f} | {apart[1] / len(latents):.2f} |")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("datasets/ink"))
