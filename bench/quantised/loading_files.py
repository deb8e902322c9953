"""Peak memory of loading a transformer of random weights out of files that are quantised already, each in a process of its own.

OMP_NUM_THREADS=1 python -m bench.quantised.loading_files [FOLDER]     prints the table; the files (0.5 billion weights) are made in FOLDER
"""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from bench.quantised.loading import MIB, anonymous

FORMS = ("bf16", "comfy_new", "Q8_0", "Q4_0", "nf4")
SIZES = {"num_layers": 3, "num_single_layers": 6, "num_attention_heads": 12, "attention_head_dim": 128, "axes_dims_rope": [16, 56, 56]}


def make(folder: Path) -> None:
    """A FLUX.1 folder of tests/tiny.py with a wide transformer's config, and files of it in every form."""
    import gguf
    import torch
    from diffusers import FluxTransformer2DModel
    from gguf import quants
    from safetensors.torch import save_file

    from tests import quantised_files as written
    from tests.tiny import shared_folder

    shutil.copytree(shared_folder("flux1"), folder / "folder", dirs_exist_ok=True)
    config = json.loads((folder / "folder/transformer/config.json").read_text()) | SIZES
    (folder / "folder/transformer/config.json").write_text(json.dumps(config))
    with torch.device("meta"):
        shapes = {name: weight.shape for name, weight in FluxTransformer2DModel.from_config(config).state_dict().items()}
    for form in FORMS:
        path, generator = folder / f"{form}.{'gguf' if form.startswith('Q') else 'safetensors'}", torch.Generator().manual_seed(0)
        if path.exists():
            continue
        writer, tensors = gguf.GGUFWriter(path, "flux", use_temp_file=True) if path.suffix == ".gguf" else None, dict[str, Any]()
        for name, shape in shapes.items():
            weight = torch.rand(shape, generator=generator) * 0.1 - 0.05
            chosen = written.is_layer(name, weight)
            if writer is not None:
                kind = gguf.GGMLQuantizationType[form] if chosen else gguf.GGMLQuantizationType.F32
                writer.add_tensor(name, quants.quantize(weight.numpy(), kind), raw_dtype=kind)
            elif form == "bf16" or not chosen:
                tensors[name] = weight.to(torch.bfloat16)
            else:
                parts, _ = written.FORMS[form][0](weight)
                tensors |= {f"{name.removesuffix('weight')}{ending}": part for ending, part in parts.items()}
        if writer is None:
            save_file(tensors, path)
            continue
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def measure(path: Path, folder: Path) -> dict[str, float]:
    """Load it in this process: bytes of the loaded model, the peak above what there was before, CPU seconds."""
    import torch

    from registry.families import FAMILIES

    def load(device: str) -> Any:
        return FAMILIES["flux1"].load(path, dtype=torch.bfloat16, device=device, base_config=folder)

    load("meta")  # all imports
    before, peak, done = anonymous(), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.is_set():
            peak = max(peak, anonymous())
            time.sleep(0.002)

    watcher = threading.Thread(target=watch)
    watcher.start()
    begun = time.process_time()
    parts = load("cpu")
    seconds = time.process_time() - begun
    done.set()
    watcher.join()
    held = sum(tensor.nbytes for tensor in (*parts.denoiser.parameters(), *parts.denoiser.buffers()))
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"held": held, "anonymous": peak - before, "largest": largest, "seconds": seconds}


def main() -> None:
    if len(sys.argv) == 3:
        print(json.dumps(measure(Path(sys.argv[1]), Path(sys.argv[2]))))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(sys.argv[1] if len(sys.argv) > 1 else scratch)
        make(folder)
        print("| file | on the disk, MiB | transformer, MiB | peak while loading, anonymous MiB | CPU s |")
        print("|---|---|---|---|---|")
        for form in FORMS:
            (path,) = folder.glob(f"{form}.*")
            command = [sys.executable, "-m", "bench.quantised.loading_files", str(path), str(folder / "folder")]
            found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
            sizes = [f"{size / MIB:,.0f}" for size in (path.stat().st_size, found["held"], found["anonymous"])]
            print(f"| {form} | {' | '.join(sizes)} | {found['seconds']:.1f} |", flush=True)


if __name__ == "__main__":
    main()
