"""What a card can train, computed: the plan's own estimate for every published model, on the meta device.

    python -m bench.memory.table [BUILD ...]     prints the table of docs/memory.md; figures are kept in bench/memory/figures.json

Nothing is loaded and nothing runs: sizes come from the configs, memory from tracing a step through empty models. COMPUTED, NOT MEASURED.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from bench.memory.published import FOLDERS, Config
from registry.families import FAMILIES
from tests.tiny import shared_folder
from train.config import LoraConfig, Precision, PreviewConfig, TrainConfig
from train.lora import matched, parameter_count, targets_of
from train.plan.estimate import MIB, Model, Weights, estimate
from train.plan.traces import Traces

CARDS = (12, 16, 24, 80)  # GB as sold
SPARE = 1.2  # GiB that CUDA's context and the allocator's gaps take
HERE = Path(__file__).parent
FIGURES = HERE / "figures.json"
TEXT_TOKENS = {"tokenizer": 77, "tokenizer_2": 77}


def folder_of(title: str, place: Path) -> Path:
    """A diffusers folder with the published configs and the tiny build's tokenizers; its weights are the tiny ones, and are not read."""
    family, variant, _side, configs = FOLDERS[title]
    tiny = shared_folder(family, **({"variant": variant} if variant else {}))
    folder = place / title.replace(" ", "_")
    shutil.copytree(tiny, folder)
    for component, settings in configs.items():
        file = folder / component / "config.json"
        file.write_text(json.dumps(_merged(json.loads(file.read_text()), settings)))
    return folder


def _merged(own: Mapping[str, Any], settings: Config) -> Config:
    return {**own, **{key: _merged(own.get(key) or {}, value) if isinstance(value, dict) else value for key, value in settings.items()}}


def figures(title: str, place: Path) -> dict[str, Any]:
    """Bytes by component and by stage, for one image a pass at rank 16, with and without gradient checkpointing."""
    name, _variant, side, _configs = FOLDERS[title]
    family, found = FAMILIES[name], {}
    folder = folder_of(title, place)
    for checkpointing, pixels in ((False, side), (True, side), (True, side // 2)):
        parts = family.load(folder, dtype=torch.float32, device="meta")
        for tokenizer in parts.tokenizers.values():  # a text fills what the published tokenizer holds
            tokenizer.model_max_length = 512 if "T5" in type(tokenizer).__name__ or tokenizer.model_max_length > 77 else 77
        config = TrainConfig(
            batch_size=1,
            lora=LoraConfig(rank=16),
            gradient_checkpointing=checkpointing,
            precision=Precision.bf16,
            preview=PreviewConfig(prompts=[]),
        )
        targets = targets_of(family, "attention")
        count = parameter_count(parts.denoiser, matched(parts.denoiser, targets), LoraConfig(rank=16))
        begun = time.perf_counter()
        model = Model(
            weights=Weights(family, parts, Precision.bf16),
            traces=Traces(family, parts, targets, Precision.bf16, pixels),
            count=count,
            moments=2.0,  # AdamW's
            device=torch.device("cpu"),
            process=0,
        )
        made = estimate(model, config, images=(1, 0))
        key = f"{pixels}{' checkpointing' if checkpointing else ''}"
        found[key] = {"memory": dict(made.memory), "activations": made.activations, "stages": dict(made.stages)}
        print(f"{title}, {key}: {made.stages} ({time.perf_counter() - begun:.0f} s)", file=sys.stderr, flush=True)
    return {"family": name, "side": side, "settings": found}


def gib(count: float) -> str:
    return f"{count / 1024 / MIB:.1f}"


def row(title: str, reported: Mapping[str, Any]) -> str:
    side, settings = reported["side"], reported["settings"]
    plain, less = settings[f"{side}"], settings[f"{side} checkpointing"]
    memory = less["memory"]
    encoders = sum(size for name, size in memory.items() if name.startswith("text_encoder"))
    denoiser = next(iter(memory.values()))
    cells = [title, str(side), gib(denoiser), gib(encoders), gib(memory["vae"])]
    cells += [gib(plain["stages"]["steps are taken"]), gib(less["stages"]["steps are taken"])]
    cells += [gib(max(less["stages"].values()))]
    return "| " + " | ".join([*cells, *(_fits(card, side, settings) for card in CARDS)]) + " |"


def _fits(card: int, side: int, settings: Mapping[str, Any]) -> str:
    """The easiest settings at which every stage fits the card."""
    room = (card * 1e9 / 2**30 - SPARE) * 2**30
    for key, words in (
        (f"{side}", f"{side}"),
        (f"{side} checkpointing", f"{side}, gc"),
        (f"{side // 2} checkpointing", f"{side // 2}, gc"),
    ):
        if max(settings[key]["stages"].values()) <= room:
            return words
    return "no"


def table(reported: Mapping[str, Any]) -> str:
    head = "| model | pixels | denoiser | text encoders | VAE (fp32) | a step | a step, gc | largest stage, gc |"
    head += "".join(f" {card} GB |" for card in CARDS)
    line = "|" + "---|" * (8 + len(CARDS))
    return "\n".join([head, line, *(row(title, reported[title]) for title in FOLDERS if title in reported)])


def main() -> None:
    wanted = sys.argv[1:] or [title for title, (family, *_rest) in FOLDERS.items() if family in FAMILIES]
    reported = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    with tempfile.TemporaryDirectory() as place:
        for title in wanted:
            reported[title] = figures(title, Path(place))
            FIGURES.write_text(json.dumps(reported, indent=1) + "\n")
    print(table(reported))


if __name__ == "__main__":
    main()
