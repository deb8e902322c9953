"""Which pair a voter sees next: blind, sides balanced, in random order, some again with the sides swapped.

A pair is two cells of one block, so that prompt, seed and all else are equal. Of several candidates the two whose difference has the widest
interval come next, four times in five, and any two else; of their blocks one that was voted on least.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from random import Random
from typing import Any

from infer.vote.comparison import Block, Comparison, Outcome
from infer.vote.ranking import davidson

REPEATS = 0.1  # of the votes of a voter, on pairs that were seen before
GAP = 8  # votes at least between a pair and its repeat
UNIFORM = 0.2  # of the choices of candidates are free of what the votes say so far
LEAN = 2  # most by which one of two candidates is on the left oftener
FRESH = 5  # votes after which the intervals are computed anew


@dataclass(frozen=True)
class Trial:
    """Two cells to be compared: the candidate on the left, the one on the right, of a block."""

    block: Block
    left: int
    right: int
    repeat: bool = False

    @property
    def pair(self) -> tuple[int, int]:
        return min(self.left, self.right), max(self.left, self.right)

    @property
    def place(self) -> tuple[Block, tuple[int, int]]:
        return self.block, self.pair


class Tallies:
    """The votes of all voters on a comparison, and the width of each pair's interval."""

    def __init__(self, found: Comparison) -> None:
        import numpy

        self.pairs = list(combinations(range(len(found.candidates)), 2))
        self.number = {pair: index for index, pair in enumerate(self.pairs)}
        self._prompts = {prompt: index for index, prompt in enumerate(dict.fromkeys(found.prompts.values()))}
        self._of = found.prompts
        self._table = numpy.zeros((len(self._prompts), len(self.pairs), 3))
        self.on_block: Counter[tuple[Block, tuple[int, int]]] = Counter()
        self.on_prompt: Counter[tuple[str, tuple[int, int]]] = Counter()
        self._candidates = len(found.candidates)
        self._widths: Any = None
        self._since = 0

    def add(self, trial: Trial, choice: str, *, sign: int = 1) -> None:
        """Count a vote that is no repeat; sign -1 takes it back."""
        if trial.repeat:
            return
        winner = {"left": trial.left, "right": trial.right}.get(choice)
        prompt = self._of[trial.block]
        self._table[self._prompts[prompt], self.number[trial.pair], 2 if winner is None else trial.pair.index(winner)] += sign
        self.on_block[trial.place] += sign
        self.on_prompt[prompt, trial.pair] += sign
        self._since += 1

    def prompt_of(self, block: Block) -> str:
        return self._of[block]

    def widths(self) -> Any:
        """(P,): the standard error of each pair's difference."""
        import numpy

        if self._widths is None or self._since >= FRESH:
            found = davidson.fit(self.pairs, self._table.sum(0)[None], self._candidates)
            covariance, _ = davidson.spread(self.pairs, self._table[self._table.sum((1, 2)) > 0], found)
            design = davidson.differences(self.pairs, self._candidates)
            self._widths = numpy.sqrt(numpy.maximum(numpy.einsum("pi,ij,pj->p", design, covariance, design), 0))
            self._since = 0
        return self._widths


def every_place(found: Comparison) -> dict[tuple[int, int], list[Block]]:
    """The blocks of each pair of candidates that has two different images in it."""
    places: dict[tuple[int, int], list[Block]] = {pair: [] for pair in combinations(range(len(found.candidates)), 2)}
    seen: set[tuple[int, frozenset[str]]] = set()  # two images made elsewhere are a pair in every block of their prompt
    for block, row in found.cells.items():
        for one, two in combinations(sorted(row), 2):
            pair = block[0], frozenset((row[one].key, row[two].key))
            outside = row[one].outside is not None and row[two].outside is not None
            if (
                row[one].key != row[two].key
                and row[one].image is not None
                and row[two].image is not None
                and not (outside and pair in seen)
            ):
                seen.add(pair)
                places[one, two].append(block)
    return {pair: blocks for pair, blocks in places.items() if blocks}


def planned_votes(pairs: int, asked: int) -> tuple[int, int]:
    """(fresh pairs, repeats) of a voter who was asked for so many votes, where there are so many pairs."""
    fresh = min(pairs, asked - int(asked * REPEATS) if asked > GAP else asked)
    return fresh, min(round(fresh * REPEATS / (1 - REPEATS)), max(0, fresh - GAP), max(0, asked - fresh))


class Order:
    """The pairs of one voter. `seen` are those voted on before, under the same name."""

    def __init__(
        self, found: Comparison, tallies: Tallies, *, voter: str, seed: int, asked: int, seen: Iterable[Outcome] = (), places: Any = None
    ) -> None:
        self._tallies, self._places = tallies, every_place(found) if places is None else places
        earlier = list(seen)
        self._used = {Trial(one.block, one.left, one.right).place for one in earlier}
        self._random = Random(f"{seed} {voter} {len(earlier)}")
        self._lean: Counter[tuple[int, int]] = Counter()  # how much oftener a pair's first candidate was on the left
        for one in earlier:
            self._lean[min(one.left, one.right), max(one.left, one.right)] += 1 if one.left < one.right else -1
        self._skipped: set[tuple[Block, tuple[int, int]]] = set()
        self._cast: list[Trial] = []  # in this session, in order
        self.fresh, self.repeats = planned_votes(self.left_over(), asked)
        self._repeated: set[tuple[Block, tuple[int, int]]] = set()

    @property
    def total(self) -> int:
        return self.fresh + self.repeats

    @property
    def done(self) -> int:
        return len(self._cast)

    def left_over(self) -> int:
        """Pairs that this voter has not voted on."""
        return sum((block, pair) not in self._used for pair, blocks in self._places.items() for block in blocks)

    def more(self, asked: int) -> None:
        """Go on for so many votes, as far as there are pairs."""
        fresh, repeats = planned_votes(self.left_over(), asked)
        self.fresh += fresh
        self.repeats += repeats

    def next(self) -> Trial | None:
        """The next pair; None when all that were planned are done."""
        again = sum(one.repeat for one in self._cast)
        due = again < self.repeats and (self.done + 1) * self.repeats // max(1, self.total) > again
        if (due or self.done - again >= self.fresh) and again < self.repeats:
            repeat = self._repeat()
            if repeat is not None:
                return repeat
        return self._fresh() if self.done - again < self.fresh else None

    def cast(self, trial: Trial) -> None:
        """The voter voted on this pair."""
        self._cast.append(trial)
        (self._repeated if trial.repeat else self._used).add(trial.place)

    def take_back(self) -> Trial:
        """The last pair, open again."""
        trial = self._cast.pop()
        (self._repeated if trial.repeat else self._used).discard(trial.place)
        return trial

    def skip(self, trial: Trial) -> None:
        """Show this pair again only when there is no other."""
        self._skipped.add(trial.place)
        if not trial.repeat:
            self._lean[trial.pair] -= 1 if trial.left < trial.right else -1

    def _repeat(self) -> Trial | None:
        far = [one for one in self._cast[: len(self._cast) - GAP] if not one.repeat and one.place not in self._repeated | self._skipped]
        if not far:
            return None
        one = self._random.choice(far)
        return Trial(one.block, one.right, one.left, repeat=True)

    def _fresh(self) -> Trial | None:
        for used in (self._used | self._skipped, self._used):
            free = {pair: [block for block in blocks if (block, pair) not in used] for pair, blocks in self._places.items()}
            free = {pair: blocks for pair, blocks in free.items() if blocks}
            if free:
                pair = self._pair(list(free))
                return self._sided(self._block(free[pair], pair), pair)
        return None

    def _pair(self, pairs: Sequence[tuple[int, int]]) -> tuple[int, int]:
        if len(pairs) == 1 or self._random.random() < UNIFORM:
            return self._random.choice(pairs)
        widths = self._tallies.widths()
        wide = [float(widths[self._tallies.number[pair]]) for pair in pairs]
        widest = [pair for pair, width in zip(pairs, wide, strict=True) if width >= max(wide) - 1e-9]
        return self._random.choice(widest)

    def _block(self, blocks: Sequence[Block], pair: tuple[int, int]) -> Block:
        """One that the fewest voted on, of a prompt that the fewest voted on."""
        prompts, on_block = self._tallies.on_prompt, self._tallies.on_block
        counts = [(prompts[self._tallies.prompt_of(block), pair], on_block[block, pair]) for block in blocks]
        fewest = min(counts)
        return self._random.choice([block for block, count in zip(blocks, counts, strict=True) if count == fewest])

    def _sided(self, block: Block, pair: tuple[int, int]) -> Trial:
        """At random, but for a side that one candidate had too often."""
        lean = self._lean[pair]
        first = lean < 0 if abs(lean) >= LEAN else self._random.random() < 0.5
        self._lean[pair] += 1 if first else -1
        return Trial(block, *(pair if first else pair[::-1]))
