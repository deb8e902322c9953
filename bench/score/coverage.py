"""Normal differences around 0: how often each 95 % interval of their mean holds 0.

    python -m bench.score.coverage --simulations 1500

`ours` is `infer.score.intervals.clustered`; beside it the plain percentiles of the same resamples.
"""

import argparse

import numpy as np

from infer.score.intervals import clustered

RESAMPLES = 10_000
GROUPS = (4, 5, 6, 8, 10, 20, 40)


def coverage(groups: int, pairs: int, correlation: float, *, simulations: int, seed: int = 1) -> tuple[float, float]:
    """(ours, plain percentiles): shares of the intervals that hold 0. Groups too few for an interval count by the widest there is."""
    generator = np.random.default_rng(seed)
    counts = np.stack([np.bincount(row, minlength=groups) for row in generator.integers(0, groups, (RESAMPLES, groups))])
    ours = plain = 0
    for _ in range(simulations):
        shared = generator.normal(size=(groups, 1)) * correlation**0.5
        values = shared + generator.normal(size=(groups, pairs)) * (1 - correlation) ** 0.5
        means = counts @ values.mean(1) / groups
        found = clustered(values.tolist())
        low, high = (means.min(), means.max()) if found.low is None or found.high is None else (found.low, found.high)
        ours += low <= 0 <= high
        low, high = np.quantile(means, [0.025, 0.975])
        plain += low <= 0 <= high
    return ours / simulations, plain / simulations


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--simulations", type=int, default=1500)
    simulations = parser.parse_args().simulations
    print("| groups | pairs | correlation | ours | plain |\n|---|---|---|---|---|")
    for groups in GROUPS:
        for pairs, correlation in ((1, 0.0), (3, 0.5)):
            ours, plain = coverage(groups, pairs, correlation, simulations=simulations)
            print(f"| {groups} | {pairs} | {correlation} | {ours:.1%} | {plain:.1%} |", flush=True)


if __name__ == "__main__":
    main()
