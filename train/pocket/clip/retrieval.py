"""How often pocket's CLIP finds the prompt of an image among 40, and the image of a prompt.

- drawings: held-out (style, noun) pairs, the first of each noun that is trained at full weight, in the order of the noun table; the prompt
  is the noun ("a fox"). The noun was learned from other styles, the drawing never.
- drawn: what pocket draws of the 40 plain prompts by which it is judged (prompts.py), at its seeds 7 and 8
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import CLIPModel, CLIPTokenizer

from registry.home import pocket_clip_dir, pocket_dir
from train.pocket.captions import with_article
from train.pocket.clip.contrast import Pixels, numbers, pictures, texts
from train.pocket.latents import held_out
from train.pocket.nouns import NOUNS, RARE
from train.pocket.prompts import PLAIN, SEED
from train.pocket.sheets import Artist
from train.pocket.sources import STYLES, flatten, load_drawings

COUNT = 40


def heldout_pairs(work: Path) -> list[tuple[str, Pixels]]:
    """(prompt, image) of the held-out drawings."""
    drawings = {style: load_drawings(work, style) for style in STYLES}
    first: dict[str, Pixels] = {}
    for noun in (noun for noun in NOUNS if noun not in RARE):
        for style in STYLES:
            if held_out(style, noun) and noun in drawings[style]:
                first.setdefault(noun, flatten(drawings[style][noun]))
    return [(with_article(NOUNS[noun][0]), image) for noun, image in list(first.items())[:COUNT]]


@torch.no_grad()
def retrieval(model: CLIPModel, tokenizer: CLIPTokenizer, pairs: Sequence[tuple[str, Pixels]]) -> tuple[float, float]:
    """Shares of the images whose own prompt is the nearest of all, and of the prompts whose own image is."""
    own = torch.arange(len(pairs))
    images = pictures(model, numbers(np.stack([image for _, image in pairs])))
    cosines = images @ texts(model, tokenizer, [text for text, _ in pairs]).T
    found = [float((cosines.argmax(side) == own).float().mean()) for side in (1, 0)]
    return found[0], found[1]


def measure(work: Path) -> None:
    """Print the shares of WORK/clip, or where there is none of the committed one."""
    folder = work / "clip" if (work / "clip").is_dir() else pocket_clip_dir()
    model, tokenizer = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval(), CLIPTokenizer.from_pretrained(folder)
    artist = Artist(pocket_dir())
    sets = {"held-out drawings": heldout_pairs(work)}
    for seed in (SEED, SEED + 1):
        sets[f"drawn by pocket, seed {seed}"] = [
            (prompt, np.asarray(image.convert("RGB"))) for prompt, image in zip(PLAIN, artist.draw(PLAIN, seed=seed), strict=True)
        ]
    for name, pairs in sets.items():
        own, other = retrieval(model, tokenizer, pairs)
        sys.stdout.write(f"{name}: the prompt of an image {own:.1%}, the image of a prompt {other:.1%}, of {len(pairs)}\n")
