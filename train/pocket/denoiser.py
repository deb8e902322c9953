"""The denoiser and its text encoder, trained together with v-prediction on the encoded views.

Weights are float32; the passes run in bfloat16 on a copy with plain (not fused) attention, which on CPU is about twice as fast as fused bfloat16
attention, whose backward pass is slow, and as float32.
"""

import copy
import json
import os
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from train.pocket.captions import View, caption, load_keywords, with_article
from train.pocket.muon import MuonAdam
from train.pocket.nouns import NOUNS
from train.pocket.pack import pack, scheduler
from train.pocket.team import Clock, Team
from train.pocket.tokenizer import MAX_TOKENS

# B batch, T tokens, H W latent size (16), D text width

WIDTH = 128
BATCH = 40  # a process
NO_CAPTION = 0.1  # for classifier-free guidance
DECAY_FROM = 0.35  # share of the budget after which the learning rate falls in a line
CHECKPOINT_SECONDS, SNAPSHOT_SECONDS = 240, 480


def build_unet() -> UNet2DConditionModel:
    """7.7 M weights; attention at 16x16 too, so that an adapter of the attention layers reaches strokes, not only shapes."""
    unet = UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        block_out_channels=(64, 96, 160),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * 3,
        up_block_types=("CrossAttnUpBlock2D",) * 3,
        cross_attention_dim=WIDTH,
        attention_head_dim=(1, 3, 5),  # diffusers means the NUMBER of heads: 64, 32 and 32 channels each
        norm_num_groups=16,
    )
    for name, module in unet.named_modules():
        if name.endswith(("conv2", "proj_out", "conv_out")):  # residual branches start at zero
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
    return unet


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=MAX_TOKENS,
        projection_dim=WIDTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        hidden_act="quick_gelu",
    )
    return CLIPTextModel(config)


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
        told = json.loads((work / "views.json").read_text())
        validation = [i for i, v in enumerate(told) if v["validation"]]
        views = [View(**{k: v[k] for k in ("style", "noun", "background", "colour", "recoloured")}) for v in told]
        training = np.array([i for i, v in enumerate(told) if not v["validation"]])
        weights = np.array([0.6 if views[i].recoloured else 1.1 if views[i].background == "white" else 0.5 for i in training])
        return Views(latents, views, weights / weights.sum(), training, validation)


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
        return (predicted.float() - velocity).pow(2).mean()


@torch.no_grad()
def heldout_loss(model: Model, loss: Loss, data: Views) -> float:
    """Mean loss over the held-out (style, noun) pairs at fixed noise and evenly spread timesteps, with their plain captions."""
    generator = torch.Generator().manual_seed(5)
    count = len(data.validation)
    noise = torch.randn((count, 4, 16, 16), generator=generator)
    timesteps = (torch.arange(count) * 1000 // count)[torch.randperm(count, generator=generator)]
    captions = [f"{data.views[i].style} style, {with_article(NOUNS[data.views[i].noun][0])}" for i in data.validation]
    total = 0.0
    for part in torch.arange(count).split(64):
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


def train(team: Team, work: Path, minutes: float) -> None:
    """Train for `minutes` of wall clock, resuming WORK/denoiser.pt; EMA snapshots go to WORK/snapshots, the newest best one to WORK/early."""
    tokenizer = CLIPTokenizer.from_pretrained(work / "tokenizer")
    data, keywords, loss = Views.load(work), load_keywords(work), Loss(tokenizer)
    model = Model(tokenizer)
    fast = model.quick()
    named = list(model.named_parameters())
    weights, quick_weights = [p for _, p in named], list(fast.parameters())
    optimiser = MuonAdam(named, team, lr=4e-3, adam_lr=2e-3, weight_decay=0.02, adam_names=("embedding", "conv_in", "conv_out"))
    average = copy.deepcopy(model).requires_grad_(False)
    averaged = list(average.parameters())
    step, samples, clock, checkpoint = 0, 0, Clock(minutes), work / "denoiser.pt"
    cpu_before, best = 0.0, float("inf")
    if checkpoint.exists():
        state = torch.load(checkpoint)
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        step, samples, best, cpu_before = state["step"], state["samples"], state["best"], state["cpu_seconds"]
        clock = Clock(minutes, spent_seconds=state["seconds"])
        with torch.no_grad():
            torch._foreach_copy_(quick_weights, weights)
    rng, picks = random.Random(f"{step} {team.rank}"), np.random.default_rng([step, team.rank])
    torch.manual_seed(1000 * (step + 1) + team.rank)
    if team.leads:
        count = sum(p.numel() for p in weights)
        print(f"denoiser {count / 1e6:.2f} M weights, {len(data.training)} views, {len(data.validation)} held-out pairs, from step {step}", flush=True)
    running, begun, saved, snapped = 0.0, step, time.monotonic(), time.monotonic()

    def checkpoint_state() -> dict[str, Any]:
        parts = {"model": model.state_dict(), "average": average.state_dict(), "optimiser": optimiser.state_dict()}
        counts = {"step": step, "samples": samples, "best": best, "seconds": clock.spent_seconds, "cpu_seconds": cpu_before + time.process_time()}
        return {**parts, **counts}

    def snapshot() -> None:
        nonlocal best
        heldout = heldout_loss(average.quick(), loss, data)
        told = {"step": step, "samples": samples, "seconds": clock.spent_seconds, "heldout": heldout}
        (work / "snapshots").mkdir(exist_ok=True)
        parts = {"unet": average.unet.state_dict(), "text_encoder": average.text_encoder.state_dict()}
        save(work / "snapshots" / f"step-{step:06d}.pt", {**parts, **told})
        print(f"denoiser snapshot {json.dumps(told)}", flush=True)
        best = min(best, heldout)
        kept = copy.deepcopy(average)
        pack(work, kept.unet, kept.text_encoder, work / "early")

    while (share := team.agree(clock.share)) < 1:
        rows = picks.choice(data.training, BATCH, p=data.weights)
        views = [data.views[i] for i in rows]
        captions = ["" if rng.random() < NO_CAPTION else caption(v, keywords[v.noun], rng) for v in views]
        timesteps = ((torch.arange(BATCH) + torch.rand(BATCH)) / BATCH * 1000).long().clamp(max=999)[torch.randperm(BATCH)]
        latents = data.latents[rows]
        value = loss(fast, latents, captions, timesteps, torch.randn_like(latents))
        value.backward()  # type: ignore[no-untyped-call]
        for p, q in zip(weights, quick_weights, strict=True):
            p.grad = torch.zeros_like(p) if q.grad is None else q.grad.float()
            q.grad = None
        team.average([p.grad for p in weights if p.grad is not None])
        optimiser.step(schedule(share, step))
        step, samples = step + 1, samples + BATCH * team.size
        with torch.no_grad():
            torch._foreach_copy_(quick_weights, weights)
            torch._foreach_lerp_(averaged, [p.detach() for p in weights], 1 - min(0.999, (step + 1) / (step + 12)))
        running = 0.99 * running + 0.01 * value.item()
        if team.leads and step % 100 == 0:
            mean = running / (1 - 0.99 ** (step - begun))
            cpu = cpu_before + time.process_time()
            print(f"denoiser {clock.spent_seconds:.0f} s step {step} samples {samples} loss {mean:.4f} cpu {cpu:.0f} s", flush=True)
            if step % 400 == 0:
                print(f"denoiser held-out {step} {heldout_loss(average.quick(), loss, data):.4f}", flush=True)
            if time.monotonic() - saved > CHECKPOINT_SECONDS:
                save(checkpoint, checkpoint_state())
                saved = time.monotonic()
            if time.monotonic() - snapped > SNAPSHOT_SECONDS:
                snapshot()
                snapped = time.monotonic()
    if team.leads:
        snapshot()
        save(checkpoint, checkpoint_state())
        print(f"denoiser done: {step} steps, {samples} samples, {clock.spent_seconds:.0f} s", flush=True)
