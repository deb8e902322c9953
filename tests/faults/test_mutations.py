"""Damaged inputs of every kind end in a result or a refusal, never as a fault of loraloom itself. bench/faults has the long form."""

import os
from pathlib import Path

import pytest

from tests.faults.mutations import run
from tests.faults.targets import TARGETS

SEED = int(os.environ.get("LORALOOM_FAULTS_SEED", "1"))
FEW, SOME, MANY = 10, 20, 200
LIGHT = ("config.yaml", "recipe", "checkpoint state", "cell", "gguf")
QUICK = (
    *LIGHT,
    "adapter",
    "adapter in kohya's names",
    "lycoris",
    "rotations and differences",
    "checkpoint",
    "civitai.info",
    "a1111.json",
)  # ms each


@pytest.mark.parametrize("name", LIGHT)
def test_a_few_of_each(name: str, tmp_path: Path) -> None:
    with TARGETS[name](tmp_path) as target:
        assert run(target, FEW, seed=SEED).faults == []


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_many_of_each(name: str, tmp_path: Path) -> None:
    with TARGETS[name](tmp_path) as target:
        assert run(target, MANY if name in QUICK else SOME, seed=SEED + 1).faults == []


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_the_sound_inputs_are_read(name: str, tmp_path: Path) -> None:
    """What is damaged is an input that is read when it is not: else the damage would not be met."""
    with TARGETS[name](tmp_path) as target:
        tally = run(target.sound(), 3 * len(target.seams), seed=SEED)
        assert tally.faults == [] and tally.outcomes["done"] > 0, tally.outcomes
