"""Contact sheets of a packed pipeline: what a person looks at to judge it."""

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image

from train.pocket.captions import with_article
from train.pocket.nouns import NOUNS
from train.pocket.prompts import GROUNDS, GUIDANCE, PLAIN, RECOMBINED, SEED, STEPS, STYLED, UNKNOWN
from train.pocket.sources import STYLES

GAP_PX = 2


def tile(images: Sequence[Image.Image], columns: int) -> Image.Image:
    """Images of one size in rows, with a thin grey gap."""
    width, height = images[0].size
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * (width + GAP_PX) - GAP_PX, rows * (height + GAP_PX) - GAP_PX), (200, 200, 200))
    for i, image in enumerate(images):
        sheet.paste(image, (i % columns * (width + GAP_PX), i // columns * (height + GAP_PX)))
    return sheet


def save_small(sheet: Image.Image, path: Path) -> None:
    """A PNG of 255 colours: a sheet is for looking, and a third of the size."""
    sheet.quantize(255, dither=Image.Dither.NONE).save(path, optimize=True)


class Artist:
    """A loaded pipeline that draws prompts in batches, each prompt from the same seed."""

    def __init__(self, folder: Path) -> None:
        from diffusers import StableDiffusionPipeline

        self.pipeline = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
        self.pipeline.set_progress_bar_config(disable=True)

    def draw(self, prompts: Sequence[str], *, seed: int = SEED, steps: int = STEPS, guidance: float = GUIDANCE) -> list[Image.Image]:
        images: list[Image.Image] = []
        for i in range(0, len(prompts), 12):
            some = list(prompts[i : i + 12])
            generators = [torch.Generator().manual_seed(seed) for _ in some]
            images += self.pipeline(some, num_inference_steps=steps, guidance_scale=guidance, generator=generators).images
        return images


def write(work: Path, *, folder: Path | None = None) -> None:
    """Write the card's sheets of WORK/pocket to WORK/sheets."""
    artist, out = Artist(folder or work / "pocket"), work / "sheets"
    out.mkdir(parents=True, exist_ok=True)
    for seed in (SEED, SEED + 1):
        save_small(tile(artist.draw(PLAIN, seed=seed), 10), out / f"plain-seed{seed}.png")
        save_small(tile(artist.draw(RECOMBINED, seed=seed), 8), out / f"recombined-seed{seed}.png")
    save_small(tile(artist.draw([f"{style} style, {noun}" for style in STYLES for noun in STYLED]), len(STYLED)), out / "styles.png")
    save_small(tile(artist.draw([*GROUNDS, *UNKNOWN]), 14), out / "grounds-and-unknown.png")
    save_small(tile(artist.draw([f"noto style, {with_article(words[0])}" for words in NOUNS.values()]), 33), out / "all-nouns.png")
