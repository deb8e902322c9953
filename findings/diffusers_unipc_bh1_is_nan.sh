#!/usr/bin/env bash
# diffusers 0.42.1: UniPCMultistepScheduler(solver_type="bh1"), which its documentation recommends for fewer than 10 steps, ends in NaN for
# every number of steps, with a perfect denoiser and all other options at their defaults; no error, no warning. So does predict_x0=False.
# The cause: the last sigma is 0 (final_sigmas_type="zero", the default), so h = lambda_t - lambda_s is infinite in the last step;
# bh2 takes expm1(-h) = -1 there, bh1 takes -h. With final_sigmas_type="sigma_min" bh1 is finite.
#
# Seen with torch 2.13.0, diffusers 0.42.1, Python 3.11, data N(1.5, 0.3^2), Stable Diffusion's betas, epsilon prediction:
#   bh2 (default)             8 steps nan=False mean 1.49    20 steps nan=False mean 1.48
#   bh1                       8 steps nan=True               20 steps nan=True
#   bh1, sigma_min            8 steps nan=False mean 1.48    20 steps nan=False mean 1.48
#   predict_x0=False          8 steps nan=True               20 steps nan=True
# What follows for users: bh1 draws black images; leave solver_type at bh2, or end at sigma_min.
# Exits 0 while all four are so, 1 when one of them changed.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
env/bin/python -m pip --disable-pip-version-check install --quiet torch==2.13.0 diffusers==0.42.1 numpy

cat >walk.py <<'PY'
import diffusers
import torch
from diffusers import UniPCMultistepScheduler

MEAN, SPREAD = 1.5, 0.3
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
print("torch", torch.__version__, "diffusers", diffusers.__version__)


def walk(steps, **options):
    """Numbers drawn from seeded noise with the exact epsilon of data N(MEAN, SPREAD^2)."""
    scheduler = UniPCMultistepScheduler(**BETAS, **options)
    scheduler.set_timesteps(steps)
    latents = torch.randn(1, 1, 1, 1000, generator=torch.Generator().manual_seed(0))
    for time in scheduler.timesteps:
        signal = scheduler.alphas_cumprod[int(time)] ** 0.5
        noise = (1 - signal**2) ** 0.5
        clean = MEAN + SPREAD**2 * signal * (latents - signal * MEAN) / ((signal * SPREAD) ** 2 + noise**2)
        latents = scheduler.step((latents - signal * clean) / noise, time, latents).prev_sample
    return latents


for name, options in (
    ("bh2", {}),
    ("bh1", {"solver_type": "bh1"}),
    ("bh1 sigma_min", {"solver_type": "bh1", "final_sigmas_type": "sigma_min"}),
    ("predict_x0=False", {"predict_x0": False}),
):
    for steps in (8, 20):
        drawn = walk(steps, **options)
        print(f"{name}; {steps} steps; nan={bool(drawn.isnan().any())}; mean {float(drawn.mean()):.2f}")
PY
env/bin/python walk.py 2>log.txt | tee seen.txt

changed=0
expect() { # expect LINE COUNT
    if [ "$(grep -c "$1" seen.txt)" = "$2" ]; then echo "as seen: $1"; else echo "CHANGED: $1"; changed=1; fi
}
expect "^bh2; .* nan=False; mean 1.4" 2
expect "^bh1; .* nan=True" 2
expect "^bh1 sigma_min; .* nan=False" 2
expect "^predict_x0=False; .* nan=True" 2
exit "$changed"
