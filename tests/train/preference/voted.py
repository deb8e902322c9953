"""Grids with votes of a known taste, for runs that learn from them."""

from collections.abc import Sequence
from pathlib import Path

from infer.vote.votes import Vote
from tests.infer.vote.made import key_of, made_grid, vote, write_votes

PROMPTS = ("a cat", "a dog", "a house", "a tree")
SEEDS = (1, 2)


def voted_grid(folder: Path, prompts: Sequence[str] = PROMPTS, *, size: int = 32, more: Sequence[Vote] = ()) -> Path:
    """A grid of two adapters whose second one won on every prompt and seed, left and right in turn."""
    made_grid(folder, {"adapter": ["none", "ink"], "prompt": list(prompts), "seed": list(SEEDS)}, size=size)
    votes = []
    for number, (prompt, seed) in enumerate((prompt, seed) for prompt in prompts for seed in SEEDS):
        none, ink = key_of("none", prompt, seed), key_of("ink", prompt, seed)
        votes.append(vote(number, ink, none, "left") if number % 2 else vote(number, none, ink, "right"))
    write_votes(folder / "votes.jsonl", [*votes, *more])
    return folder
