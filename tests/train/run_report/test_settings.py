"""The command that starts a run again: read by loraloom's own command line it gives the same settings."""

import shlex
from typing import Any

import pytest

from loraloom.commands.train import job
from loraloom.hydra.run import configure
from train.config import TrainConfig, changed
from train.run_report.settings import changed_settings, command_of

CASES: dict[str, dict[str, Any]] = {
    "plain": {"name": "ink", "data.path": "/images/ink set", "steps": 12, "optim.lr": 3e-4, "data.buckets": False},
    "texts": {"data.path": "a, (b) ${c} 'd'", "data.trigger": 'ohwx "style"', "preview.prompts": ["a dog, sitting", 'a "cat" \\', "x${y}"]},
    "lists": {"resolution": [64, 128], "lora.ranks": {"attn1": 4, "conv[12]": 8}, "optim.betas": [0.9, 0.99]},
    "sets": {"data.sets": [{"path": "/cats", "repeats": 2, "weight": 0.5}, {"path": "/dogs, too", "prior": True}]},
}


@pytest.mark.parametrize("case", CASES)
def test_the_command_gives_the_same_settings(case: str) -> None:
    config = changed(TrainConfig(), CASES[case])
    first, second, *words = shlex.split(command_of(config))
    assert (first, second) == ("loraloom", "train")
    assert configure(job(), *words) == config


def test_what_is_a_default_is_left_out() -> None:
    assert changed_settings(TrainConfig()) == {}
    assert changed_settings(changed(TrainConfig(), {"seed": 5, "resume": "latest"})) == {"seed": 5}
