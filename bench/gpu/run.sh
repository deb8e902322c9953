#!/usr/bin/env bash
# bash bench/gpu/run.sh [FOLDER]: the tests that need a CUDA device, then the measurements on it, in under eight minutes.
# Needs an environment with loraloom's dev extra: .venv, or PYTHON=... Output lies in FOLDER (default runs/gpu).
set -uo pipefail
cd "$(dirname "$0")/../.."

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

gpu_tests() {
    "$python" -m pytest -q -m gpu
    local code=$?
    [ "$code" = 5 ] && echo "the gpu tier has no test yet" && return
    return "$code"
}
export -f gpu_tests
export python

"$python" - <<'END' | tee "$folder/device.txt" || exit 2
import sys

import torch

if not torch.cuda.is_available():
    sys.exit(f"error: torch {torch.__version__} sees no CUDA device. Run this on a machine that has one.")
print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, CUDA {torch.version.cuda}")
END

part tests 240 bash -c gpu_tests
part train 210 "$python" -m bench.train.compare --device cuda --steps 150 --repeats 2
exit "$failed"
