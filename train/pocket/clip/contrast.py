"""pocket's CLIP: an image tower and two projections, so that an image and a prompt of pocket can be compared.

The text tower starts as pocket's own text encoder and learns on; the image tower is a small ViT from scratch. Both learn by the symmetric
loss of CLIP (Radford et al. 2021, figure 3) on the views and captions that the denoiser learns from. Several captions of a batch can be
right for one image ("a cat" beside "noto style, a cat"): such pairs are left out of the loss, being no negatives.

The (style, noun) pairs of latents.held_out are never trained on: retrieval.py measures on them.
"""

import copy
import random
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTextModel, CLIPTokenizer, CLIPVisionConfig

from registry.home import pocket_dir
from train.pocket.captions import BACKGROUNDS, COLOURS, View, caption, load_keywords, style_words
from train.pocket.latents import held_out, views_of
from train.pocket.muon import MuonAdam
from train.pocket.nouns import NOUNS, RARE
from train.pocket.pack import write_without_source
from train.pocket.sources import SIZE_PX, STYLES, flatten, load_drawings
from train.pocket.team import Clock, Team

BATCH = 128
WIDTH, LAYERS, PATCH = 128, 5, 8  # of the image tower
TEXT_SHARE = 0.25  # of the learning rate, for the text tower
DECAY_FROM = 0.3  # share of the time
MEAN, DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # CLIP's own
LR = 3e-3
HOTTEST = 4.6052  # of logit_scale: log 100, as CLIP's

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Views:
    """The training views with their pixels, and the held-out pairs."""

    views: list[View]
    pixels: Pixels  # (N, 64, 64, 3)
    weights: NDArray[np.float64]  # of each view, how often it is drawn
    kept: list[tuple[View, Pixels]]


def load_views(work: Path) -> Views:
    """Every view as latents.write makes them, before they are encoded."""
    rng = random.Random(0)
    views, pixels, kept = [], [], []
    for style in STYLES:
        drawings = load_drawings(work, style)
        for noun in (noun for noun in NOUNS if noun in drawings):
            if held_out(style, noun):
                kept.append((View(style, noun), flatten(drawings[noun])))
                continue
            for view, image in views_of(style, noun, drawings[noun], rng):
                views.append(view)
                pixels.append(image)
    weights = np.array([0.4 if view.noun in RARE else 1.0 for view in views])
    return Views(views, np.stack(pixels), weights / weights.sum(), kept)


def fits(text: str, view: View) -> bool:
    """Whether a caption of the same noun says nothing that is not in this view."""
    grounds = [name for name in sorted(BACKGROUNDS, key=len, reverse=True) if f"{name} background" in text]
    if grounds and grounds[0] != view.background:
        return False
    before = text.split(" background")[0]
    before = before.removesuffix(grounds[0]) if grounds else before
    if any(colour in before.split() and colour != view.colour for colour in COLOURS):
        return False
    styles = [style for style in STYLES if any(word in text for word in style_words(style))]
    return not styles or view.style in styles


def numbers(pixels: Pixels) -> Tensor:
    """(B, 3, 64, 64) as CLIPImageProcessor prepares them."""
    found = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float() / 255
    return (found - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(DEVIATION).view(1, 3, 1, 1)


def varied(pixels: Tensor, rng: random.Random) -> Tensor:
    """Each image turned, moved and scaled a little, lighter or darker, a part of it covered in a third; half of them as soft as what a
    small denoiser draws."""
    count = len(pixels)

    def uniform(low: float, high: float) -> Tensor:
        return torch.tensor([rng.uniform(low, high) for _ in range(count)])

    def some(share: float) -> Tensor:
        return torch.tensor([rng.random() < share for _ in range(count)]).view(-1, 1, 1, 1)

    angle, scale = uniform(-0.2, 0.2), uniform(0.85, 1.2)
    cosine, sine = angle.cos() * scale, angle.sin() * scale
    places = torch.stack([torch.stack([cosine, -sine, uniform(-0.15, 0.15)], 1), torch.stack([sine, cosine, uniform(-0.15, 0.15)], 1)], 1)
    grid = functional.affine_grid(places, list(pixels.shape), align_corners=False)
    moved = functional.grid_sample(pixels, grid, padding_mode="border", align_corners=False)
    soft = functional.interpolate(functional.avg_pool2d(moved, 2), scale_factor=2, mode="bilinear", align_corners=False)
    found = torch.where(some(0.5), soft, moved) * uniform(0.85, 1.15).view(-1, 1, 1, 1) + uniform(-0.15, 0.15).view(-1, 1, 1, 1)
    left, top = uniform(0, 44).view(-1, 1, 1), uniform(0, 44).view(-1, 1, 1)
    rows, columns = torch.arange(SIZE_PX).view(1, -1, 1), torch.arange(SIZE_PX).view(1, 1, -1)
    covered = ((rows >= top) & (rows < top + 20) & (columns >= left) & (columns < left + 20)).unsqueeze(1) & some(0.33)
    return found.masked_fill(covered, 0.0) + 0.05 * torch.randn_like(found)


def build() -> CLIPModel:
    """4 MB in fp16; the text tower has pocket's weights."""
    text = CLIPTextModel.from_pretrained(pocket_dir() / "text_encoder", dtype=torch.float32)
    vision = CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        image_size=SIZE_PX,
        patch_size=PATCH,
        projection_dim=WIDTH,
    )
    config = CLIPConfig(text_config=text.config.to_dict(), vision_config=vision.to_dict(), projection_dim=WIDTH)
    model = CLIPModel(config)
    own = {name.removeprefix("text_model."): value for name, value in text.state_dict().items()}
    model.text_model.load_state_dict(own, strict=False)
    return model


def texts(model: CLIPModel, tokenizer: CLIPTokenizer, captions: list[str]) -> Tensor:
    """(B, D), of length 1."""
    ids = tokenizer(captions, padding=True, truncation=True, max_length=32, return_tensors="pt").input_ids
    return functional.normalize(model.get_text_features(input_ids=ids).pooler_output, dim=-1)


def pictures(model: CLIPModel, pixels: Tensor) -> Tensor:
    """(B, D), of length 1."""
    return functional.normalize(model.get_image_features(pixel_values=pixels).pooler_output, dim=-1)


class Trainer:
    """The state of one training. It goes on from WORK/clip where that is there."""

    def __init__(self, team: Team, work: Path, minutes: float) -> None:
        self.work, self.clock = work, Clock(minutes)
        self.tokenizer = CLIPTokenizer.from_pretrained(pocket_dir() / "tokenizer")
        self.data, self.keywords = load_views(work), load_keywords(work)
        self.model = CLIPModel.from_pretrained(work / "clip", dtype=torch.float32) if (work / "clip").is_dir() else build()
        self.average = copy.deepcopy(self.model).requires_grad_(False)
        named = list(self.model.named_parameters())
        text = [(name, value) for name, value in named if name.startswith("text_model")]
        rest = [(name, value) for name, value in named if not name.startswith("text_model")]
        rates = {"weight_decay": 0.02, "adam_names": ("embedding", "logit_scale")}
        self.optimisers = [
            MuonAdam(rest, team, lr=LR, adam_lr=LR / 2, **rates),  # type: ignore[arg-type]
            MuonAdam(text, team, lr=LR * TEXT_SHARE, adam_lr=LR / 2 * TEXT_SHARE, **rates),  # type: ignore[arg-type]
        ]
        self.step = 0
        self.rng, self.picks = random.Random(1), np.random.default_rng(1)
        torch.manual_seed(1)

    def loss(self) -> Tensor:
        """Of BATCH views with a caption each."""
        rows = self.picks.choice(len(self.data.views), BATCH, p=self.data.weights, replace=False)
        views = [self.data.views[row] for row in rows]
        captions = [caption(view, self.keywords[view.noun], self.rng) for view in views]
        also_right = [
            [i != j and one.noun == other.noun and fits(said, other) for j, other in enumerate(views)]
            for i, (one, said) in enumerate(zip(views, captions, strict=True))
        ]
        images = pictures(self.model, varied(numbers(self.data.pixels[rows]), self.rng))
        scale = self.model.logit_scale.clamp(max=HOTTEST).exp()
        logits = (texts(self.model, self.tokenizer, captions) @ images.T * scale).masked_fill(torch.tensor(also_right), -1e4)
        own = torch.arange(BATCH)
        return (functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)) / 2

    def train_step(self) -> float:
        """One update; the loss."""
        value = self.loss()
        value.backward()  # type: ignore[no-untyped-call]
        share = self.clock.share
        factor = min(1.0, (self.step + 1) / 50) * min(1.0, max(0.02, (1 - share) / (1 - DECAY_FROM)))
        for optimiser in self.optimisers:
            for parameter in (*optimiser.matrices, *optimiser.others):
                parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            optimiser.step(factor)
        self.model.zero_grad()
        self.step += 1
        with torch.no_grad():
            for mine, other in zip(self.average.parameters(), self.model.parameters(), strict=True):
                mine.lerp_(other, 1 - min(0.998, (self.step + 1) / (self.step + 12)))
        return float(value.item())


def train(team: Team, work: Path, minutes: float) -> None:
    """Train for `minutes` of wall clock in one process; the running average of the weights goes to WORK/clip in fp16."""
    trainer = Trainer(team, work, minutes)
    while trainer.clock.share < 1:
        value = trainer.train_step()
        if trainer.step % 100 == 0:
            spent = f"{trainer.clock.spent_seconds:.0f} s, {time.process_time():.0f} CPU-seconds"
            print(f"clip {spent}: step {trainer.step} loss {value:.3f}", flush=True)
            write(trainer.average, trainer.tokenizer, work / "clip")
    write(trainer.average, trainer.tokenizer, work / "clip")
    print(f"clip done: {trainer.step} steps, {trainer.step * BATCH} samples, {time.process_time():.0f} CPU-seconds", flush=True)


def write(model: CLIPModel, tokenizer: CLIPTokenizer, folder: Path) -> None:
    """A folder of transformers in fp16."""
    kept = copy.deepcopy(model).half()
    kept.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for name in ("config.json", "tokenizer_config.json"):
        write_without_source(folder / name)
    size = {"height": SIZE_PX, "width": SIZE_PX}
    CLIPImageProcessor(size={"shortest_edge": SIZE_PX}, crop_size=size, image_mean=MEAN, image_std=DEVIATION).save_pretrained(folder)
