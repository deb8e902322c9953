"""Pairs in order: fair, balanced, each once, a tenth again with the sides swapped, and more where less is known."""

from collections import Counter
from pathlib import Path

from infer.vote.comparison import Comparison, compare
from infer.vote.finished import read_grid
from infer.vote.page.order import GAP, Order, Tallies, Trial, every_place, planned_votes
from tests.infer.vote.made import made_grid


def candidates(folder: Path, names: str, prompts: int = 20, seeds: int = 1) -> Comparison:
    made_grid(folder, {"adapter": [*names], "prompt": [f"p{number}" for number in range(prompts)], "seed": list(range(seeds))})
    return compare([read_grid(folder)], ("adapter",))


def voted(found: Comparison, *, asked: int, voter: str = "anna", seed: int = 0, choice: str = "tie") -> list[Trial]:
    """All pairs that a voter sees who always says the same."""
    tallies = Tallies(found)
    order = Order(found, tallies, voter=voter, seed=seed, asked=asked)
    trials = []
    while (trial := order.next()) is not None:
        order.cast(trial)
        tallies.add(trial, choice)
        trials.append(trial)
    assert len(trials) == order.total
    return trials


def test_each_pair_once_and_a_tenth_again_with_the_sides_swapped(tmp_path: Path) -> None:
    trials = voted(candidates(tmp_path / "g", "ab", prompts=54), asked=60)
    fresh = [one.place for one in trials if not one.repeat]
    again = [(number, one) for number, one in enumerate(trials) if one.repeat]
    assert len(fresh) == len(set(fresh)) == 54 and len(again) == 6
    for number, one in again:
        first = next(place for place, other in enumerate(trials) if other.place == one.place)
        assert number - first > GAP and (one.left, one.right) == (trials[first].right, trials[first].left)
    assert [number for number, _ in again] == [9, 19, 29, 39, 49, 59]


def test_sides_are_balanced(tmp_path: Path) -> None:
    trials = [one for one in voted(candidates(tmp_path / "g", "abc"), asked=60) if not one.repeat]
    for pair in {one.pair for one in trials}:
        sides = [one.left < one.right for one in trials if one.pair == pair]
        assert abs(2 * sum(sides) - len(sides)) <= 2
    runs = [one.left < one.right for one in voted(candidates(tmp_path / "h", "ab", prompts=50), asked=50)]
    assert any(runs[at] == runs[at + 1] for at in range(40)) and any(runs[at] != runs[at + 1] for at in range(40))  # not in turn


def test_the_order_is_random_and_seeded(tmp_path: Path) -> None:
    found = candidates(tmp_path / "g", "abc")
    first = voted(found, asked=30)
    assert voted(found, asked=30) == first
    assert voted(found, asked=30, voter="bob") != first and voted(found, asked=30, seed=1) != first


def test_of_several_candidates_those_with_the_widest_interval_come_next(tmp_path: Path) -> None:
    """a and b have 30 votes between them, c none: nearly every next pair has c in it."""
    found = candidates(tmp_path / "g", "abc", prompts=60)
    tallies = Tallies(found)
    blocks = every_place(found)[0, 1]
    for number, block in enumerate(blocks[:30]):
        tallies.add(Trial(block, 0, 1), "left" if number % 2 else "right")
    widths = tallies.widths()
    assert widths[tallies.number[0, 1]] < widths[tallies.number[0, 2]]
    order = Order(found, tallies, voter="anna", seed=0, asked=20)
    pairs = []
    for _ in range(10):
        trial = order.next()
        assert trial is not None
        order.cast(trial)
        tallies.add(trial, "tie")
        pairs.append(trial.pair)
    assert sum(2 in pair for pair in pairs) >= 8


def test_prompts_that_few_voted_on_come_first(tmp_path: Path) -> None:
    found = candidates(tmp_path / "g", "ab", prompts=10, seeds=3)
    prompts = Counter(dict(one.block[1])["prompt"] for one in voted(found, asked=10) if not one.repeat)
    assert set(prompts.values()) == {1}


def test_skipped_pairs_come_at_the_end(tmp_path: Path) -> None:
    found = candidates(tmp_path / "g", "ab", prompts=5)
    order = Order(found, Tallies(found), voter="anna", seed=0, asked=5)
    first = order.next()
    assert first is not None
    order.skip(first)
    later = []
    while (trial := order.next()) is not None:
        order.cast(trial)
        later.append(trial.place)
    assert later[-1] == first.place and len(set(later)) == 5


def test_planned_votes() -> None:
    assert planned_votes(1000, 60) == (54, 6)
    assert planned_votes(36, 60) == (36, 4)
    assert planned_votes(5, 60) == (5, 0) and planned_votes(100, 8) == (8, 0)
    assert planned_votes(9, 10) == (9, 1)


def test_more_pairs_are_planned_while_there_are_any(tmp_path: Path) -> None:
    found = candidates(tmp_path / "g", "ab", prompts=12)
    tallies = Tallies(found)
    order = Order(found, tallies, voter="anna", seed=0, asked=8)
    for _ in range(8):
        trial = order.next()
        assert trial is not None
        order.cast(trial)
    assert order.next() is None and order.left_over() == 4
    order.more(20)
    assert order.total == 12 and order.next() is not None
