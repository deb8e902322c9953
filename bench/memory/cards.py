"""The computed answers for each card, read from bench/memory/figures.json and told as a table's cells: no torch here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CARDS = (8, 12, 16, 24, 80)  # GB as sold, 1e9 bytes each
SHOWN = (8, 12, 16, 24)
MAIN_MEMORY = int(0.75 * 64e9)  # for swapped blocks, of a machine with 64 GB
SMALL_MACHINE = int(0.75 * 32e9)  # of one with 32 GB
WITHIN = 12  # GB of the card that is computed beside a small machine
GOALS = {  # GiB, for 1024 px (512 px for SD 1.5)
    "SD 1.5": 3,
    "SDXL": 6,
    "Z-Image": 8,
    "FLUX.2 klein 9B": 8,
    "FLUX.1 dev": 12,
    "Qwen-Image": 12,
    "Krea 2": 12,
    "Chroma1": 12,
}
FIGURES = Path(__file__).parent / "figures.json"
Answer = Mapping[str, Any]


def read_figures() -> dict[str, Any]:
    """What bench.memory.table found last."""
    found: dict[str, Any] = json.loads(FIGURES.read_text(encoding="utf-8"))
    return found


def gib(count: float) -> str:
    return f"{count / 2**30:.1f}"


def cell(answer: Answer | None) -> str:
    """gc, swap 45 (17), text int8: what is chosen, in short; `as it is` where nothing has to change, `no` where nothing fits."""
    if answer is None:
        return "no"
    changes = answer["changes"]
    words = []
    if changes.get("preview.vae_tiling"):
        words.append("tiles")
    if dtype := changes.get("base_dtype"):
        words.append(dtype)
    if changes.get("gradient_checkpointing"):
        words.append("gc")
    if changes.get("offload_activations"):
        words.append("offload")
    if count := changes.get("swap_blocks"):
        words.append(f"swap {count} of {answer['blocks']} ({gib(answer['host'])})")
    if dtype := changes.get("text_encoder_dtype"):
        words.append(f"text {dtype}")
    return ", ".join(words) or "as it is"


def row(title: str, found: Mapping[str, Any]) -> str:
    """One line of the table."""
    least = found["least"]
    cells = [title, str(found["side"]), gib(found["denoiser"]), gib(found["text_encoders"]), f"**{gib(least['peak'])}**: {cell(least)}"]
    cells += [cell(found["cards"][str(card)]) for card in SHOWN]
    cells += [cell(found["small_machine"])]
    return f"| {' | '.join(cells)} |"


def table(reported: Mapping[str, Any]) -> str:
    """The table of docs/memory.md."""
    head = "| model | pixels | denoiser | text encoders | least memory, and with what |"
    head += "".join(f" {card} GB |" for card in SHOWN) + f" {WITHIN} GB, 32 GB of main memory |"
    line = "|" + "---|" * (6 + len(SHOWN))
    return "\n".join([head, line, *(row(title, found) for title, found in reported.items())])


def goals(reported: Mapping[str, Any]) -> dict[str, tuple[int, float, bool]]:
    """Title -> (goal in GiB, least memory in GiB, whether it is met)."""
    found = {title: reported[title]["least"]["peak"] / 2**30 for title in GOALS if title in reported}
    return {title: (GOALS[title], least, least <= GOALS[title]) for title, least in found.items()}
