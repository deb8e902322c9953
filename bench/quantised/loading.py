"""Peak memory of loading a model of random weights, as it is and quantised, each in a process of its own.

    OMP_NUM_THREADS=1 python -m bench.quantised.loading [FOLDER]     prints the table; the model (1.1 GB in bf16) is made in FOLDER once

Anonymous memory is what a process must have; what is mapped from the file can be dropped and read again, and is beside it.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

UNET: dict[str, Any] = {  # blocks as SDXL's, with fewer layers
    "block_out_channels": [320, 640, 1280],
    "layers_per_block": 1,
    "transformer_layers_per_block": [1, 1, 7],
    "attention_head_dim": [5, 10, 20],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "norm_num_groups": 32,
}
DTYPES = ("bf16", "int8", "fp8", "nf4")
MIB = 2**20


def make(folder: Path) -> Path:
    """An SDXL folder of tests/tiny.py with a UNet of 0.5 billion random weights in bf16."""
    import torch
    from diffusers import UNet2DConditionModel
    from safetensors.torch import save_file

    from tests.tiny import shared_folder

    place = folder / "model"
    if (place / "unet" / "diffusion_pytorch_model.safetensors").is_file():
        return place
    import shutil

    shutil.copytree(shared_folder("sdxl"), place, dirs_exist_ok=True)
    config = json.loads((place / "unet" / "config.json").read_text())
    config |= UNET
    (place / "unet" / "config.json").write_text(json.dumps(config))
    with torch.device("meta"):
        shapes = {name: weight.shape for name, weight in UNet2DConditionModel.from_config(config).state_dict().items()}
    for file in (place / "unet").glob("*.safetensors"):
        file.unlink()
    generator = torch.Generator().manual_seed(0)
    tensors = {name: (torch.rand(shape, generator=generator) * 0.1 - 0.05).to(torch.bfloat16) for name, shape in shapes.items()}
    save_file(tensors, place / "unet" / "diffusion_pytorch_model.safetensors")
    return place


def anonymous() -> int:
    """Bytes of memory of this process that no file is behind."""
    rows = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(rows["RssAnon"].split()[0]) * 1024


def measure(folder: Path, dtype: str) -> dict[str, float]:
    """Load it in this process: bytes of the loaded model, peaks above what there was before, CPU seconds."""
    import torch

    from registry.detect.loading import load_family
    from registry.families import FAMILIES
    from registry.quantised.errors import weight_error

    load_family(FAMILIES["sdxl"], folder, dtype=torch.bfloat16, device="meta", base_config=None, prediction=None)  # all imports
    before, peak, done = anonymous(), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.is_set():
            peak = max(peak, anonymous())
            time.sleep(0.002)

    watcher = threading.Thread(target=watch)
    watcher.start()
    begun = time.process_time()
    given = None if dtype == "bf16" else dtype
    parts = load_family(FAMILIES["sdxl"], folder, dtype=torch.bfloat16, device="cpu", base_config=None, prediction=None, base_dtype=given)
    seconds = time.process_time() - begun
    done.set()
    watcher.join()
    held = sum(tensor.nbytes for tensor in (*parts.denoiser.parameters(), *parts.denoiser.buffers()))
    error = weight_error(parts.denoiser)
    return {
        "held": held,
        "anonymous": peak - before,
        "largest": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "seconds": seconds,
        "error": error.error if error else 0.0,
    }


def main() -> None:
    if len(sys.argv) == 3:
        print(json.dumps(measure(Path(sys.argv[1]), sys.argv[2])))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = make(Path(sys.argv[1] if len(sys.argv) > 1 else scratch))
        print("| kept as | UNet, MiB | peak while loading, anonymous MiB | peak of the process, MiB | weight error | CPU s |")
        print("|---|---|---|---|---|---|")
        for dtype in DTYPES:
            answer = subprocess.run(
                [sys.executable, "-m", "bench.quantised.loading", str(folder), dtype], capture_output=True, text=True, check=True
            )
            found = json.loads(answer.stdout.splitlines()[-1])
            sizes = [f"{found[name] / MIB:,.0f}" for name in ("held", "anonymous", "largest")]
            print(f"| {dtype} | {' | '.join(sizes)} | {found['error']:.2%} | {found['seconds']:.1f} |", flush=True)


if __name__ == "__main__":
    main()
