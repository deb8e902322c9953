#!/usr/bin/env bash
# bash bench/gpu/run.sh [--dry] [FOLDER]: the tests that need a CUDA device, then the measurements on it, in under eight minutes.
# Needs an environment with loraloom's dev extra: .venv, or PYTHON=... Output lies in FOLDER (default runs/gpu).
# --dry: the same commands on the CPU with tiny models (the tests are collected only), to see that every line runs; no figures.
set -uo pipefail
cd "$(dirname "$0")/../.."

dry=
[ "${1:-}" = --dry ] && { dry=1; shift; }
python=${PYTHON:-.venv/bin/python}
folder=${1:-runs/gpu}
command -v "$python" >/dev/null || { echo "error: there is no $python. Run 'make .venv/.installed-dev', or set PYTHON." >&2; exit 2; }
mkdir -p "$folder"
export HF_HUB_OFFLINE=1 WANDB_MODE=offline
failed=0

# part NAME SECONDS COMMAND...: what fails is noted, and the next part is run all the same.
part() {
    echo "== $1"
    timeout "$2" "${@:3}" 2>&1 | tee "$folder/$1.txt" || failed=1
}

[ -n "$dry" ] || "$python" - <<'END_OF_CHECK' | tee "$folder/device.txt" || exit 2
import sys

import torch

if not torch.cuda.is_available():
    sys.exit(f"error: torch {torch.__version__} sees no CUDA device. Run this on a machine that has one.")
print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, CUDA {torch.version.cuda}")
END_OF_CHECK

gpu_tests=$(grep -rl --include='test_*.py' 'mark\.gpu' tests)  # collecting all of them takes longer than running these
if [ -n "$dry" ]; then
    part tests 150 "$python" -m pytest -q -m gpu --collect-only $gpu_tests
    part steps 200 "$python" -m bench.gpu.steps sdxl swap --dry
    part arithmetic 300 "$python" -m bench.quantised.arithmetic --tiny --rounds 2
else
    part tests 120 "$python" -m pytest -q -n 4 -m gpu $gpu_tests
    part arithmetic 140 "$python" -m bench.quantised.arithmetic --device cuda --compiled
    part steps 200 "$python" -m bench.gpu.steps sdxl swap
fi
exit "$failed"
