from collections.abc import Callable
from typing import Any

import pytest
import torch

from train.config import TrainConfig
from train.loop.history import parts_of, prompt_share
from train.loop.probes import PROBED, other_captions, probed, probed_points


def test_another_caption_is_never_the_same_text() -> None:
    assert other_captions(["a", "b", "c"]) == [1, 2, 0]
    assert other_captions(["a", "a", "b", "a"]) == [2, 2, 3, 2]
    assert other_captions(["a", "a"]) is None


def test_some_images_are_spread_over_the_set() -> None:
    assert probed(3) == [0, 1, 2] and probed(16) == [0, 2, 4, 6, 8, 10, 12, 14] and len(probed(1000)) == PROBED


def test_the_points_are_spread_over_all_of_them() -> None:
    assert probed_points(4) == [0, 1, 2, 3] and probed_points(11) == [1, 4, 6, 9] and probed_points(16) == [2, 6, 10, 14]


@pytest.mark.slow
def test_the_measure_is_the_table_with_and_without_the_own_caption(
    prepared: Callable[[TrainConfig], Any], settings: Callable[..., TrainConfig]
) -> None:
    work = prepared(settings())
    state, probe = work.state, work.probe
    found = probe.measure(state, model=state.model)
    table = probe.heldout.table(state, model=state.model)
    points = probed_points(table.shape[1])
    assert found["losses"] == table.mean(1).tolist() and found["own"] == table[:, points].mean(1).tolist()
    sizes = [len(part) for part in torch.tensor_split(torch.arange(table.shape[1]), 3)]
    assert sum(band * size for band, size in zip(found["bands"], sizes, strict=True)) / sum(sizes) == pytest.approx(float(table.mean()))
    swapped = probe.heldout.table(state, model=state.model, captions=[1, 2, 0], points=points)
    assert found["others"] == swapped.mean(1).tolist() != found["own"]
    alone = probe.heldout.table(state, model=state.model, images=[2])
    torch.testing.assert_close(alone, table[2:])  # in another batch
    assert found["trained"] == probe.trained.table(state, model=state.model, points=points).mean(1).tolist()
    torch.testing.assert_close(swapped, probe.heldout.table(state, model=state.model, captions=[1, 2, 0])[:, points])


def test_the_prompts_share_is_the_mean_of_the_differences() -> None:
    measured = {"losses": [0.5], "bands": [0.1, 0.2, 0.3], "trained": [0.25, 0.75], "others": [0.9, 0.8], "own": [0.6, 0.3]}
    assert prompt_share(measured) == pytest.approx(0.4)
    assert parts_of(measured) == pytest.approx(
        {"heldout_low": 0.1, "heldout_middle": 0.2, "heldout_high": 0.3, "heldout_trained": 0.5, "prompt_share": 0.4}
    )
