#!/usr/bin/env bash
# diffusers 0.42.1: enable_gradient_checkpointing() leaves some repeated blocks out, without a word. Of UNet2DConditionModel it is the first
# ResNet block of the middle (mid_block.resnets.0), of Lumina2Transformer2DModel every layer of both refiners (noise_refiner, context_refiner):
# they keep their activations, whatever the setting. All other blocks are computed a second time in the backward pass.
#
# Seen with torch 2.13.0, diffusers 0.42.1, transformers 5.23.0, Python 3.11, tiny models with random weights; forward passes of each block in
# one step of training with gradient checkpointing:
#   UNet2DConditionModel       twice: 7 blocks   once: mid_block.resnets.0
#   Lumina2Transformer2DModel  twice: 2 blocks   once: noise_refiner.0, noise_refiner.1, context_refiner.0, context_refiner.1
# What follows for users: an estimate of memory that counts one block of activations is too low by these; code that frees or swaps the weights
# of a block after its forward pass, since it will be computed again, has no second pass to fetch these for.
# Exits 0 while this is so, 1 when it changed.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
env/bin/python -m pip --disable-pip-version-check install --quiet torch==2.13.0 diffusers==0.42.1 transformers==5.23.0 accelerate numpy

cat >counts.py <<'PY'
import re
from collections import Counter

import diffusers
import torch
import transformers

print("torch", torch.__version__, "diffusers", diffusers.__version__, "transformers", transformers.__version__)


def counted(model, blocks, inputs):
    """(blocks that ran twice, blocks that ran once) in a forward and a backward pass with gradient checkpointing."""
    runs = Counter()
    names = [name for name, _ in model.named_modules() if re.fullmatch(blocks, name)]
    for name in names:
        model.get_submodule(name).register_forward_pre_hook(lambda *_, name=name: runs.update([name]))
    model.enable_gradient_checkpointing()
    model.train()
    model(**inputs, return_dict=False)[0].square().mean().backward()
    return [name for name in names if runs[name] == 2], [name for name in names if runs[name] == 1]


torch.manual_seed(0)
unet = diffusers.UNet2DConditionModel(
    sample_size=8,
    block_out_channels=(8, 16),
    layers_per_block=1,
    down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    norm_num_groups=4,
    cross_attention_dim=8,
    attention_head_dim=4,
)
inputs = {"sample": torch.randn(1, 4, 8, 8), "timestep": torch.tensor([5]), "encoder_hidden_states": torch.randn(1, 3, 8)}
unet_twice, unet_once = counted(unet, r"(.*\.)?resnets\.\d+", inputs)
print(f"UNet2DConditionModel       twice: {len(unet_twice)} blocks   once: {', '.join(unet_once)}")

lumina = diffusers.Lumina2Transformer2DModel(
    sample_size=8,
    patch_size=2,
    in_channels=4,
    hidden_size=24,
    num_layers=2,
    num_refiner_layers=2,
    num_attention_heads=3,
    num_kv_heads=1,
    multiple_of=16,
    axes_dim_rope=(4, 2, 2),
    axes_lens=(32, 16, 16),
    cap_feat_dim=16,
)
inputs = {
    "hidden_states": torch.randn(1, 4, 8, 8),
    "timestep": torch.tensor([0.5]),
    "encoder_hidden_states": torch.randn(1, 5, 16),
    "encoder_attention_mask": torch.ones(1, 5, dtype=torch.bool),
}
lumina_twice, lumina_once = counted(lumina, r"(layers|noise_refiner|context_refiner)\.\d+", inputs)
print(f"Lumina2Transformer2DModel  twice: {len(lumina_twice)} blocks   once: {', '.join(lumina_once)}")

same = unet_once == ["mid_block.resnets.0"] and len(unet_twice) == 7
same = same and lumina_once == [f"{name}_refiner.{number}" for name in ("noise", "context") for number in (0, 1)] and len(lumina_twice) == 2
raise SystemExit(0 if same else 1)
PY
env/bin/python counts.py
