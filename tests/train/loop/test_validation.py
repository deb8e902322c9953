from collections.abc import Callable
from typing import Any

import pytest

from train.config import PreviewConfig, TrainConfig
from train.loop.validation import difference


def test_the_interval_is_that_of_a_paired_t_test() -> None:
    from scipy.stats import ttest_rel

    adapted, base = [1.0, 0.8, 0.9, 1.2, 0.7], [1.1, 1.0, 0.95, 1.25, 0.9]
    found = difference(adapted, base)
    wanted = ttest_rel(adapted, base).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))
    assert found.mean == pytest.approx(-0.12) and found.verdict == "better"


def test_it_cannot_tell_when_the_interval_spans_nothing() -> None:
    assert difference([1.0, 0.8], [0.9, 0.9]).verdict == "cannot tell"
    assert difference([1.0], [2.0]).verdict == "cannot tell"
    assert difference([2.0, 2.1, 2.2], [1.0, 1.1, 1.25]).verdict == "worse"


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 3])
def test_passes_without_gradients_have_the_images_that_the_plan_counts(
    batch_size: int, prepared: Callable[[TrainConfig], Any], settings: Callable[..., TrainConfig]
) -> None:
    """Held-out losses and guided previews: a wider pass would need memory that no stage of the plan has."""
    preview = PreviewConfig(prompts=["a disc", "a red disc", "a hat"], steps=2, guidance=4.0)
    work = prepared(settings(batch_size=batch_size, preview=preview))
    rows: list[int] = []
    work.state.parts.denoiser.register_forward_pre_hook(lambda _module, given: rows.append(given[0].shape[0]))
    work.probe.heldout.table(work.state, model=work.state.model)
    assert max(rows) == work.plan.config.images_a_pass == 2 * batch_size
    rows.clear()
    with work.state.evaluating():
        work.previews.images(work.state)
    assert set(rows) <= {2, 4, 6} and max(rows) == 2 * batch_size
