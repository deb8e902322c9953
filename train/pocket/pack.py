"""The finished parts as a diffusers folder in fp16."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from train.pocket.networks import build_text_encoder, build_unet

SOURCE = ("_name_or_path", "is_local", "local_files_only")  # in a config: where and how it was read


def scheduler() -> DDIMScheduler:
    """v-prediction; beta_end is so high that the last timestep holds next to no image: white and black grounds come out clean."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_schedule="scaled_linear",
        beta_start=0.0015,
        beta_end=0.0195,
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        timestep_spacing="trailing",
    )


def pack(work: Path, unet: UNet2DConditionModel, text_encoder: CLIPTextModel, folder: Path) -> None:
    """Write the pipeline to `folder`, replacing what lies there in one rename. The modules given are left in half precision."""
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(work / "vae"),
        text_encoder=text_encoder,
        tokenizer=CLIPTokenizer.from_pretrained(work / "tokenizer"),
        unet=unet,
        scheduler=scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to(dtype=torch.float16)
    fresh = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    pipeline.save_pretrained(fresh)
    for name in ("vocab.json", "merges.txt"):
        shutil.copyfile(work / "tokenizer" / name, fresh / "tokenizer" / name)
    for name in ("unet", "vae"):
        write_without_source(fresh / name / "config.json")
    # transformers opens weights in the dtype its config names, diffusers in float32: without this a plain from_pretrained mixes the two
    config = fresh / "text_encoder" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "dtype": "float32"}, indent=2) + "\n")
    old = folder.with_name(f".{folder.name}.old")
    if folder.exists():
        os.replace(folder, old)
    os.replace(fresh, folder)
    shutil.rmtree(old, ignore_errors=True)


def write_without_source(config: Path) -> None:
    """Take out of a config, and out of those inside it, where the part was once read from: a path of the machine that trained it."""
    plain = _without_source(json.loads(config.read_text()))
    fresh = config.with_suffix(".tmp")
    fresh.write_text(json.dumps(plain, indent=2) + "\n")
    os.replace(fresh, config)


def _without_source(config: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in config.items() if name not in SOURCE}
    return {name: _without_source(value) if isinstance(value, dict) else value for name, value in kept.items()}


def write(work: Path) -> None:
    """Pack the snapshot with the lowest held-out loss to WORK/pocket."""
    best = min((work / "snapshots").glob("*.pt"), key=lambda p: torch.load(p)["heldout"])
    state = torch.load(best)
    unet, text_encoder = build_unet(), build_text_encoder(CLIPTokenizer.from_pretrained(work / "tokenizer"))
    unet.load_state_dict(state["unet"])
    text_encoder.load_state_dict(state["text_encoder"])
    pack(work, unet, text_encoder, work / "pocket")
    print(f"pack: {best.name}, held-out loss {state['heldout']:.4f}", flush=True)
