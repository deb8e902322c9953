"""Writes a library to scan: many small adapters or a few large checkpoints, with real names and shapes; the tensors are holes.

python bench/registry/library.py FOLDER --adapters 10000
python bench/registry/library.py FOLDER --adapters 10000 --different
python bench/registry/library.py FOLDER --adapters 10000 --different --names
python bench/registry/library.py FOLDER --checkpoints 50
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from registry.formats.safetensors_header import TensorInfo, header_bytes

A_FOLDER = 200  # files
Tensors = dict[str, TensorInfo]

SD1 = [
    (f"{side}.attentions.{layer}", channels)
    for side, channels, layers in (
        *((f"down_blocks.{level}", (320, 640, 1280)[level], 2) for level in range(3)),
        ("mid_block", 1280, 1),
        *((f"up_blocks.{level}", (0, 1280, 640, 320)[level], 3) for level in (1, 2, 3)),
    )
    for layer in range(layers)
]


def modules(family: str) -> Iterator[tuple[str, int, int]]:
    """(module, in, out) of the layers a plain attention LoRA trains."""
    if family == "flux1":
        for block in range(19):
            for name in ("to_q", "to_k", "to_v", "to_out.0"):
                yield f"transformer_blocks.{block}.attn.{name}", 3072, 3072
        return
    for place, channels in SD1:
        for name, into in (("to_q", channels), ("to_k", 0), ("to_v", 0), ("to_out.0", channels)):
            width = into or (768 if family == "sd1" else 2048)
            yield f"{place}.transformer_blocks.0.attn2.{name}", width, channels


def adapter(family: str, dialect: str, rank: int, dtype: str, left_out: Collection[int] = ()) -> Tensors:
    """Name -> dtype and shape of one LoRA file; `left_out` are the numbers of modules that are not in it."""
    tensors: Tensors = {}
    component = "transformer" if family == "flux1" else "unet"
    for number, (module, into, out) in enumerate(modules(family)):
        if number in left_out:
            continue
        kohya = dialect == "kohya"
        name = f"lora_unet_{module.replace('.', '_')}" if kohya else f"{component}.{module}"
        down, up = ("lora_down", "lora_up") if kohya else ("lora_A", "lora_B")
        tensors[f"{name}.{down}.weight"] = TensorInfo(dtype, (rank, into))
        tensors[f"{name}.{up}.weight"] = TensorInfo(dtype, (out, rank))
        if kohya:
            tensors[f"{name}.alpha"] = TensorInfo(dtype, ())
    return tensors


def training_metadata(number: int) -> dict[str, str]:
    """What sd-scripts writes, about 3 KB."""
    tags = {f"tag {word}": random.Random(number * 1000 + word).randrange(1, 60) for word in range(80)}
    return {
        "ss_output_name": f"adapter {number}",
        "ss_network_module": "networks.lora",
        "ss_network_alpha": "8.0",
        "ss_base_model_version": "sd_v1",
        "ss_sd_model_name": f"base {number % 30}",
        "ss_new_sd_model_hash": f"{number % 30:064x}",
        "ss_tag_frequency": json.dumps({"8_set": tags}),
        "ss_dataset_dirs": json.dumps({"8_set": {"n_repeats": 8, "img_count": 60}}),
        "modelspec.title": f"Adapter {number}",
        **{f"ss_setting_{word}": f"value {number}" for word in range(30)},
    }


def write(path: Path, tensors: Mapping[str, TensorInfo], metadata: Mapping[str, str]) -> None:
    """A file with a real header and a hole for its data."""
    raw, order = header_bytes(tensors, metadata)
    end = json.loads(raw[8:])[order[-1]]["data_offsets"][1]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(raw)
        file.truncate(len(raw) + end)


def adapters(folder: Path, count: int, *, different: bool, names: bool) -> None:
    """Adapters of three families, two dialects, four ranks, two dtypes; `different`: hardly two with the same tensors.

    Of 10,000 different ones 240 have the same names; with `names` hardly two have.
    """
    kinds = [
        (family, dialect, rank, dtype)
        for family, dialect in (("sd1", "kohya"), ("sd1", "diffusers"), ("sdxl", "kohya"), ("flux1", "diffusers"))
        for rank in (4, 8, 16, 32)
        for dtype in ("F16", "F32")
    ]
    for number in range(count):
        family, dialect, rank, dtype = kinds[number % len(kinds)]
        left_out = {number % 60} if different else set()
        left_out |= {number // 60 % 61, number // 3600 % 59} if names else set()
        tensors = adapter(family, dialect, rank + number // 60 if different else rank, dtype, left_out)
        write(folder / f"{number // A_FOLDER:03d}" / f"adapter-{number:05d}.safetensors", tensors, training_metadata(number))


def checkpoints(folder: Path, count: int) -> None:
    """Checkpoints with all names and shapes of Stable Diffusion 1.5, 2.1 GB each to look at and nothing on the disk."""
    from bench.merge.models import shapes

    wanted = {name: TensorInfo("F16", shape) for name, shape in shapes("sd15").items()}
    for number in range(count):
        write(folder / f"checkpoint-{number:02d}.safetensors", wanted, {"modelspec.title": f"Checkpoint {number}"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--adapters", type=int, default=0)
    parser.add_argument("--checkpoints", type=int, default=0)
    parser.add_argument("--different", action="store_true", help="hardly two adapters with the same tensors")
    parser.add_argument("--names", action="store_true", help="hardly two adapters with the same names of tensors either")
    arguments = parser.parse_args()
    adapters(arguments.folder, arguments.adapters, different=arguments.different, names=arguments.names)
    if arguments.checkpoints:
        checkpoints(arguments.folder, arguments.checkpoints)


if __name__ == "__main__":
    main()
