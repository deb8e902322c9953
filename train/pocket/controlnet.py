"""A ControlNet (Zhang et al. 2023) for pocket, trained on lines made of pocket's own training drawings; the UNet is frozen.

It starts as a copy of the UNet's down half behind zero convolutions. The passes run in bfloat16, as the denoiser's do.
"""

import copy
import json
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from numpy.typing import NDArray
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from registry.home import pocket_dir
from train.pocket.captions import caption, load_keywords, with_article
from train.pocket.denoiser import Views, save
from train.pocket.lines import hint, reshaped
from train.pocket.muon import MuonAdam
from train.pocket.nouns import NOUNS
from train.pocket.pack import scheduler, write_without_source
from train.pocket.team import Clock, Team
from train.pocket.tokenizer import MAX_TOKENS
from train.pocket.vae import encode

# B batch, T tokens, H W latent size (16), h w pixels (64)

BATCH = 32
RESHAPED = 16  # of a batch: the lines, and not the noun, decide the shape
NO_CAPTION = 0.3  # more than the denoiser's own: what the caption does not say, the lines must
HINT_CHANNELS = (16, 32, 96)  # two halvings: a latent cell of pocket is 4 pixels
EARLY = 0.5  # timesteps are 1000 u^0.5: shapes are decided where much is noise
DECAY_FROM = 0.4  # share of the budget after which the learning rate falls in a line
CHECKPOINT_SECONDS, CHECK_SECONDS = 180, 300


def embedded(work: Path) -> Path:
    """The base to steer: WORK/pocket, or the committed one."""
    return work / "pocket" if (work / "pocket").is_dir() else pocket_dir()


def build(unet: UNet2DConditionModel) -> ControlNetModel:
    """3.4 M weights: a copy of the UNet's down half and middle."""
    torch.manual_seed(0)
    net: ControlNetModel = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=HINT_CHANNELS)
    return net


def quick(module: Any) -> Any:
    """A bfloat16 copy with plain attention, for the passes."""
    fast = copy.deepcopy(module).to(torch.bfloat16)
    fast.set_attn_processor(AttnProcessor())
    return fast


class Base:
    """Pocket's frozen parts, and the loss of a net beside them."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
        self.text_encoder = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32).requires_grad_(False).eval()
        self.unet = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32).requires_grad_(False).eval()
        self.vae = AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=torch.float32).requires_grad_(False).eval()
        self.quick, self.alphas = quick(self.unet), scheduler().alphas_cumprod

    def encode(self, pixels: NDArray[np.uint8]) -> Tensor:
        """(B, h, w, 3) sRGB -> (B, 4, H, W)."""
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
        with torch.autocast("cpu", torch.bfloat16):
            return encode(self.vae, images).float()

    def losses(
        self, net: ControlNetModel | None, latents: Tensor, captions: list[str], timesteps: Tensor, noise: Tensor, hints: Tensor
    ) -> Tensor:
        """(B,) v-prediction mean squared errors, with the hints (B, 3, h, w) in [0, 1] through the net, or without where it is None."""
        alpha = self.alphas[timesteps].view(-1, 1, 1, 1)
        noisy = (alpha.sqrt() * latents + (1 - alpha).sqrt() * noise).bfloat16()  # (B, 4, H, W)
        velocity = alpha.sqrt() * noise - (1 - alpha).sqrt() * latents
        ids = self.tokenizer(captions, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt").input_ids
        states = self.text_encoder(ids)[0].bfloat16()  # (B, T, D)
        steered: dict[str, Any] = {}
        if net is not None:
            down, mid = net(noisy, timesteps, states, controlnet_cond=hints.bfloat16(), return_dict=False)
            steered = {"down_block_additional_residuals": down, "mid_block_additional_residual": mid}
        predicted = self.quick(noisy, timesteps, states, **steered).sample
        error: Tensor = predicted.float() - velocity
        return error.pow(2).mean((1, 2, 3))


def as_hints(lines: list[NDArray[np.uint8]]) -> Tensor:
    """(h, w) lines as (B, 3, h, w) in [0, 1]."""
    return torch.from_numpy(np.stack(lines)).float().div(255)[:, None].expand(-1, 3, -1, -1)


@torch.no_grad()
def heldout_losses(base: Base, net: ControlNetModel, data: Views, pixels: NDArray[np.uint8]) -> dict[str, float]:
    """Mean losses on the held-out (style, noun) pairs: without the net, with each pair's own hint, and with another pair's."""
    generator, rng, count = torch.Generator().manual_seed(5), np.random.default_rng(5), len(data.validation)
    noise = torch.randn((count, 4, 16, 16), generator=generator)
    timesteps = (torch.arange(count) * 1000 // count)[torch.randperm(count, generator=generator)]
    captions = [f"{data.views[i].style} style, {with_article(NOUNS[data.views[i].noun][0])}" for i in data.validation]
    own = as_hints([hint(pixels[i], rng) for i in data.validation])
    cases = {"without": (None, own), "hint": (net, own), "another's": (net, own.roll(count // 2, 0))}
    latents = data.latents[data.validation]
    return {name: float(base.losses(used, latents, captions, timesteps, noise, hints).mean()) for name, (used, hints) in cases.items()}


class Trainer:
    """The state of one training: float32 weights, their bfloat16 copy, their running average, the optimiser and the counts."""

    def __init__(self, team: Team, work: Path, minutes: float) -> None:
        self.work, self.clock = work, Clock(minutes)
        self.base, self.keywords, self.data = Base(embedded(work)), load_keywords(work), Views.load(work)
        self.pixels: NDArray[np.uint8] = np.load(work / "pixels.npy", mmap_mode="r")  # (N, h, w, 3)
        self.net = build(self.base.unet)
        self.quick, self.average = quick(self.net), copy.deepcopy(self.net).requires_grad_(False)
        named = list(self.net.named_parameters())
        self.weights, self.quick_weights = [p for _, p in named], list(self.quick.parameters())
        self.averaged = list(self.average.parameters())
        by_adam = ("conv_in", "conv_out", "controlnet_down_blocks", "controlnet_mid_block")
        self.optimiser = MuonAdam(named, team, lr=2e-3, adam_lr=2e-3, weight_decay=0.01, adam_names=by_adam)
        self.step = self.samples = 0
        self.cpu_before, self.begun, self.running = 0.0, 0, 0.0
        if (work / "controlnet.pt").exists():
            self.resume(torch.load(work / "controlnet.pt"), minutes)
        self.rng, self.picks = random.Random(f"lines {self.step}"), np.random.default_rng([11, self.step])
        torch.manual_seed(1000 * (self.step + 1))

    @torch.no_grad()
    def resume(self, state: dict[str, Any], minutes: float) -> None:
        self.net.load_state_dict(state["net"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.samples, self.cpu_before = state["step"], state["samples"], state["cpu_seconds"]
        self.begun, self.clock = self.step, Clock(minutes, spent_seconds=state["seconds"])
        torch._foreach_copy_(self.quick_weights, [p.detach() for p in self.weights])

    def train_step(self, factor: float) -> None:
        """One update on BATCH views, at `factor` times the learning rates."""
        rows = self.picks.choice(self.data.training, BATCH, p=self.data.weights)
        views = [self.data.views[i] for i in rows]
        captions = ["" if self.rng.random() < NO_CAPTION else caption(v, self.keywords[v.noun], self.rng) for v in views]
        odd = np.stack([reshaped(self.pixels[i], self.picks) for i in rows[:RESHAPED]])
        hints = as_hints([hint(p, self.picks) for p in [*odd, *self.pixels[rows[RESHAPED:]]]])
        spread = ((torch.arange(BATCH) + torch.rand(BATCH)) / BATCH) ** EARLY
        timesteps = (spread * 1000).long().clamp(max=999)[torch.randperm(BATCH)]
        latents = torch.cat([self.base.encode(odd), self.data.latents[rows[RESHAPED:]]])
        value = self.base.losses(self.quick, latents, captions, timesteps, torch.randn_like(latents), hints).mean()
        value.backward()  # type: ignore[no-untyped-call]
        for p, q in zip(self.weights, self.quick_weights, strict=True):
            p.grad = torch.zeros_like(p) if q.grad is None else q.grad.float()
            q.grad = None
        torch.nn.utils.clip_grad_norm_(self.weights, 1.0)
        self.optimiser.step(factor)
        self.step, self.samples, self.running = self.step + 1, self.samples + BATCH, 0.98 * self.running + 0.02 * value.item()
        with torch.no_grad():
            torch._foreach_copy_(self.quick_weights, self.weights)
            torch._foreach_lerp_(self.averaged, [p.detach() for p in self.weights], 1 - min(0.995, (self.step + 1) / (self.step + 12)))
        if self.step % 50 == 0:
            mean, cpu = self.running / (1 - 0.98 ** (self.step - self.begun)), self.cpu_before + time.process_time()
            counts = f"step {self.step} samples {self.samples} loss {mean:.4f} cpu {cpu:.0f} s"
            print(f"controlnet {self.clock.spent_seconds:.0f} s {counts}", flush=True)

    def check(self) -> None:
        """Print the held-out losses of the average and write it to WORK/pocket_lines."""
        losses = heldout_losses(self.base, quick(self.average), self.data, self.pixels)
        print(f"controlnet held-out {json.dumps({'step': self.step, 'samples': self.samples, **losses})}", flush=True)
        pack(self.average, self.work / "pocket_lines")

    def checkpoint(self) -> None:
        parts = {"net": self.net.state_dict(), "average": self.average.state_dict(), "optimiser": self.optimiser.state_dict()}
        times = {"seconds": self.clock.spent_seconds, "cpu_seconds": self.cpu_before + time.process_time()}
        save(self.work / "controlnet.pt", {**parts, **times, "step": self.step, "samples": self.samples})


def pack(net: ControlNetModel, folder: Path) -> None:
    """Write the net to `folder` in fp16, its config without the folder that the UNet was read from."""
    copy.deepcopy(net).half().save_pretrained(folder)
    write_without_source(folder / "config.json")


def schedule(share: float, step: int) -> float:
    """Warm-up of 20 steps, level, then a line down to 2 %."""
    return min(1.0, (step + 1) / 20) * min(1.0, max(0.02, (1 - share) / (1 - DECAY_FROM)))


def train(team: Team, work: Path, minutes: float) -> None:
    """Train for `minutes` of wall clock in one process, resuming WORK/controlnet.pt; the average goes to WORK/pocket_lines."""
    trainer = Trainer(team, work, minutes)
    count = sum(p.numel() for p in trainer.weights)
    print(f"controlnet {count / 1e6:.2f} M weights, {len(trainer.data.training)} views, from step {trainer.step}", flush=True)
    saved = checked = time.monotonic()
    while (share := trainer.clock.share) < 1:
        trainer.train_step(schedule(share, trainer.step))
        if time.monotonic() - saved > CHECKPOINT_SECONDS:
            trainer.checkpoint()
            saved = time.monotonic()
        if time.monotonic() - checked > CHECK_SECONDS:
            trainer.check()
            checked = time.monotonic()
    trainer.checkpoint()
    trainer.check()
    print(f"controlnet done: {trainer.step} steps, {trainer.samples} samples, {trainer.clock.spent_seconds:.0f} s", flush=True)
