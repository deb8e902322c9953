from collections import Counter

import pytest

from train.loop.batches import Batch, Order

THREE = ((0, 1, 2, 3, 4), (5, 6), (7,))


def test_one_size_is_an_endless_order_of_whole_epochs() -> None:
    order = Order(0, (tuple(range(7)),), 2)
    stream = [item for number in range(14) for item in order.batch(number)]
    epochs = [stream[start : start + 7] for start in (0, 7, 14, 21)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs) and epochs[0] != epochs[1]


def test_several_sizes_are_never_mixed_and_short_batches_are_kept() -> None:
    order = Order(3, THREE, 2)
    assert order.batches == 5  # 2 + 2 + 1, 2, 1
    for epoch in range(3):
        batches = [order.batch(number) for number in range(5 * epoch, 5 * epoch + 5)]
        assert sorted(item for batch in batches for item in batch) == list(range(8))
        assert all(any(set(batch) <= set(group) for group in THREE) for batch in batches)
        assert sorted(map(len, batches)) == [1, 1, 2, 2, 2]
    assert [order.batch(n) for n in range(5)] != [order.batch(n) for n in range(5, 10)]


def test_repeats_are_shown_so_often_in_every_epoch() -> None:
    order = Order(0, ((0, 0, 0, 1), (2, 2)), 4)
    assert Counter(item for number in range(2) for item in order.batch(number)) == {0: 3, 1: 1, 2: 2}


@pytest.mark.parametrize("groups", [(tuple(range(8)),), THREE])
def test_processes_and_accumulated_passes_take_the_same_batches_in_turn(groups: tuple[tuple[int, ...], ...]) -> None:
    alone, shared = Order(1, groups, 2, accumulate=6), Order(1, groups, 2, accumulate=3, processes=2)
    for step in range(4):
        (one, two) = (order.step(step) for order in (alone, shared))
        assert [batch for turn in one for batch in turn] == [batch for turn in two for batch in turn]
        assert [len(turn) for turn in two] == [2, 2, 2]


def test_places_count_the_images_of_the_step() -> None:
    step = Order(3, THREE, 2, accumulate=3).step(1)
    batches: list[Batch] = [batch for turn in step for batch in turn]
    assert [place for batch in batches for place in batch.places] == list(range(sum(len(batch.items) for batch in batches)))


def test_an_order_does_not_depend_on_what_was_asked_before() -> None:
    first, second = Order(5, THREE, 2), Order(5, THREE, 2)
    backwards = [second.batch(number) for number in reversed(range(40))]
    assert [first.batch(number) for number in range(40)] == backwards[::-1]


def test_steps_of_epochs() -> None:
    assert Order(0, THREE, 2).epoch_steps == 5.0 and Order(0, (tuple(range(6)),), 4).epoch_steps == 1.5
    assert Order(0, THREE, 2, accumulate=2).steps_for(3) == 8 and Order(0, (tuple(range(6)),), 4).steps_for(3) == 5
