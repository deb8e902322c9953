"""Pairs that are near in every coordinate: those of all pairs, each once, and few are looked at."""

import numpy
import pytest

from train.data.duplicates import near_points as room
from train.data.duplicates.near_points import near_pairs


def by_all_pairs(points: numpy.ndarray, reach: numpy.ndarray) -> set[tuple[int, int]]:
    return {
        (one, other)
        for one in range(len(points))
        for other in range(one + 1, len(points))
        if (numpy.abs(points[one] - points[other]) <= min(reach[one], reach[other])).all()
    }


@pytest.mark.parametrize("deviations", [(30, 11, 10, 9), (2, 2, 2, 2), (0.5, 0.01, 0, 0), (1, 300, 1, 300), (40,)])
@pytest.mark.parametrize("block", [7, room.BLOCK])
def test_every_pair_comes_once(deviations: tuple[float, ...], block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "BLOCK", block)
    random = numpy.random.default_rng(0)
    points = (random.normal(0, 1, (160, len(deviations))) * deviations).astype(numpy.float32)
    points[::4] = points[::4].round()  # on the edges of cells
    reach = random.uniform(0.1, 3.2, 160).astype(numpy.float32)
    found = [
        (min(pair), max(pair)) for ones, others in near_pairs(points, reach) for pair in zip(ones.tolist(), others.tolist(), strict=True)
    ]
    assert len(found) == len(set(found)) and set(found) == by_all_pairs(points, reach)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_points(count: int) -> None:
    pairs = list(near_pairs(numpy.zeros((count, 3), numpy.float32), numpy.ones(count, numpy.float32)))
    assert sum(len(ones) for ones, _ in pairs) == (count == 2)


def test_the_grid_looks_at_a_number_of_pairs_that_grows_with_the_points() -> None:
    random = numpy.random.default_rng(1)
    points = (random.normal(0, 1, (16_000, 5)) * (31, 11, 10, 9, 8)).astype(numpy.float32)

    def looked_at(count: int) -> int:
        grids: list[int] = []

        class Counting(room._Grid):
            def neighbours(self):  # type: ignore[no-untyped-def]
                for ones, others in super().neighbours():
                    grids.append(len(ones))
                    yield ones, others

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(room, "_Grid", Counting)
            for _ in near_pairs(points[:count], numpy.full(count, 3.2, numpy.float32)):
                pass
        return sum(grids)

    few, many = looked_at(4_000), looked_at(16_000)
    assert many <= 4 * room.ENOUGH * 4_000 and many <= 6 * few
