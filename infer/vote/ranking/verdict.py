"""The ranking in words: who wins, or that the votes cannot tell, and what more votes could show."""

from __future__ import annotations

from collections.abc import Sequence

from infer.vote.ranking.binomial import LEVEL, detectable, votes_needed
from infer.vote.ranking.table import Pair, Table, leaders
from registry.printable import one_line, some

WORTH = 400  # more decisive votes than anybody casts for one question


def verdict(table: Table) -> str:
    """One sentence or two. 'Cannot tell' where no candidate is shown to be better than every other."""
    names = [one_line(one.value) for one in table.candidates]
    if len(table.parts[0]) < 2:
        return "Cannot tell: there are no votes between these candidates."
    top, near = leaders(table)
    part = table.parts[0]
    if len(table.parts) > 1:
        groups = " | ".join(some([names[number] for number in one], 6) for one in table.parts)
        return f"Cannot tell: votes do not connect all candidates ({groups}). Vote on pairs between these groups."
    if len(near) == 1:
        return f"{names[top]} wins{_over(names, top, part)}: {_share(table, top)}."
    text = f"Cannot tell which is better, {_listed([names[number] for number in near])}: {_share(table, top, among=near)}."
    worse = [names[number] for number in part if number not in near]
    return text + (f" Worse than {names[top]}: {some(worse, 6)}." if worse else "")


def worth(table: Table, *, blind: bool = False) -> str:
    """How many more votes could settle what is open, if the difference is as large as it looks; `blind` without a name."""
    if len(table.parts[0]) < 2:
        return "How many votes are needed depends on the difference: 49 decisive votes show a win rate of 70%, 199 one of 60%."
    top, near = leaders(table)
    if len(near) == 1 and len(table.parts) == 1:
        return "More votes are not needed to name the winner."
    pair = _closest(table, top, near)
    if pair is None or pair.p is None:
        return "Vote on pairs between the groups first."
    rate = max(pair.p, 1 - pair.p)
    rivals = max(1, len(near) - 1)
    needed = votes_needed(rate, level=LEVEL / rivals) if rate > 0.5 else None
    cast = (pair.wins + pair.losses) / table.effect
    if needed is None or needed - cast > WORTH:
        return f"More votes are hardly worth it: so small a difference needs more than {WORTH} more decisive votes on this pair."
    left = max(1, round((needed - cast) * table.effect))
    both = " and ".join(one_line(table.candidates[number].value) for number in (pair.a, pair.b))
    between = "the two leading candidates" if blind else both
    return f"About {left} more decisive votes on {between} could settle it, if the difference is as large as it looks."


def preview(votes: int, candidates: int) -> str:
    """What so many decisive votes can detect, before any is cast; the pairs share them, and their tests are adjusted."""
    pairs = candidates * (candidates - 1) // 2
    each = votes // pairs
    found = detectable(each, level=LEVEL / pairs)
    shared = "" if pairs == 1 else f" on each of {pairs} pairs"
    if found is None:
        return f"{each} decisive votes{shared} cannot show any difference (two-sided exact test at {LEVEL:.0%})."
    many = "Ties do not count: cast more where they are many."
    return f"{each} decisive votes{shared} show a win rate of {found:.0%} or more four times in five. {many}"


def _over(names: Sequence[str], top: int, part: Sequence[int]) -> str:
    others = [names[number] for number in part if number != top]
    return f" over {some(others, 6)}"


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}" if len(names) < 7 else some(names, 6)


def _share(table: Table, top: int, *, among: Sequence[int] | None = None) -> str:
    """The closest pair of the first candidate, in numbers."""
    pair = _closest(table, top, table.parts[0] if among is None else among)
    assert pair is not None and pair.p is not None and pair.low is not None and pair.high is not None
    p, low, high = (pair.p, pair.low, pair.high) if pair.a == top else (1 - pair.p, 1 - pair.high, 1 - pair.low)
    name = one_line(table.candidates[top].value)
    rival = one_line(table.candidates[pair.b if pair.a == top else pair.a].value)
    against = "" if len(table.candidates) == 2 else f" against {rival}"
    reach = f"{low:.0%} to {high:.0%} with 95% confidence"
    return f"{name} is preferred in {p:.0%} of decisive votes{against}, {reach}, p {_p(pair.p_value or 0.0)}"


def _closest(table: Table, top: int, among: Sequence[int]) -> Pair | None:
    own = [pair for pair in table.pairs if top in (pair.a, pair.b) and {pair.a, pair.b} <= {top, *among} and pair.p is not None]
    return max(own, key=lambda pair: pair.p_value or 0.0, default=None)


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
