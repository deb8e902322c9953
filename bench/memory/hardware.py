"""The presets conf/hardware/*.yaml, made of what the plan found for each card: never typed.

python -m bench.memory.hardware     writes them from bench/memory/figures.json
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.memory.cards import CARDS, read_figures

FOLDER = Path(__file__).parents[2] / "conf" / "hardware"
TEXT = """\
# @package _global_
# A card with {card} GB: the plan finds the settings for your model. Of the {count} models of docs/memory.md {fit}.
memory: {card}GB # what is sold as {card} GB and has {card} GiB takes memory={card}GiB
precision: bf16
"""


def presets(reported: Mapping[str, Any]) -> dict[str, str]:
    """File name -> text of the preset of every card."""
    texts = {}
    for card in CARDS:
        left_out = [title for title, found in reported.items() if found["cards"][str(card)] is None]
        fit = f"all fit but {', '.join(left_out)}" if left_out else "all fit"
        texts[f"{card}gb.yaml"] = TEXT.format(card=card, count=len(reported), fit=fit)
    return texts


def main() -> None:
    for name, text in presets(read_figures()).items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        print(FOLDER / name)


if __name__ == "__main__":
    main()
