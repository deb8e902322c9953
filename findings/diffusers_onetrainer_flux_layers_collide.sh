#!/usr/bin/env bash
# diffusers 0.42.1: FluxPipeline.lora_state_dict gives several layers of a FLUX LoRA in OneTrainer's names (lora_transformer_...) one key, so
# that all but one of them are lost; no error, no warning. load_lora_weights of such a file then ends in KeyError: 'transformer_blocks.0.weight',
# which names neither the file nor a layer of it. A file of attention layers alone is read whole.
# The cause: _convert_mixture_state_dict_to_diffusers (loaders/lora_conversion_utils.py) names a layer of a block only where its name holds
# "attn_"; the feed-forward, modulation and output layers (ff, ff_context, norm1, norm1_context; proj_mlp, proj_out, norm) are all named
# after their block. Which one stays depends on the order of a set of strings, thus on PYTHONHASHSEED.
#
# Seen with torch 2.13.0, diffusers 0.42.1, peft 0.21.2, transformers 5.23.0, Python 3.11, of every linear layer of a FLUX transformer with one
# double and one single block:
#   all layers: 28 in the file, 21 read
#   attention: 11 in the file, 11 read
#   feed-forward: 4 in the file, 1 read
#   single block: 3 in the file, 1 read
#   load_lora_weights: KeyError: 'transformer_blocks.0.weight'
#   different layers that stay, of 8 hash seeds: 3
# What follows for users: load such files in ComfyUI, or convert them to diffusers' names before diffusers reads them.
# Exits 0 while all of it is so, 1 when one part changed.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
env/bin/python -m pip --disable-pip-version-check install --quiet torch==2.13.0 diffusers==0.42.1 peft==0.21.2 transformers==5.23.0 numpy

cat >layers.py <<'PY'
import sys

import diffusers
import peft
import torch
import transformers
from diffusers import FluxPipeline, FluxTransformer2DModel

SIZES = {"patch_size": 1, "in_channels": 4, "num_layers": 1, "num_single_layers": 1, "attention_head_dim": 16, "num_attention_heads": 2}
WIDTHS = {"joint_attention_dim": 32, "pooled_projection_dim": 32, "axes_dims_rope": [4, 4, 8]}
model = FluxTransformer2DModel(**SIZES, **WIDTHS)
LINEAR = {name: layer.weight.shape for name, layer in model.named_modules() if isinstance(layer, torch.nn.Linear)}


def adapter(*words):
    """A LoRA of rank 2 on the linear layers with one of these words, in OneTrainer's names; each layer has factors of its own value."""
    found = {}
    for number, (name, (rows, columns)) in enumerate(LINEAR.items(), 1):
        if any(word in name for word in words):
            flat = "lora_transformer_" + name.replace(".", "_")
            found[f"{flat}.lora_down.weight"] = torch.full((2, columns), float(number))
            found[f"{flat}.lora_up.weight"] = torch.full((rows, 2), float(number))
            found[f"{flat}.alpha"] = torch.tensor(2.0)
    return found


def factors(words):
    return [float(value[0, 0]) for name, value in FluxPipeline.lora_state_dict(adapter(*words)).items() if name.endswith("lora_A.weight")]


FEED_FORWARD = (".ff.", ".ff_context.")
if sys.argv[1:] == ["stays"]:
    print(*factors(FEED_FORWARD))
    sys.exit()
print("torch", torch.__version__, "diffusers", diffusers.__version__, "peft", peft.__version__, "transformers", transformers.__version__)
SINGLE = ("s.0.proj_mlp", "s.0.proj_out", "s.0.norm.linear")
for title, words in (("all layers", ("",)), ("attention", (".attn.",)), ("feed-forward", FEED_FORWARD), ("single block", SINGLE)):
    print(f"{title}: {len(adapter(*words)) // 3} in the file, {len(factors(words))} read")
NONE = dict.fromkeys(("scheduler", "vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
try:
    FluxPipeline(transformer=model, **NONE).load_lora_weights(adapter(*FEED_FORWARD))
    print("loaded")
except Exception as error:
    print(f"load_lora_weights: {type(error).__name__}: {error}")
PY
env/bin/python layers.py 2>log.txt | tee seen.txt
for seed in 1 2 3 4 5 6 7 8; do PYTHONHASHSEED=$seed env/bin/python layers.py stays 2>>log.txt; done | sort -u >stays.txt
echo "different layers that stay, of 8 hash seeds: $(wc -l <stays.txt)"

changed=0
expect() { # expect LINE
    if grep -qx "$1" seen.txt; then echo "as seen: $1"; else echo "CHANGED: $1"; changed=1; fi
}
expect "all layers: 28 in the file, 21 read"
expect "attention: 11 in the file, 11 read"
expect "feed-forward: 4 in the file, 1 read"
expect "single block: 3 in the file, 1 read"
expect "load_lora_weights: KeyError: 'transformer_blocks.0.weight'"
[ "$(wc -l <stays.txt)" -gt 1 ] || { echo "CHANGED: the same layer stays with every hash seed"; changed=1; }
if grep -qi "lora" log.txt; then echo "CHANGED: something is said of it"; cat log.txt; changed=1; fi
exit "$changed"
