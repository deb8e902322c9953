"""Latents of every build decode to the same bytes once they were kept and read again."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from infer.draw.denoise import Job, denoise, to_image
from infer.draw.samplers import build_scheduler
from infer.stages.latents import LatentsStore
from registry.architectures.vae.override import own_vae
from registry.families import FAMILIES
from tests.tiny import FAMILIES_HERE, SIZES, shared_folder, tiny_parts, tiny_single_file
from tests.tiny_families import builds, module_of

pytestmark = [
    pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:__array:DeprecationWarning"),  # of diffusers' schedulers under numpy 2
]

QUICK = ("flux1", "sana", "qwen_image")


def _params() -> list[Any]:
    every = [*((name, "") for name in FAMILIES_HERE), *builds()]
    return [pytest.param(one, id=" ".join(one).strip(), marks=() if one[0] in QUICK else pytest.mark.slow) for one in every]


@pytest.mark.parametrize("build", _params())
def test_what_was_kept_decodes_to_the_same_bytes(build: tuple[str, str], tmp_path: Path) -> None:
    name, variant = build
    family, parts = tiny_parts(name, **({"variant": variant} if variant else {}))
    side = module_of(name).SIZE if variant else SIZES[name]
    with torch.no_grad():
        job = Job(
            conditional=family.encode_prompts(parts, ["a cat"]),
            unconditional=None,
            guidance=1.0,
            steps=2,
            scheduler=build_scheduler(parts),
            seed=3,
            height=side,
            width=side,
        )
        (drawn,) = denoise(family, parts, [job])
        LatentsStore(tmp_path, most=1 << 20).put("0" * 64, drawn)
        kept = LatentsStore(tmp_path, most=1 << 20).get("0" * 64, parts.device)
        assert kept is not None and kept is not drawn and kept.stride() == drawn.stride()
        (whole,), (decoded,) = to_image(family.decode(parts, drawn)), to_image(family.decode(parts, kept))
    assert decoded.tobytes() == whole.tobytes() and len(set(whole.tobytes())) > 1


def _is_whole(parts: Any, alone: Any) -> bool:
    """Whether the VAE has the numbers that it has when the whole base is loaded."""
    whole = parts.vae.state_dict()
    return whole.keys() == alone.state_dict().keys() and all(
        tensor.equal(whole[name]) and tensor.dtype == whole[name].dtype for name, tensor in alone.state_dict().items()
    )


@pytest.mark.parametrize("build", _params())
def test_the_vae_of_a_base_is_read_alone(build: tuple[str, str]) -> None:
    name, variant = build
    family, parts = tiny_parts(name, **({"variant": variant} if variant else {}))
    empty = family.load(parts.source, dtype=parts.dtype, device="meta")
    assert _is_whole(parts, own_vae(empty, device="cpu")) and empty.denoiser.device.type == "meta"


def test_the_vae_of_a_single_file_is_read_alone(tmp_path: Path) -> None:
    file = tiny_single_file(shared_folder("sd1"), tmp_path / "model.safetensors")
    load = partial(FAMILIES["sd1"].load, file, dtype=torch.bfloat16, base_config=shared_folder("sd1"))
    empty = load(device="meta")
    empty.vae.to(torch.bfloat16)
    assert _is_whole(load(device="cpu"), own_vae(empty, device="cpu"))
