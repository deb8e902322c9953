"""The denoiser's training set: each drawing in a few views (flipped, shifted, on coloured grounds, recoloured), encoded once.

A view is encoded once and captioned anew each time it is drawn from the set.
"""

import json
import random
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from train.pocket.captions import BACKGROUNDS, COLOURS, View, colour_of_name, unseen
from train.pocket.nouns import NOUNS, listed
from train.pocket.sources import STYLES, flatten, load_drawings
from train.pocket.vae import encode

Floats = NDArray[np.floating[Any]]

WHITE_VIEWS, GROUND_VIEWS, RECOLOURS = 4, 4, 4  # of each drawing
VALIDATION = 23  # one (style, noun) pair in 23 is never trained on
NOT_MIRRORED = frozenset(  # letters, digits and signs that are wrong the other way round
    listed(
        "red question mark|check mark|musical note|musical notes|calendar|stop sign|pool 8 ball|newspaper|computer mouse|"
        "dollar banknote|credit card|yin yang|floppy disk|watch|alarm clock|globe showing Americas|speech balloon"
    )
)


def held_out(style: str, noun: str) -> bool:
    """Whether this pair is kept for validation; spread evenly over styles and nouns."""
    return (STYLES.index(style) * 4 + list(NOUNS).index(noun)) % VALIDATION == 0


def mean_colour(rgb: Floats, weight: Floats) -> Floats:
    return np.asarray((rgb * weight[..., None]).sum((0, 1)) / max(float(weight.sum()), 1e-6))


def hsv(rgb: Floats) -> tuple[Floats, Floats, Floats]:
    """Hue in degrees, saturation and value in [0, 1], of RGB in [0, 1]."""
    scale = np.array([360 / 255, 1 / 255, 1 / 255], np.float32)
    array: Floats = np.asarray(Image.fromarray((rgb * 255).astype(np.uint8)).convert("HSV"), np.float32) * scale
    return array[..., 0], array[..., 1], array[..., 2]


@dataclass(frozen=True)
class Dominant:
    """A drawing's one main colour: which pixels have it, and their mean."""

    weight: Floats  # (H, W), 0 to 1
    mean: Floats  # RGB in [0, 1]

    @property
    def name(self) -> str:
        """The word a person would say for it."""
        hue, saturation, value = (float(c[0, 0]) for c in hsv(self.mean.reshape(1, 1, 3)))
        if saturation < 0.22:
            return "gray"
        if 12 <= hue < 48 and value < 0.72:
            return "brown"
        if (hue < 12 or hue >= 330) and saturation < 0.5 and value > 0.8:
            return "pink"
        ends = ((12, "red"), (40, "orange"), (66, "yellow"), (170, "green"), (252, "blue"), (295, "purple"), (338, "pink"), (361, "red"))
        return next(word for end, word in ends if hue < end)


def dominant(rgba: NDArray[np.uint8]) -> Dominant | None:
    """The one hue that covers over 45 % of the drawing, or a middle grey that does; None when no colour leads."""
    rgb, alpha = rgba[..., :3].astype(np.float32) / 255, rgba[..., 3].astype(np.float32) / 255
    hue, saturation, value = hsv(rgb)
    vivid = alpha * (saturation > 0.25) * (value > 0.2)
    best: tuple[float, Floats] | None = None
    for centre in range(0, 360, 15):
        off = np.abs((hue - centre + 180) % 360 - 180)
        weight = vivid * np.clip((42 - off) / 14, 0, 1)
        if best is None or float(weight.sum()) > best[0]:
            best = float(weight.sum()), weight.astype(np.float32)
    assert best is not None
    area = float(alpha.sum())
    if best[0] > 0.45 * area:
        return Dominant(best[1], mean_colour(rgb, best[1]))
    grey = (alpha * np.clip((0.25 - saturation) / 0.1, 0, 1) * np.clip((value - 0.3) / 0.15, 0, 1)).astype(np.float32)
    if float(grey.sum()) > 0.6 * area and float(vivid.sum()) < 0.15 * area:
        return Dominant(grey, mean_colour(rgb, grey))
    return None


def recolour(rgba: NDArray[np.uint8], main: Dominant, colour: str) -> NDArray[np.uint8]:
    """The drawing with its main colour brought to another; shading is kept as the ratio to the mean brightness."""
    rgb = rgba[..., :3].astype(np.float32) / 255
    luma = np.array([0.299, 0.587, 0.114], np.float32)
    ratio = (rgb @ luma) / max(float(main.mean @ luma), 0.05)
    target = np.array(COLOURS[colour], np.float32) / 255
    dark = np.clip(ratio, 0, 1)[..., None] * target
    light = target + (1 - target) * np.clip((ratio[..., None] - 1) * 0.9, 0, 1)
    painted = np.where(ratio[..., None] < 1, dark, light)
    mixed = rgb * (1 - main.weight[..., None]) + painted * main.weight[..., None]
    return np.concatenate([(np.clip(mixed, 0, 1) * 255 + 0.5).astype(np.uint8), rgba[..., 3:]], -1)


def moved(rgba: NDArray[np.uint8], rng: random.Random, *, mirror: bool) -> NDArray[np.uint8]:
    """Shifted by up to 3 px, scaled by 0.86 to 1.04, and mirrored half the time."""
    image = Image.fromarray(rgba).convert("RGBa")
    scale, dx, dy = rng.uniform(0.86, 1.04), rng.uniform(-3, 3), rng.uniform(-3, 3)
    middle = image.width / 2
    matrix = (1 / scale, 0, middle - (middle + dx) / scale, 0, 1 / scale, middle - (middle + dy) / scale)
    out = np.asarray(image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC).convert("RGBA"))
    return out[:, ::-1] if mirror and rng.random() < 0.5 else out


def views_of(style: str, noun: str, rgba: NDArray[np.uint8], rng: random.Random) -> list[tuple[View, NDArray[np.uint8]]]:
    """The views of one drawing, as RGB over their ground."""
    mirror, main = noun not in NOT_MIRRORED, dominant(rgba)
    own = (colour_of_name(noun) or main.name) if main else None
    if (noun, own) in unseen():
        own = None
    found = [(View(style, noun, colour=own), flatten(rgba))]
    if mirror:
        found.append((View(style, noun, colour=own), flatten(rgba[:, ::-1])))
    found += [(View(style, noun, colour=own), flatten(moved(rgba, rng, mirror=mirror))) for _ in range(WHITE_VIEWS - len(found))]
    for ground in rng.sample([b for b in BACKGROUNDS if b not in ("white", own)], GROUND_VIEWS):
        found.append((View(style, noun, ground, colour=own), flatten(moved(rgba, rng, mirror=mirror), BACKGROUNDS[ground])))
    if main and noun != "green apple":
        others = [c for c in COLOURS if c != own and (noun, c) not in unseen()]
        for colour in rng.sample(others, RECOLOURS):
            ground = "white" if rng.random() < 0.75 else rng.choice([b for b in BACKGROUNDS if b != colour])
            painted = moved(recolour(rgba, main, colour), rng, mirror=mirror)
            found.append((View(style, noun, ground, colour=colour, recoloured=True), flatten(painted, BACKGROUNDS[ground])))
    return found


def write(work: Path) -> None:
    """Encode every view of every noun to WORK/latents.npz, with the views in WORK/views.json and their pixels in WORK/pixels.npy.

    Validation pairs give one plain view each.
    """
    vae = AutoencoderKL.from_pretrained(work / "vae").eval()
    rng = random.Random(0)
    latents: list[NDArray[np.float16]] = []
    pictures: list[NDArray[np.uint8]] = []  # (N, 64, 64, 3)
    views: list[dict[str, object]] = []
    for style in STYLES:
        drawings = load_drawings(work, style)
        pixels: list[NDArray[np.uint8]] = []
        for noun in NOUNS:
            if noun not in drawings:
                continue
            validation = held_out(style, noun)
            made = [(View(style, noun), flatten(drawings[noun]))] if validation else views_of(style, noun, drawings[noun], rng)
            views += [{**asdict(v), "validation": validation} for v, _ in made]
            pixels += [p for _, p in made]
        pictures.append(np.stack(pixels))
        images: Tensor = torch.from_numpy(pictures[-1]).permute(0, 3, 1, 2).float() / 127.5 - 1
        with torch.autocast("cpu", torch.bfloat16):
            latents.append(encode(vae, images).to(torch.float16).numpy())
        print(f"latents {style}: {len(pixels)} views", flush=True)
    np.savez(work / "latents.npz", latents=np.concatenate(latents))
    np.save(work / "pixels.npy", np.concatenate(pictures))
    (work / "views.json").write_text(json.dumps(views))
    recoloured = sum(bool(v["recoloured"]) for v in views)
    print(f"latents: {len(views)} views, {recoloured} recoloured, {sum(bool(v['validation']) for v in views)} for validation", flush=True)
