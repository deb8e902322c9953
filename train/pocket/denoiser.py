"""The denoiser and its text encoder, trained together with v-prediction on the encoded views.

Weights are float32; the passes run in bfloat16 on a copy with plain attention. On CPU that is about twice as fast as float32, or as
bfloat16 with fused attention, whose backward pass is slow.
"""

import copy
import json
import os
import random
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from train.pocket.captions import DEFAULT_STYLE, View, caption, load_keywords, with_article
from train.pocket.muon import MuonAdam
from train.pocket.networks import build_text_encoder, build_unet
from train.pocket.nouns import NOUNS, RARE, RARE_WEIGHT
from train.pocket.pack import pack, scheduler
from train.pocket.team import Clock, Team
from train.pocket.tokenizer import MAX_TOKENS

# B batch, T tokens, H W latent size (16), D text width

BATCH = 64  # over all processes
NO_CAPTION = 0.1  # for classifier-free guidance
DECAY_FROM = 0.35  # share of the budget after which the learning rate falls in a line
CHECKPOINT_SECONDS, SNAPSHOT_SECONDS = 240, 480


class Model(nn.Module):
    """Both parts as one."""

    def __init__(self, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.unet, self.text_encoder = build_unet(), build_text_encoder(tokenizer)

    def quick(self) -> "Model":
        """A bfloat16 copy with plain attention, for the passes."""
        fast = copy.deepcopy(self).to(torch.bfloat16)
        fast.unet.set_attn_processor(AttnProcessor())
        fast.text_encoder.set_attn_implementation("eager")
        return fast


@dataclass(frozen=True)
class Views:
    """The encoded views that training and validation draw from."""

    latents: Tensor  # (N, 4, 16, 16), unit variance
    views: list[View]
    weights: np.ndarray[Any, np.dtype[np.float64]]  # of the training views, sum 1
    training: np.ndarray[Any, np.dtype[np.int64]]
    validation: list[int]

    @staticmethod
    def load(work: Path) -> "Views":
        with np.load(work / "latents.npz") as z:
            latents = torch.from_numpy(z["latents"]).float()
        rows = json.loads((work / "views.json").read_text())
        validation = [i for i, v in enumerate(rows) if v["validation"]]
        views = [View(**{k: v[k] for k in ("style", "noun", "background", "colour", "recoloured")}) for v in rows]
        training = np.array([i for i, v in enumerate(rows) if not v["validation"]])
        weights = np.array([weight(views[i]) for i in training])
        return Views(latents, views, weights / weights.sum(), training, validation)


def weight(view: View) -> float:
    """How often a view is drawn from the set, relative to others."""
    kind = 0.45 if view.recoloured else 1.1 if view.background == "white" else 0.4
    return kind * (RARE_WEIGHT if view.noun in RARE else 1.0) * (1.6 if view.style == DEFAULT_STYLE else 1.0)


class Loss:
    """v-prediction mean squared error (Salimans and Ho 2022, appendix D)."""

    def __init__(self, tokenizer: CLIPTokenizer) -> None:
        self.tokenizer, self.alphas = tokenizer, scheduler().alphas_cumprod

    def __call__(self, model: Model, latents: Tensor, captions: list[str], timesteps: Tensor, noise: Tensor) -> Tensor:
        alpha = self.alphas[timesteps].view(-1, 1, 1, 1)
        noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
        velocity = alpha.sqrt() * noise - (1 - alpha).sqrt() * latents
        ids = self.tokenizer(captions, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt").input_ids
        states = model.text_encoder(ids)[0]  # (B, T, D)
        dtype = next(model.unet.parameters()).dtype
        predicted = model.unet(noisy.to(dtype), timesteps, states.to(dtype)).sample
        error: Tensor = predicted.float() - velocity
        return error.pow(2).mean()


@torch.no_grad()
def heldout_loss(model: Model, loss: Loss, data: Views) -> float:
    """Mean loss over the held-out (style, noun) pairs at fixed noise and evenly spread timesteps, with their plain captions."""
    generator = torch.Generator().manual_seed(5)
    count = len(data.validation)
    noise = torch.randn((count, 4, 16, 16), generator=generator)
    timesteps = (torch.arange(count) * 1000 // count)[torch.randperm(count, generator=generator)]
    captions = [f"{data.views[i].style} style, {with_article(NOUNS[data.views[i].noun][0])}" for i in data.validation]
    total = 0.0
    for part in torch.split(torch.arange(count), 64):
        rows = [data.validation[i] for i in part.tolist()]
        some = [captions[i] for i in part.tolist()]
        total += float(loss(model, data.latents[rows], some, timesteps[part], noise[part])) * len(rows)
    return total / count


def schedule(share: float, step: int) -> float:
    """Warm-up of 50 steps, level, then a line down to 2 %."""
    return min(1.0, (step + 1) / 50) * min(1.0, max(0.02, (1 - share) / (1 - DECAY_FROM)))


def save(path: Path, state: dict[str, Any]) -> None:
    torch.save(state, path.with_suffix(".tmp"))
    os.replace(path.with_suffix(".tmp"), path)


class Trainer:
    """The state of one training: float32 weights, their bfloat16 copy, their running average, the optimiser and the counts."""

    def __init__(self, team: Team, work: Path, minutes: float) -> None:
        self.team, self.work, self.clock = team, work, Clock(minutes)
        self.tokenizer = CLIPTokenizer.from_pretrained(work / "tokenizer")
        self.data, self.keywords, self.loss = Views.load(work), load_keywords(work), Loss(self.tokenizer)
        self.model = Model(self.tokenizer)
        self.quick = self.model.quick()
        self.average = copy.deepcopy(self.model).requires_grad_(False)
        named = list(self.model.named_parameters())
        self.weights: list[Tensor] = [p for _, p in named]
        self.quick_weights: list[Tensor] = list(self.quick.parameters())
        self.averaged: list[Tensor] = list(self.average.parameters())
        names = ("embedding", "conv_in", "conv_out")
        self.optimiser = MuonAdam(named, team, lr=4e-3, adam_lr=2e-3, weight_decay=0.02, adam_names=names)
        self.step = self.samples = 0
        self.cpu_before = self.running = 0.0
        if (work / "denoiser.pt").exists():
            self.resume(torch.load(work / "denoiser.pt"), minutes)
        self.begun = self.step
        self.rng, self.picks = random.Random(f"{self.step} {team.rank}"), np.random.default_rng([self.step, team.rank])
        torch.manual_seed(1000 * (self.step + 1) + team.rank)

    @torch.no_grad()
    def resume(self, state: dict[str, Any], minutes: float) -> None:
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        if state["optimiser"] is not None:
            self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.samples, self.cpu_before = state["step"], state["samples"], state["cpu_seconds"]
        self.clock = Clock(minutes, spent_seconds=state["seconds"])
        torch._foreach_copy_(self.quick_weights, self.weights)

    def train_step(self, factor: float) -> float:
        """One update on BATCH views, at `factor` times the learning rates; the loss of this process's share of them."""
        count = BATCH // self.team.size
        rows = self.picks.choice(self.data.training, count, p=self.data.weights)
        views = [self.data.views[i] for i in rows]
        captions = ["" if self.rng.random() < NO_CAPTION else caption(v, self.keywords[v.noun], self.rng) for v in views]
        timesteps = ((torch.arange(count) + torch.rand(count)) / count * 1000).long().clamp(max=999)[torch.randperm(count)]
        latents = self.data.latents[rows]
        value = self.loss(self.quick, latents, captions, timesteps, torch.randn_like(latents))
        value.backward()  # type: ignore[no-untyped-call]
        for p, q in zip(self.weights, self.quick_weights, strict=True):
            p.grad = torch.zeros_like(p) if q.grad is None else q.grad.float()
            q.grad = None
        self.team.average([p.grad for p in self.weights if p.grad is not None])
        self.optimiser.step(factor)
        self.step, self.samples = self.step + 1, self.samples + count * self.team.size
        with torch.no_grad():
            torch._foreach_copy_(self.quick_weights, self.weights)
            torch._foreach_lerp_(self.averaged, [p.detach() for p in self.weights], 1 - min(0.998, (self.step + 1) / (self.step + 12)))
        return float(value.item())

    def report(self, value: float) -> None:
        self.running = 0.99 * self.running + 0.01 * value
        if self.step % 100 == 0:
            mean, cpu = self.running / (1 - 0.99 ** (self.step - self.begun)), self.cpu_before + time.process_time()
            counts = f"step {self.step} samples {self.samples} loss {mean:.4f} cpu {cpu:.0f} s"
            print(f"denoiser {self.clock.spent_seconds:.0f} s {counts}", flush=True)
        if self.step % 400 == 0:
            print(f"denoiser held-out {self.step} {heldout_loss(self.average.quick(), self.loss, self.data):.4f}", flush=True)

    def checkpoint(self) -> None:
        parts = {"model": self.model.state_dict(), "average": self.average.state_dict(), "optimiser": self.optimiser.state_dict()}
        times = {"seconds": self.clock.spent_seconds, "cpu_seconds": self.cpu_before + time.process_time()}
        save(self.work / "denoiser.pt", {**parts, **times, "step": self.step, "samples": self.samples})

    def snapshot(self) -> None:
        """Keep the average with its held-out loss, and pack it for early use."""
        facts = {"step": self.step, "samples": self.samples, "seconds": self.clock.spent_seconds}
        facts["heldout"] = heldout_loss(self.average.quick(), self.loss, self.data)
        print(f"denoiser snapshot {json.dumps(facts)}", flush=True)
        (self.work / "snapshots").mkdir(exist_ok=True)
        parts = {"unet": self.average.unet.state_dict(), "text_encoder": self.average.text_encoder.state_dict()}
        save(self.work / "snapshots" / f"step-{self.step:06d}.pt", {**parts, **facts})
        kept = copy.deepcopy(self.average)
        pack(self.work, kept.unet, kept.text_encoder, self.work / "early")


def unpack(work: Path, folder: Path, *, step: int, samples: int, minutes: float) -> None:
    """Lay out WORK so that the training goes on from a packed folder: its tokenizer, its VAE, its weights as model and as average.

    The optimiser starts anew (its moments are not in the folder). The counts are those of the model card.
    """
    for part in ("tokenizer", "vae"):
        shutil.copytree(folder / part, work / part)
    model = Model(CLIPTokenizer.from_pretrained(work / "tokenizer"))
    model.unet.load_state_dict(UNet2DConditionModel.from_pretrained(folder / "unet").state_dict())
    model.text_encoder.load_state_dict(CLIPTextModel.from_pretrained(folder / "text_encoder").float().state_dict())
    weights = model.state_dict()
    counts = {"step": step, "samples": samples, "seconds": minutes * 60, "cpu_seconds": 0.0}
    save(work / "denoiser.pt", {"model": weights, "average": weights, "optimiser": None, **counts})


def train(team: Team, work: Path, minutes: float) -> None:
    """Train for `minutes` of wall clock, resuming WORK/denoiser.pt; EMA snapshots go to WORK/snapshots, the newest also to WORK/early."""
    trainer = Trainer(team, work, minutes)
    if team.leads:
        count, data = sum(p.numel() for p in trainer.weights), trainer.data
        sizes = f"{len(data.training)} views, {len(data.validation)} held-out pairs"
        print(f"denoiser {count / 1e6:.2f} M weights, {sizes}, from step {trainer.step}", flush=True)
    saved = snapped = time.monotonic()
    while (share := team.agree(trainer.clock.share)) < 1:
        value = trainer.train_step(schedule(share, trainer.step))
        if not team.leads:
            continue
        trainer.report(value)
        if time.monotonic() - saved > CHECKPOINT_SECONDS:
            trainer.checkpoint()
            saved = time.monotonic()
        if time.monotonic() - snapped > SNAPSHOT_SECONDS:
            trainer.snapshot()
            snapped = time.monotonic()
    if team.leads:
        trainer.snapshot()
        trainer.checkpoint()
        print(f"denoiser done: {trainer.step} steps, {trainer.samples} samples, {trainer.clock.spent_seconds:.0f} s", flush=True)
