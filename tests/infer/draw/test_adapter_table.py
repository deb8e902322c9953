"""docs/adapters.md shows what is: some of its rows made again, each by the library that trains the kind."""

from __future__ import annotations

from pathlib import Path

import pytest

PAGE = Path(__file__).parents[3] / "docs" / "adapters.md"
ROWS = (
    "rank and alpha patterns",
    "lora_bias",
    "init olora",
    "KaSA",
    "modules_to_save",
    "AdaLoRA",
    "LoKr",
    "OneTrainer's DoRA (columns)",
    "ComfyUI's extraction (diff_b, norms)",
)


@pytest.mark.slow
@pytest.mark.parametrize("title", ROWS)
def test_a_row_is_what_becomes_of_the_file(title: str, tmp_path: Path) -> None:
    from bench.adapters import dialect_cases, peft_cases
    from bench.adapters.measure import row

    make = {**peft_cases.cases(), **dialect_cases.cases()}[title]
    assert row(title, make, tmp_path, tmp_path / "made") in PAGE.read_text(encoding="utf-8").splitlines()
