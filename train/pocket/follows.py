"""How far pocket's images follow their lines: sheets to look at, and the agreement of edges.

The lines are edges of the held-out drawings of datasets/ink, whose style neither pocket nor its ControlNet has ever seen, and the
drawings of datasets/lines. Every drawing is asked for with its own noun.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from registry.home import pocket_dir, pocket_lines_dir
from train.pocket.drawings import DRAWINGS
from train.pocket.drawings import ROOT as LINES
from train.pocket.lines import agreement, canny
from train.pocket.prompts import GUIDANCE, SEED, STEPS
from train.pocket.sets import ROOT as DATASETS
from train.pocket.sheets import save_small, tile
from train.pocket.sources import SIZE_PX

NOUNS = {"circle": "a cookie", "square": "a present", "moon": "the moon", "face": "a smiling face"}  # else the drawing's own name
# (drawing, prompts): what one drawing becomes
SHOWN = {
    "circle": ("an apple", "a pizza", "a cookie"),
    "heart": ("a strawberry", "a cookie", "a cake"),
    "star": ("a star", "a cookie", "a flower"),
    "face": ("a smiling face", "a clown", "a pumpkin"),
    "cat": ("a cat", "a dog", "a fox"),
    "fish": ("a fish", "a shark", "a whale"),
    "house": ("a house", "a castle", "a church"),
    "mushroom": ("a mushroom", "an umbrella", "a tree"),
}


@dataclass(frozen=True)
class Case:
    """A prompt with the picture of its lines, white on black."""

    prompt: str
    lines: Image.Image  # SIZE_PX wide and high

    @property
    def edges(self) -> NDArray[np.bool_]:
        """Where edges should be: on the lines, whose two rims lie within the tolerance."""
        return np.asarray(self.lines.convert("L")) > 127


def ink_cases() -> list[Case]:
    """Edges of the 16 held-out drawings, with their captions."""
    found = []
    for path in sorted((DATASETS / "ink" / "heldout").glob("*.png")):
        small = Image.open(path).convert("RGB").resize((SIZE_PX, SIZE_PX), Image.Resampling.BOX)
        lines = Image.fromarray(canny(np.asarray(small))).convert("RGB")
        found.append(Case(path.with_suffix(".txt").read_text(encoding="utf-8").strip(), lines))
    return found


def line_cases() -> list[Case]:
    """The drawings by strokes, each with its noun."""
    return [case_of(name, NOUNS.get(name, f"a {name}")) for name in DRAWINGS]


def case_of(name: str, prompt: str) -> Case:
    return Case(prompt, Image.open(LINES / f"{name}.png").convert("RGB"))


class SteeredArtist:
    """diffusers' own ControlNet pipeline, each prompt from the same seed."""

    def __init__(self, net: Path) -> None:
        from diffusers import ControlNetModel, StableDiffusionControlNetPipeline

        steering = ControlNetModel.from_pretrained(net)
        self.pipeline = StableDiffusionControlNetPipeline.from_pretrained(pocket_dir(), controlnet=steering, safety_checker=None)
        self.pipeline.set_progress_bar_config(disable=True)

    def draw(self, cases: Sequence[Case], *, scale: float = 1.0, seed: int = SEED, steps: int = STEPS) -> list[Image.Image]:
        images: list[Image.Image] = []
        for i in range(0, len(cases), 12):
            some = cases[i : i + 12]
            options: dict[str, Any] = {"guidance_scale": GUIDANCE, "controlnet_conditioning_scale": scale, "num_inference_steps": steps}
            options["generator"] = [torch.Generator().manual_seed(seed) for _ in some]
            images += self.pipeline([case.prompt for case in some], image=[case.lines for case in some], **options).images
        return images


def agreements(images: Sequence[Image.Image], cases: Sequence[Case]) -> list[float]:
    """Of each image's edges with its lines (F1 within 2 px)."""
    return [agreement(canny(np.asarray(image)) > 0, case.edges) for image, case in zip(images, cases, strict=True)]


def write(work: Path) -> None:
    """Print the mean agreements with and without lines, and write sheets to WORK/sheets: of WORK/pocket_lines, or of the committed net."""
    folder = work / "pocket_lines"
    artist, out = SteeredArtist(folder if folder.is_dir() else pocket_lines_dir()), work / "sheets"
    out.mkdir(parents=True, exist_ok=True)
    for name, cases in (("ink", ink_cases()), ("lines", line_cases())):
        plain, steered = artist.draw(cases, scale=0.0), artist.draw(cases)
        save_small(tile([*(case.lines for case in cases), *plain, *steered], len(cases)), out / f"follows-{name}.png")
        before, after = agreements(plain, cases), agreements(steered, cases)
        means = {"without": round(float(np.mean(before)), 3), "with": round(float(np.mean(after)), 3)}
        better = sum(b > a for a, b in zip(before, after, strict=True))
        print(f"follows {name}: {json.dumps({'images': len(cases), **means, 'nearer': better})}", flush=True)
    count = max(map(len, SHOWN.values()))
    drawn = [artist.draw([case_of(name, prompts[row]) for name, prompts in SHOWN.items()]) for row in range(count)]
    lines = [case_of(name, "").lines for name in SHOWN]
    save_small(tile([*lines, *(image for row in drawn for image in row)], len(SHOWN)), out / "follows-prompts.png")
