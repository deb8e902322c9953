"""The autoencoder: 64x64 RGB <-> 4x16x16 latents of unit variance.

Trained on every training drawing, not only the nouns. A share of each batch is made into black line art (edges and thresholds of the same
training drawings, and their negatives), so that the decoder knows strokes on white although the one line-art style is held out.
"""

import os
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from train.pocket.muon import MuonAdam
from train.pocket.sources import HELD, STYLES, flatten, load_drawings
from train.pocket.team import Clock, Team

# B batch, C channels, H W pixels


def build() -> AutoencoderKL:
    torch.manual_seed(0)
    vae = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(24, 48, 96),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=64,
        mid_block_add_attention=False,
    )
    for name, module in vae.named_modules():
        if name.endswith("conv2") and isinstance(module, torch.nn.Conv2d):  # residual branches start at zero
            torch.nn.init.zeros_(module.weight)
            if module.bias is not None:
                torch.nn.init.zeros_(module.bias)
    return vae


def line_art(rgb: Tensor, alpha: Tensor) -> Tensor:
    """Black strokes or black shapes on white made from colour drawings: (B, 3, H, W) and (B, 1, H, W) in [0, 1] -> (B, 3, H, W)."""
    grey = (rgb * alpha + 1 - alpha).mean(1, keepdim=True)
    count = len(grey)
    reach = int(torch.randint(1, 3, ()))
    spread = F.max_pool2d(grey, 2 * reach + 1, 1, reach) + F.max_pool2d(-grey, 2 * reach + 1, 1, reach)  # local contrast
    strokes = 1 - torch.sigmoid((spread - torch.empty(count, 1, 1, 1).uniform_(0.12, 0.4)) * 24)
    shapes = torch.sigmoid((grey - torch.empty(count, 1, 1, 1).uniform_(0.35, 0.8)) * 24)
    rim = F.max_pool2d(alpha, 2 * reach + 1, 1, reach) + F.max_pool2d(-alpha, 2 * reach + 1, 1, reach)
    outline = torch.minimum(shapes, 1 - torch.sigmoid((rim - 0.5) * 24))
    kind = torch.randint(0, 3, (count, 1, 1, 1))
    drawn = torch.where(kind == 0, strokes, torch.where(kind == 1, shapes, outline))
    drawn = torch.where(torch.rand(count, 1, 1, 1) < 0.15, 1 - drawn, drawn)
    return drawn.expand(-1, 3, -1, -1)


def batch(drawings: Tensor, count: int, size_px: int) -> Tensor:
    """Random training views, (count, 3, size, size) in [-1, 1], of RGBA drawings (N, 4, 64, 64) uint8."""
    picked = drawings[torch.randint(len(drawings), (count,))].float() / 255
    rgb, alpha = picked[:, :3], picked[:, 3:]
    ground = torch.where(torch.rand(count, 1, 1, 1) < 0.5, torch.ones(count, 3, 1, 1), torch.rand(count, 3, 1, 1))
    if torch.rand(()) < 0.3:
        rgb = rgb[:, torch.randperm(3)]
    if torch.rand(()) < 0.1:
        rgb = 1 - rgb
    if torch.rand(()) < 0.1:
        rgb = rgb.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    view = rgb * alpha + ground * (1 - alpha)
    view = torch.where(torch.rand(count, 1, 1, 1) < 0.22, line_art(rgb, alpha), view)
    if torch.rand(()) < 0.4:
        theta = torch.zeros(count, 2, 3)
        zoom, turn = torch.empty(count).uniform_(0.6, 1.25), torch.empty(count).uniform_(-0.3, 0.3)
        theta[:, 0, 0], theta[:, 1, 1] = zoom * turn.cos(), zoom * turn.cos()
        theta[:, 0, 1], theta[:, 1, 0] = -zoom * turn.sin(), zoom * turn.sin()
        theta[:, :, 2] = torch.empty(count, 2).uniform_(-0.3, 0.3)
        view = F.grid_sample(view, F.affine_grid(theta, list(view.shape), align_corners=False), padding_mode="border", align_corners=False)
    if torch.rand(()) < 0.5:
        view = view.flip(-1)
    y, x = torch.randint(0, 64 - size_px + 1, (2,)).tolist()
    return (view[:, :, y : y + size_px, x : x + size_px] * 2 - 1).contiguous()


def edges(a: Tensor, b: Tensor) -> Tensor:
    return (a.diff(dim=-1) - b.diff(dim=-1)).abs().mean() + (a.diff(dim=-2) - b.diff(dim=-2)).abs().mean()


def loss_of(vae: AutoencoderKL, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """(loss, mean squared error): L1 + 2 MSE + edges/2 + coarse L1/2 + 0.001 KL a latent value."""
    with torch.autocast("cpu", torch.bfloat16):
        posterior = vae.encode(pixels).latent_dist
        decoded = vae.decode(posterior.sample()).sample
    error = decoded.float() - pixels
    kl = posterior.kl().mean() / posterior.mean[0].numel()
    squared = error.pow(2).mean()
    coarse = F.avg_pool2d(error, 4).abs().mean()
    return error.abs().mean() + 2 * squared + 0.5 * edges(decoded.float(), pixels) + 0.5 * coarse + 1e-3 * kl, squared


def schedule(share: float, step: int) -> float:
    """Warm-up of 20 steps, then a cosine to 2 %."""
    return min(1.0, (step + 1) / 20) * (0.02 + 0.98 * 0.5 * (1 + float(np.cos(np.pi * min(1.0, share)))))


def train(team: Team, work: Path, minutes: float) -> None:
    """Train for `minutes` of wall clock, resuming WORK/vae.pt; write the EMA, its latents normalised, to WORK/vae."""
    rgba = np.concatenate([np.stack(list(load_drawings(work, s).values())) for s in STYLES])
    drawings = torch.from_numpy(rgba).permute(0, 3, 1, 2).contiguous()
    vae = build()
    named = list(vae.named_parameters())
    weights = [p for _, p in named]
    optimiser = MuonAdam(named, team, lr=6e-3, adam_lr=3e-3, adam_names=("conv_in", "conv_out", "quant_conv"))
    average = [p.detach().clone() for p in weights]
    step, seen, clock, checkpoint = 0, 0, Clock(minutes), work / "vae.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint)
        vae.load_state_dict(state["vae"])
        optimiser.load_state_dict(state["optimiser"])
        average, step, seen, clock = state["average"], state["step"], state["seen"], Clock(minutes, spent_seconds=state["seconds"])
    torch.manual_seed(1000 * (step + 1) + team.rank)
    mse, saved = 0.0, time.monotonic()
    while (share := team.agree(clock.share)) < 1:
        size, count = (32, 12) if share < 0.6 else (64, 4)
        loss, squared = loss_of(vae, batch(drawings, count, size))
        loss.backward()  # type: ignore[no-untyped-call]
        team.average([p.grad for p in weights if p.grad is not None])
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step(schedule(share, step))
        vae.zero_grad()
        step, seen = step + 1, seen + count * team.size
        torch._foreach_lerp_(average, [p.detach() for p in weights], 1 - min(0.998, (step + 1) / (step + 20)))
        mse = 0.98 * mse + 0.02 * squared.item()
        if team.leads and step % 100 == 0:
            print(f"vae {clock.spent_seconds:.0f} s step {step} views {seen} mse {mse:.5f} cpu {time.process_time():.0f} s", flush=True)
        if team.leads and time.monotonic() - saved > 120:
            state = {"vae": vae.state_dict(), "optimiser": optimiser.state_dict(), "average": average, "step": step, "seen": seen}
            torch.save({**state, "seconds": clock.spent_seconds}, checkpoint.with_suffix(".tmp"))
            os.replace(checkpoint.with_suffix(".tmp"), checkpoint)
            saved = time.monotonic()
    if team.leads:
        with torch.no_grad():
            for p, e in zip(weights, average, strict=True):
                p.copy_(e)
        normalise(vae, drawings)
        vae.save_pretrained(work / "vae")
        print(f"vae done: {step} steps, {seen} views, {clock.spent_seconds:.0f} s, cpu {time.process_time():.0f} s a process", flush=True)
        for name, decibels in quality(vae, work).items():
            print(f"vae PSNR {name}: {decibels:.2f} dB", flush=True)


@torch.no_grad()
def encode(vae: AutoencoderKL, pixels: Tensor) -> Tensor:
    """Posterior means, (B, 4, 16, 16)."""
    return torch.cat([vae.encode(p).latent_dist.mean for p in torch.split(pixels, 64)])


@torch.no_grad()
def normalise(vae: AutoencoderKL, drawings: Tensor) -> None:
    """Fold each latent channel's mean and deviation over the drawings into quant_conv and post_quant_conv; scaling_factor becomes 1.

    diffusers' StableDiffusionPipeline scales latents by one number and shifts them by none, so the VAE itself must give them unit variance.
    """
    some = drawings[:: max(1, len(drawings) // 1024)].float() / 255
    latents = encode(vae, (some[:, :3] * some[:, 3:] + 1 - some[:, 3:]) * 2 - 1)
    mean, deviation = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    inward, outward = vae.quant_conv, vae.post_quant_conv
    outward.bias += outward.weight[:, :, 0, 0] @ mean
    outward.weight *= deviation.view(1, -1, 1, 1)
    inward.weight[:4] /= deviation.view(-1, 1, 1, 1)
    inward.bias[:4] = (inward.bias[:4] - mean) / deviation
    inward.bias[4:] -= 2 * deviation.log()  # the posterior's log variance
    vae.register_to_config(scaling_factor=1.0)


@torch.no_grad()
def quality(vae: AutoencoderKL, work: Path, *, count: int = 96) -> dict[str, float]:
    """Peak signal-to-noise ratio in dB on white, for each training style and each held-out set (measured only, never trained on)."""
    found = {}
    for style in (*STYLES, *(p.style for p in HELD)):
        rgba = np.stack(list(load_drawings(work, style).values()))
        pixels = torch.from_numpy(flatten(rgba[:: max(1, len(rgba) // count)][:count])).permute(0, 3, 1, 2).float() / 127.5 - 1
        decoded = torch.cat([vae.decode(z).sample for z in torch.split(encode(vae, pixels), 32)]).clamp(-1, 1)
        found[style] = float(10 * torch.log10(4 / (decoded - pixels).pow(2).mean()))
    return found
