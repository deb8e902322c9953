"""Whole prompts are held out, whatever the order of votes; no image is on both sides."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from registry.errors import Faults, Refused
from registry.progress import silent
from tests.train.preference.voted import PROMPTS, voted_grid
from train.config import HeldoutConfig, TrainConfig
from train.preference.dataset import preference_set
from train.preference.split import groups_of, preference_split

Run = Callable[..., TrainConfig]


def split(config: TrainConfig) -> Any:
    return preference_split(config, preference_set(config, silent), silent)


def prompts(samples: Any) -> set[str]:
    return {sample.caption for sample in samples}


@pytest.mark.parametrize(("share", "held"), [(0.01, 1), (0.25, 1), (0.5, 2), (0.99, 3)])
def test_a_share_of_the_pairs_is_held_out_by_prompt(votes_run: Run, share: float, held: int) -> None:
    found = split(votes_run(heldout=HeldoutConfig(share=share)))
    assert len(prompts(found.heldout)) == held and len(found.heldout) == 2 * held
    assert not prompts(found.train) & prompts(found.heldout) and len(found.train) + len(found.heldout) == 8


def test_folds_hold_out_every_prompt_once(votes_run: Run) -> None:
    parts = [prompts(split(votes_run(heldout=HeldoutConfig(folds=4, fold=fold))).heldout) for fold in range(4)]
    assert set.union(*parts) == set(PROMPTS) and sum(map(len, parts)) == 4


def test_without_any_nothing_is_held_out_and_the_plan_says_what_that_costs(votes_run: Run) -> None:
    found = split(votes_run(heldout=HeldoutConfig()))
    assert not found.heldout and "nobody can say what was learned" in found.source


def test_prompts_that_share_an_image_are_on_one_side(votes_run: Run) -> None:
    samples = list(preference_set(votes_run(), silent).samples)
    assert len(groups_of(samples)) == 4
    other = next(place for place, sample in enumerate(samples) if sample.caption != samples[0].caption)
    samples[other] = replace(samples[other], rejected=samples[0].rejected)
    assert len(groups_of(samples)) == 3
    samples = [
        replace(sample, caption=str(sample.caption).upper() if place % 2 else sample.caption) for place, sample in enumerate(samples)
    ]
    assert len(groups_of(samples)) == 3, "letters' case makes no other prompt"


def test_other_votes_can_be_held_out_but_not_those_on_the_same_prompts(votes_run: Run, grid: Path, tmp_path: Path) -> None:
    other = voted_grid(tmp_path / "other", ["a bus", "a hat"], size=16)
    found = split(votes_run(heldout=HeldoutConfig(path=str(other))))
    assert prompts(found.heldout) == {"a bus", "a hat"} and len(found.train) == 8 and found.notes
    with pytest.raises(Faults, match=r"4 prompts of heldout\.path: (.|\n)*images of 8 pairs"):
        split(votes_run(heldout=HeldoutConfig(path=str(grid))))


def test_one_prompt_cannot_be_divided(votes_run: Run, tmp_path: Path) -> None:
    from train.config import DataConfig

    one = voted_grid(tmp_path / "one", ["a cat"])
    with pytest.raises(Refused, match=r"heldout\.share holds out whole prompts, and the votes are on 1 prompt"):
        split(votes_run(data=DataConfig(preferences=str(one))))
