#!/usr/bin/env bash
# bitsandbytes 0.50.2 on the CPU: dequantize_4bit gives wrong weights where a row is no whole number of blocks; no error, no warning.
# quantize_4bit takes the weights in one line, so that a block goes on from one row into the next; the CPU's dequantising kernel begins a new
# block with each row. A matrix of (64, 320) with blocks of 128 (320 is the width of Stable Diffusion's and SDXL's first stage) comes back
# with 2.3 times the error, one of (40, 32) with the default blocks of 64 with four times. Blocks that fill the rows are right, and so are
# matrices whose rows are of an odd length, which take the other implementation.
# The cause: the kernel registered for "bitsandbytes::dequantize_4bit" on the CPU is called with m rows of n and reads absmax by row.
#
# Seen with torch 2.13.0, Python 3.11: relative error of nf4, by dequantize_4bit and by levels[code] * absmax[place // blocksize] of the same state:
#   (64, 320) blocks of 64: 0.092 0.092
#   (64, 320) blocks of 128: 0.223 0.096
#   (64, 384) blocks of 256: 0.194 0.099
#   (40, 32) blocks of 64: 0.378 0.092
# What follows for users: 4-bit models computed on the CPU with such layers draw and train with other weights than on a GPU. Nothing shows it but
# the error. The codes and scales in the file are right: a reader of its own (LoRA Loom has one) gives the weights that were meant.
# Exits 0 while all of it is so, 1 when one part changed.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
env/bin/python -m pip --disable-pip-version-check install --quiet torch==2.13.0 bitsandbytes==0.50.2 numpy

cat >blocks.py <<'PY'
import torch
from bitsandbytes.functional import dequantize_4bit, quantize_4bit

torch.manual_seed(0)
for shape, block in (((64, 320), 64), ((64, 320), 128), ((64, 384), 256), ((40, 32), 64)):
    weight = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    packed, state = quantize_4bit(weight, blocksize=block, quant_type="nf4")
    codes = torch.stack([packed.flatten() >> 4, packed.flatten() & 15], dim=1).flatten().long()
    meant = (state.code[codes] * state.absmax.repeat_interleave(block)).reshape(shape)
    errors = [float((found - weight).norm() / weight.norm()) for found in (dequantize_4bit(packed, state), meant)]
    print(shape, f"blocks of {block}:", "right" if errors[0] < 1.01 * errors[1] else f"{errors[0] / errors[1]:.0f} times the error")
PY

env/bin/python blocks.py 2>errors.txt >seen.txt || { cat errors.txt; exit 1; }
cat seen.txt
diff seen.txt - <<'SEEN'
(64, 320) blocks of 64: right
(64, 320) blocks of 128: 2 times the error
(64, 384) blocks of 256: 2 times the error
(40, 32) blocks of 64: 4 times the error
SEEN
