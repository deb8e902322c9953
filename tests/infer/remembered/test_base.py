"""The skeletons of bases: the last few are kept, and the oldest goes first."""

from typing import Any

from infer.remembered.base import MOST_SKELETONS, Skeletons


def test_the_last_few_skeletons_are_kept() -> None:
    kept, made = Skeletons(), []

    def get(number: int) -> Any:
        def make() -> Any:
            made.append(number)
            return object()

        return kept.get(number, make)

    first = get(0)
    for number in range(1, MOST_SKELETONS):
        get(number)
    assert get(0) is first and made == list(range(MOST_SKELETONS))
    get(MOST_SKELETONS)  # 1 goes: 0 was used after it
    assert get(0) is first
    get(1)
    assert made[-2:] == [MOST_SKELETONS, 1]
