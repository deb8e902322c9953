"""`python -m train.pocket STAGE --work DIR`: makes pocket from nothing but npm packages. Stages in order: see STAGES."""

import argparse
import importlib
from collections.abc import Callable
from pathlib import Path

STAGES = (
    "gather",
    "tokenizer",
    "vae",
    "latents",
    "denoiser",
    "pack",
    "sheets",
    "controlnet",
    "follows",
    "datasets",
    "drawings",
    "clip",
    "clip_retrieval",
    "clip_bpe",
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m train.pocket", description=__doc__)
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--work", type=Path, required=True, help="folder for packages, drawings, checkpoints (about 1 GB)")
    parser.add_argument("--minutes", type=float, default=12.0, help="wall clock of the vae, denoiser, controlnet and clip stages")
    parser.add_argument("--processes", type=int, default=2, help="processes of one thread each, for the vae and denoiser stages")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    if args.stage in ("vae", "denoiser", "controlnet", "clip"):
        from train.pocket.team import launch

        processes = 1 if args.stage in ("controlnet", "clip") else args.processes
        module = {"clip": "clip.contrast"}.get(args.stage, args.stage)
        launch(importlib.import_module(f"train.pocket.{module}").train, args.work, args.minutes, processes=processes)
    else:
        module, function = {
            "gather": ("sources", "gather"),
            "tokenizer": ("tokenizer", "write"),
            "latents": ("latents", "write"),
            "pack": ("pack", "write"),
            "sheets": ("sheets", "write"),
            "datasets": ("sets", "write"),
            "follows": ("follows", "write"),
            "drawings": ("drawings", "write"),
            "clip_retrieval": ("clip.retrieval", "measure"),
            "clip_bpe": ("tokenizer", "write_clip"),
        }[args.stage]
        stage: Callable[[Path], None] = getattr(importlib.import_module(f"train.pocket.{module}"), function)
        stage(args.work)


if __name__ == "__main__":
    main()
