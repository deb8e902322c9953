"""Peak memory of loading models of random weights, as they are, quantised, and out of files that are quantised already.

    OMP_NUM_THREADS=1 python -m bench.quantised.loading [FOLDER]              a UNet (2.1 GB in bf16), quantised as it is read
    OMP_NUM_THREADS=1 python -m bench.quantised.loading --files [FOLDER]      a transformer out of files of every form

Each row is a process of its own; the models are made in FOLDER once. Anonymous memory is what a process must have; what is mapped from the
file can be dropped and read again, and is beside it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
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
DTYPES = ("bf16", "int8", "fp8", "nf4", "nf4-dq")
FORMS = ("bf16", "comfy_new", "Q8_0", "Q4_0", "nf4")
SIZES = {"num_layers": 3, "num_single_layers": 6, "num_attention_heads": 12, "attention_head_dim": 128, "axes_dims_rope": [16, 56, 56]}
MIB = 2**20


def make_unet(folder: Path) -> Path:
    """An SDXL folder of tests/tiny.py with a UNet of 1.1 billion random weights in bf16."""
    import torch
    from diffusers import UNet2DConditionModel
    from safetensors.torch import save_file

    from tests.tiny import shared_folder

    place = folder / "model"
    if (place / "unet" / "diffusion_pytorch_model.safetensors").is_file():
        return place
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


def make_files(folder: Path) -> None:
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


def anonymous() -> int:
    """Bytes of memory of this process that no file is behind."""
    rows = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(rows["RssAnon"].split()[0]) * 1024


def measured(load: Callable[[str], Any]) -> dict[str, float]:
    """Load parts onto the CPU in this process: bytes of the denoiser, the peaks, CPU seconds, and the weight error."""
    from registry.quantised.errors import weight_error

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
    error = weight_error(parts.denoiser)
    return {
        "held": sum(tensor.nbytes for tensor in (*parts.denoiser.parameters(), *parts.denoiser.buffers())),
        "anonymous": peak - before,
        "seconds": seconds,
        "error": error.error if error else 0.0,
    }


def measure(path: Path, dtype: str | None, base_config: Path | None) -> dict[str, float]:
    """Of the UNet's folder in a dtype, or of a transformer's file."""
    import torch

    from registry.detect.loading import load_family
    from registry.families import FAMILIES

    family = FAMILIES["sdxl" if base_config is None else "flux1"]

    def load(device: str) -> Any:
        given = dtype if device == "cpu" else None
        found = load_family(family, path, dtype=torch.bfloat16, device=device, base_config=base_config, prediction=None, base_dtype=given)
        return found

    return measured(load)


def row(*words: str) -> dict[str, float]:
    """What a process of its own measures."""
    command = [sys.executable, "-m", "bench.quantised.loading", "--measure", *words]
    found: dict[str, float] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
    return found


def of_dtypes(folder: Path) -> None:
    """The table of a UNet that is quantised as it is read."""
    place = make_unet(folder)
    print("| kept as | UNet, MiB | peak while loading, anonymous MiB | weight error | CPU s |")
    print("|---|---|---|---|---|")
    for dtype in DTYPES:
        found = row(str(place), dtype)
        sizes = [f"{found[name] / MIB:,.0f}" for name in ("held", "anonymous")]
        print(f"| {dtype} | {' | '.join(sizes)} | {found['error']:.2%} | {found['seconds']:.1f} |", flush=True)


def of_files(folder: Path) -> None:
    """The table of a transformer out of files that are quantised already."""
    make_files(folder)
    print("| file | on the disk, MiB | transformer, MiB | peak while loading, anonymous MiB | CPU s |")
    print("|---|---|---|---|---|")
    for form in FORMS:
        (path,) = folder.glob(f"{form}.*")
        found = row(str(path), "bf16", str(folder / "folder"))
        sizes = [f"{size / MIB:,.0f}" for size in (path.stat().st_size, found["held"], found["anonymous"])]
        print(f"| {form} | {' | '.join(sizes)} | {found['seconds']:.1f} |", flush=True)


def main() -> None:
    words = [word for word in sys.argv[1:] if not word.startswith("--")]
    if "--measure" in sys.argv:
        path, dtype, *config = words
        print(json.dumps(measure(Path(path), None if dtype == "bf16" else dtype, Path(config[0]) if config else None)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        table = of_files if "--files" in sys.argv else of_dtypes
        table(Path(words[0] if words else scratch))


if __name__ == "__main__":
    main()
