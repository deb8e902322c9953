"""Two candidates: win rates with their intervals, exact tests, and what a number of votes can show."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb, exp, lgamma, log, sqrt

Z = 1.959963984540054  # 97.5 % quantile of the normal distribution
LEVEL = 0.05
POWER = 0.8


def wilson(wins: float, votes: float, *, z: float = Z) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927): the p that a score test does not reject. (0, 1) without votes."""
    if votes <= 0:
        return 0.0, 1.0
    share, factor = wins / votes, z * z / votes
    centre = (share + factor / 2) / (1 + factor)
    reach = z / (1 + factor) * sqrt(share * (1 - share) / votes + factor / (4 * votes))
    return max(0.0, centre - reach), min(1.0, centre + reach)


def sign_test(wins: int, losses: int) -> float:
    """The two-sided p value of a fair coin (exact): 1 without votes."""
    votes, fewer = wins + losses, min(wins, losses)
    tail: int = sum(comb(votes, count) for count in range(fewer + 1))
    return min(1.0, float(2 * tail / 2**votes))


def flip_test(nets: Sequence[int]) -> float:
    """The two-sided p value (exact) of wins minus losses of each prompt, whose signs are a fair coin's where the two are equally good.

    Votes on one prompt may depend on one another. With a single vote a prompt this is the sign test.
    """
    sizes = [abs(net) for net in nets if net]
    ways = {0: 1}  # sum of signed sizes -> number of sign patterns
    for size in sizes:
        more: dict[int, int] = {}
        for total, count in ways.items():
            for signed in (total - size, total + size):
                more[signed] = more.get(signed, 0) + count
        ways = more
    reached = abs(sum(nets))
    extreme: int = sum(count for total, count in ways.items() if abs(total) >= reached)
    return float(extreme / 2 ** len(sizes))


def design_effect(wins: Sequence[float], votes: Sequence[float]) -> float:
    """How many times the variance of a share is that of independent votes; at least 1. A pair of numbers for each prompt.

    Ratio estimator over clusters (Rao & Scott 1992, eq. 2), the share taken as (wins + 1/2) / (votes + 1).
    """
    groups, total = len(votes), sum(votes)
    if groups < 2 or total <= groups:  # a vote a prompt: nothing depends on anything
        return 1.0
    share = sum(wins) / total
    spread = sum((won - share * cast) ** 2 for won, cast in zip(wins, votes, strict=True)) * groups / (groups - 1)
    smooth = (sum(wins) + 0.5) / (total + 1)
    return max(1.0, spread / (total * smooth * (1 - smooth)))


def power(votes: int, rate: float, *, level: float = LEVEL) -> float:
    """How often the sign test finds a win rate with so many decisive votes."""
    critical = _critical(votes, level)
    if critical < 0:
        return 0.0
    return sum(_chance(votes, count, rate) + _chance(votes, count, 1 - rate) for count in range(critical + 1))


def detectable(votes: int, *, level: float = LEVEL) -> float | None:
    """The smallest win rate above 1/2 that the sign test finds with 80 % power; None: too few votes for any."""
    if _critical(votes, level) < 0:
        return None
    low, high = 0.5, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if power(votes, middle, level=level) >= POWER else (middle, high)
    return high


def votes_needed(rate: float, *, level: float = LEVEL, most: int = 2000) -> int | None:
    """The fewest decisive votes with which the sign test finds this win rate with 80 % power; None: more than `most`."""
    low, high = 1, most
    if power(most, rate, level=level) < POWER:
        return None
    while high - low > 64:  # power has teeth, so the end is searched one by one
        middle = (low + high) // 2
        low, high = (low, middle) if power(middle, rate, level=level) >= POWER else (middle, high)
    return next(votes for votes in range(max(1, low - 64), most + 1) if power(votes, rate, level=level) >= POWER)


def holm(values: Sequence[float]) -> list[float]:
    """p values adjusted for their number (Holm 1979), in the order given."""
    order = sorted(range(len(values)), key=values.__getitem__)
    adjusted, least = [0.0] * len(values), 0.0
    for rank, index in enumerate(order):
        least = max(least, min(1.0, (len(values) - rank) * values[index]))
        adjusted[index] = least
    return adjusted


def _critical(votes: int, level: float) -> int:
    """The most losses, or wins, with which the sign test rejects; -1: it never does."""
    tail, limit, critical = 0, level / 2, -1
    for count in range(votes // 2 + 1):
        tail += comb(votes, count)
        if tail / 2**votes > limit:
            break
        critical = count
    return critical


def _chance(votes: int, count: int, rate: float) -> float:
    if rate in (0.0, 1.0):
        return float(count == (votes if rate else 0))
    return exp(lgamma(votes + 1) - lgamma(count + 1) - lgamma(votes - count + 1) + count * log(rate) + (votes - count) * log(1 - rate))
