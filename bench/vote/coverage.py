"""Simulated votes with planted strengths: how often each 95 % interval holds the truth.

    python -m bench.vote.coverage --simulations 2000

`ours` is what `loraloom rank` shows; beside it the model's own interval, which takes votes as independent, a sandwich over prompts, and
the percentile bootstrap over prompts that is common. Prompts have an effect of their own on each candidate (`spread`, in log odds).
"""

import argparse
import warnings
from itertools import combinations
from typing import Any

import numpy as np
from scipy.stats import t as student

from infer.vote.ranking import davidson
from infer.vote.ranking.binomial import Z, design_effect, wilson

TIES = 0.3  # nu
RESAMPLES = 300
HEAD = """\
| candidates | prompts | votes a pair and prompt | spread | farthest | ours | model | sandwich, t | bootstrap |
|---|---|---|---|---|---|---|---|---|"""
Case = tuple[int, int, int, float, float]
CASES: list[Case] = [  # candidates, prompts, votes a pair and prompt, spread, strength of the first and the last
    (2, 20, 1, 0.0, 0.4),
    (2, 20, 3, 0.7, 0.4),
    (2, 40, 2, 0.7, 0.4),
    (3, 10, 1, 0.0, 1.0),
    (3, 20, 1, 0.0, 1.0),
    (3, 10, 2, 0.7, 1.0),
    (3, 20, 2, 0.7, 1.0),
    (3, 40, 2, 1.2, 1.0),
    (4, 10, 1, 0.0, 2.5),
    (5, 10, 1, 0.0, 1.0),
    (5, 20, 1, 0.7, 1.0),
    (5, 20, 2, 0.7, 1.0),
]


def simulate(rng: Any, tables: int, strengths: Any, prompts: int, votes: int, spread: float) -> tuple[Any, Any]:
    """Pairs (P, 2) and counts (R, G, P, 3) of votes with ties."""
    pairs = np.array(list(combinations(range(len(strengths)), 2)))
    effect = strengths + spread * rng.standard_normal((tables, prompts, len(strengths)))
    gap = effect[..., pairs[:, 0]] - effect[..., pairs[:, 1]]
    chances = np.stack([np.exp(gap / 2), np.exp(-gap / 2), np.full_like(gap, TIES)], -1)
    return pairs, rng.multinomial(votes, chances / chances.sum(-1, keepdims=True))


def planted(rng: Any, strengths: Any, spread: float) -> tuple[Any, float]:
    """What many prompts come to: the strengths, and the first candidate's share of the decisive votes against the second."""
    pairs, counts = simulate(rng, 1, strengths, 400_000, 1, spread)
    whole = counts.sum(1)
    return davidson.fit(pairs, whole, len(strengths)).strengths[0], float(whole[0, 0, 0] / whole[0, 0, :2].sum())


def coverage(case: Case, simulations: int, rng: Any) -> dict[str, float]:
    """Each interval's share that holds the truth, of strengths and their differences (two candidates: of the win rate)."""
    candidates, prompts, votes, spread, farthest = case
    strengths = np.linspace(-farthest, farthest, candidates)
    truth, rate = planted(rng, strengths, spread)
    pairs, counts = simulate(rng, simulations, strengths, prompts, votes, spread)
    if candidates == 2:
        return _of_two(counts[:, :, 0], rate)
    fits = davidson.fit(pairs, counts.sum(1), candidates)
    contrasts = np.concatenate([np.eye(candidates) - 1 / candidates, davidson.differences(pairs, candidates)])
    found: dict[str, list[float]] = {"ours": [], "model": [], "sandwich": [], "bootstrap": []}
    for row in range(simulations):
        one = davidson.Fit(fits.strengths[row : row + 1], fits.tie[row : row + 1], fits.hessian[row : row + 1])
        model, robust = davidson.covariances(pairs, counts[row], one)
        own, _ = davidson.spread(pairs, counts[row], one)
        miss = np.abs(contrasts @ (one.strengths[0] - truth))
        for name, covariance, factor in (("ours", own, Z), ("model", model, Z), ("sandwich", robust, student.ppf(0.975, prompts - 1))):
            error = np.sqrt(np.maximum(np.einsum("ci,ij,cj->c", contrasts, covariance, contrasts), 0))
            found[name].append(float(np.mean(miss <= factor * error)))
        if row < simulations // 10:
            low, high = _bootstrap(rng, pairs, counts[row], candidates, contrasts)
            found["bootstrap"].append(float(np.mean((low <= contrasts @ truth) & (contrasts @ truth <= high))))
    return {name: float(np.mean(values)) for name, values in found.items()}


def _bootstrap(rng: Any, pairs: Any, counts: Any, candidates: int, contrasts: Any) -> Any:
    drawn = rng.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), size=RESAMPLES)
    fits = davidson.fit(pairs, np.einsum("bg,gpx->bpx", drawn, counts), candidates)
    return np.quantile(fits.strengths @ contrasts.T, [0.025, 0.975], axis=0)


def _of_two(counts: Any, rate: float) -> dict[str, float]:
    """Wilson's interval over the design effect, and without it."""
    ours, plain = [], []
    for table in counts:
        wins, cast = table[:, 0], table[:, :2].sum(-1)
        effect = design_effect([*wins], [*cast])
        for held, factor in ((ours, effect), (plain, 1.0)):
            low, high = wilson(wins.sum() / factor, cast.sum() / factor)
            held.append(low <= rate <= high)
    return {"ours": float(np.mean(ours)), "model": float(np.mean(plain))}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--simulations", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rng = np.random.default_rng(given.seed)
    print(HEAD)
    for case in CASES:
        with warnings.catch_warnings(action="ignore"):
            found = coverage(case, given.simulations, rng)
        cells = [f"{found[name]:.1%}" if name in found else "" for name in ("ours", "model", "sandwich", "bootstrap")]
        print("| " + " | ".join([*map(str, case), *cells]) + " |", flush=True)


if __name__ == "__main__":
    main()
