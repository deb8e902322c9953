"""Small checkpoints for the tests of merging: the keys of Stable Diffusion, tensors of a few numbers."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from registry.formats.atomic_file import write_safetensors
from registry.formats.transformer_file import FileNames
from registry.merging.recipe import Recipe, recipe_of
from tests.tiny import tiny_single_file, transformer_single_file

if TYPE_CHECKING:
    from torch import Tensor

UNET = "model.diffusion_model"
NAMES = [
    f"{UNET}.time_embed.0.weight",
    *(f"{UNET}.input_blocks.{block}.0.weight" for block in range(12)),
    f"{UNET}.middle_block.0.weight",
    *(f"{UNET}.output_blocks.{block}.0.weight" for block in range(12)),
    f"{UNET}.out.2.weight",
    "cond_stage_model.transformer.text_model.final_layer_norm.weight",
    "first_stage_model.decoder.conv_in.weight",
]
POSITIONS = "cond_stage_model.transformer.text_model.embeddings.position_ids"


def tensors(seed: int, *, shape: tuple[int, ...] = (3, 4), dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """A model's tensors: random, with CLIP's integer position ids."""
    generator = torch.Generator().manual_seed(seed)
    values: dict[str, Tensor] = {name: torch.randn(shape, generator=generator).to(dtype) for name in NAMES}
    return values | {POSITIONS: torch.arange(5)[None] + seed}


def written(path: Path, values: Mapping[str, Tensor], **metadata: str) -> Path:
    """The tensors as a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_safetensors(path, values, metadata=metadata)
    return path


def recipe(*sources: Path | str, method: str = "weighted_sum", **settings: object) -> Recipe:
    """A recipe as its YAML would say it."""
    return recipe_of({"method": method, "sources": [str(source) for source in sources], **settings})


def read(path: Path) -> dict[str, Tensor]:
    """All tensors of a file, by the reference library."""
    from safetensors.torch import load_file

    return load_file(path)


def single_file(family: str, folder: Path, out: Path, **way: Any) -> Path:
    """A family's tiny model as one file; of families whose files have a transformer alone, that: in original names or diffusers'."""
    names = transformer_names(family)
    return transformer_single_file(folder, out, names, **way) if names is not None else tiny_single_file(folder, out, family=family)


def transformer_names(family: str) -> FileNames | None:
    """The table by which a family's single files spell its transformer; None for UNets."""
    found = getattr(import_module(f"registry.families.{family}"), "FILE_NAMES", None)
    return found if isinstance(found, FileNames) else None
