#!/usr/bin/env bash
# accelerate 1.15.0 on a machine without an accelerator: several processes are one, or do not know of one another, and nothing says so.
# - `accelerate launch --cpu --num_processes 2 script.py` starts one process; so does a config file with distributed_type: MULTI_CPU and
#   num_processes: 2. Its warning lists other values that were not given, and is silent on the number that was.
# - Two processes started by torchrun are each "process 0 of 1" to Accelerator() and PartialState(): both are the main process, train on all
#   of the data, average nothing, and write the same files. With Accelerator(cpu=True), or ACCELERATE_USE_CPU=true, they are 0 and 1 of 2.
# The causes: the launcher has processes of its own for GPUs, TPUs and mpirun alone, else it starts the script once; PartialState takes the
# rank variables of torchrun on a CPU only where `cpu` is set.
#
# Seen with torch 2.13.0, Python 3.11, no GPU (hidden where there is one):
#   accelerate launch --cpu --num_processes 2       0 of 1
#   the same by a config file of MULTI_CPU          0 of 1
#   torchrun --nproc_per_node 2, Accelerator()      0 of 1, 0 of 1
#   the same, Accelerator(cpu=True)                 0 of 2, 1 of 2
# What follows for users: a training script that was tried out on CPUs with "two processes" was tried with one, or with two that overwrote
# one another. Pass cpu=True, and start it by torchrun.
# Exits 0 while all four are so, 1 when one of them changed.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
env/bin/python -m pip --disable-pip-version-check install --quiet torch==2.13.0 accelerate==1.15.0
export CUDA_VISIBLE_DEVICES= OMP_NUM_THREADS=1 HF_HOME="$work/home"
unset ACCELERATE_USE_CPU

cat >script.py <<'PY'
import sys

from accelerate import Accelerator

seen = Accelerator(cpu=True) if "cpu" in sys.argv else Accelerator()
print(f"process {seen.process_index} of {seen.num_processes}\n", end="", flush=True)
PY
cat >multi.yaml <<'YAML'
compute_environment: LOCAL_MACHINE
distributed_type: MULTI_CPU
num_processes: 2
num_machines: 1
machine_rank: 0
mixed_precision: 'no'
use_cpu: true
YAML

changed=0
expect() { # expect NAME LINES COMMAND...: the lines that its processes print, sorted
    local found
    found=$("${@:3}" 2>errors.txt | grep '^process' | sort | paste -sd, -) || true
    if [ "$found" = "$2" ]; then echo "as seen: $1: $found"; else echo "CHANGED: $1: $found, not $2"; changed=1; tail -n 5 errors.txt; fi
}

launch=(env/bin/accelerate launch)
torchrun=(env/bin/python -m torch.distributed.run --standalone --nproc_per_node 2)
expect "accelerate launch --cpu --num_processes 2" "process 0 of 1" "${launch[@]}" --cpu --num_processes 2 script.py cpu
expect "accelerate launch with a config file of MULTI_CPU" "process 0 of 1" "${launch[@]}" --config_file multi.yaml script.py cpu
expect "torchrun, Accelerator()" "process 0 of 1,process 0 of 1" "${torchrun[@]}" script.py
expect "torchrun, Accelerator(cpu=True)" "process 0 of 2,process 1 of 2" "${torchrun[@]}" script.py cpu
exit "$changed"
