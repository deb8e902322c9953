"""What a card can train, computed: the settings that the plan finds for every published model, on the meta device.

    python -m bench.memory.table [BUILD ...]     computes these builds (all: a quarter of an hour), and writes the table into docs/memory.md

Nothing is loaded and nothing runs: sizes come from the configs, memory from tracing a step through empty models. COMPUTED, NOT MEASURED.
What was found is kept in bench/memory/figures.json, which conf/hardware/*.yaml are made of too (bench.memory.hardware).
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

from bench.memory.cards import CARDS, FIGURES, MAIN_MEMORY, SMALL_MACHINE, WITHIN, read_figures, table
from bench.memory.published import FOLDERS, Config
from registry.budget.costs import RESERVED
from registry.budget.text import Budget
from registry.families import FAMILIES
from tests.tiny import shared_folder
from train.config import LoraConfig, Precision, TrainConfig
from train.lora import matched, parameter_count, targets_of
from train.plan.estimate import Estimate, Model, Weights
from train.plan.fit import changes_of, search_settings
from train.plan.memory import MemoryPlan, TooLittleMemory
from train.plan.savings import Search
from train.plan.traces import Traces

DOCS = Path(__file__).parents[2] / "docs" / "memory.md"
LORA = LoraConfig(rank=16)
CONFIG = TrainConfig(batch_size=1, lora=LORA, precision=Precision.bf16, memory="12GB")  # one image a pass, previews within the budget


def folder_of(title: str, place: Path) -> Path:
    """A diffusers folder with the published configs and the tiny build's tokenizers; its weights are the tiny ones, and are not read."""
    family, variant, _side, configs = FOLDERS[title]
    tiny = shared_folder(family, **({"variant": variant} if variant else {}))
    folder = place / title.replace(" ", "_")
    shutil.copytree(tiny, folder)
    for component, settings in configs.items():
        file = folder / component if component.endswith(".json") else folder / component / "config.json"
        file.write_text(json.dumps(_merged(json.loads(file.read_text()), settings)))
    return folder


def _merged(own: Mapping[str, Any], settings: Config) -> Config:
    return {**own, **{key: _merged(own.get(key) or {}, value) if isinstance(value, dict) else value for key, value in settings.items()}}


def model_of(title: str, place: Path) -> Model:
    """A published model on a GPU, with a LoRA of rank 16 on its attention layers and AdamW."""
    name, _variant, side, _configs = FOLDERS[title]
    family = FAMILIES[name]
    parts = family.load(folder_of(title, place), dtype=torch.float32, device="meta")
    for tokenizer in parts.tokenizers.values():  # a text fills what the published tokenizer holds
        tokenizer.model_max_length = 512 if "T5" in type(tokenizer).__name__ or tokenizer.model_max_length > 77 else 77
    targets = targets_of(family, "attention")
    return Model(
        weights=Weights(family, parts, Precision.bf16),
        traces=Traces(family, parts, targets, Precision.bf16, side),
        count=parameter_count(parts.denoiser, matched(parts.denoiser, targets), LORA),
        moments=2.0,  # AdamW's
        device=torch.device("cuda"),  # in arithmetic alone
        process=0,
    )


def figures(title: str, place: Path) -> dict[str, Any]:
    """What the plan finds for each card, and the least memory that does."""
    begun = time.perf_counter()
    model = model_of(title, place)
    found: dict[str, Any] = {"family": model.weights.family.name, "side": model.traces.side, "cards": {}}
    found["denoiser"], found["text_encoders"] = model.weights.denoiser(CONFIG), sum(model.weights.encoders(CONFIG).values())
    for card in CARDS:
        found["cards"][str(card)] = answer(model, int(card * 1e9), MAIN_MEMORY)
    found["small_machine"] = answer(model, int(WITHIN * 1e9), SMALL_MACHINE)
    found["least"] = least(model)
    print(f"{title}: {time.perf_counter() - begun:.0f} s", file=sys.stderr, flush=True)
    return found


def answer(model: Model, budget: int, main_memory: int) -> dict[str, Any] | None:
    """What is found for so many bytes; None where nothing fits."""
    try:
        return _json(model, found(model, budget, main_memory))
    except TooLittleMemory:
        return None


def least(model: Model) -> dict[str, Any]:
    """The least memory that does, and its settings."""
    try:
        return _json(model, found(model, 1, None))
    except TooLittleMemory as error:
        return _json(model, error.plan)


def found(model: Model, budget: int, main_memory: int | None) -> MemoryPlan:
    return search_settings(CONFIG, model, _as_it_is, Budget(budget), search=Search(frozenset()), reserved=RESERVED, main_memory=main_memory)


def _as_it_is(_config: TrainConfig, traced: Estimate) -> Estimate:
    return traced


def _json(model: Model, made: MemoryPlan) -> dict[str, Any]:
    changes = changes_of(CONFIG, made)
    blocks = changes.get("swap_blocks", 0)
    values = made.found.chosen.values
    host = model.weights.swap(_config(values), blocks)
    return {"peak": made.peak, "stage": made.stage, "changes": changes, "blocks": len(host.sizes), "host": host.host_bytes}


def _config(values: Mapping[str, Any]) -> TrainConfig:
    return TrainConfig(base_dtype=values["base_dtype"], text_encoder_dtype=values["text_encoder_dtype"])


def main() -> None:
    wanted = sys.argv[1:] or [title for title, (family, *_rest) in FOLDERS.items() if family in FAMILIES]
    reported = read_figures() if FIGURES.exists() else {}
    for title in wanted:
        with tempfile.TemporaryDirectory() as place:
            reported[title] = figures(title, Path(place))
        reported = {one: reported[one] for one in FOLDERS if one in reported}
        FIGURES.write_text(json.dumps(reported, indent=1) + "\n")
    text = DOCS.read_text(encoding="utf-8")
    head, start, rest = text.partition("| model | pixels |")
    after = rest.partition("\n\n")[2]
    DOCS.write_text(f"{head}{table(reported)}\n\n{after}" if start else text, encoding="utf-8")
    print(table(reported))


if __name__ == "__main__":
    main()
