"""Findings about the trigger word: captions that misspell it, and words that are in every caption beside it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Set

from train.data.captions import has_trigger
from train.data.linting.finding import Finding, share
from train.data.linting.words import SMALL_WORDS, distance, phrases, plain_form, segments, words

LEAST = 8  # captions, from which on a word in every one of them is no chance
SLIPS = 0.05  # of the captions may lack a word that is called to be in every one
LONGEST = 4  # words of a phrase that is named
SHOWN = 8  # phrases in one finding


def trigger_findings(prompts: Mapping[str, str], trigger: str) -> list[Finding]:
    """The findings; `prompts` are the captions by the names of their images."""
    return [*misspelt_trigger(prompts, trigger), *other_case(prompts, trigger), *fused_words(prompts, trigger)]


def allowed_slips(trigger: str) -> int:
    """Changes of a letter that still show the trigger: none in short ones, which are near many words."""
    letters = len(plain_form(trigger))
    return 0 if letters < 5 else 1 if letters < 8 else 2


def misspelt_trigger(prompts: Mapping[str, str], trigger: str) -> list[Finding]:
    """Captions without the trigger that have something like it."""
    wanted, most, length = plain_form(trigger), allowed_slips(trigger), len(trigger.split())
    if not wanted:
        return []
    known: dict[str, bool] = {}
    images: dict[str, list[str]] = defaultdict(list)
    for name, prompt in prompts.items():
        if has_trigger(prompt, trigger):
            continue
        for phrase in phrases(prompt, length + 1):
            if phrase not in known:
                known[phrase] = distance(plain_form(phrase), wanted, most) <= most
            if known[phrase]:
                images[phrase].append(name)
                break
    if not images:
        return []
    spelt = ", ".join(f"{phrase!r} ({len(names)})" for phrase, names in sorted(images.items(), key=lambda pair: -len(pair[1]))[:SHOWN])
    names = tuple(name for found in images.values() for name in found)
    return [
        Finding(
            "trigger-misspelt",
            f"{share(names, len(prompts))} captions have no trigger {trigger!r}, but {spelt}",
            names,
            f"Write {trigger!r} if it is meant: as it is, the trigger is prepended to those captions and they have both",
        )
    ]


def other_case(prompts: Mapping[str, str], trigger: str) -> list[Finding]:
    """Captions whose trigger is in capitals or small letters where the given one is not."""
    names = tuple(name for name, prompt in prompts.items() if has_trigger(prompt, trigger) and trigger not in prompt)
    if not names:
        return []
    return [
        Finding(
            "trigger-case",
            f"{share(names, len(prompts))} captions have the trigger {trigger!r} in other capitals",
            names,
            "Write it in one way: CLIP reads both alike, T5 and language models read other tokens",
        )
    ]


def fused_words(prompts: Mapping[str, str], trigger: str) -> list[Finding]:
    """Words and phrases that all captions share: the model cannot tell them from the trigger."""
    if len(prompts) < LEAST:
        return []
    least = len(prompts) * (1 - SLIPS)
    own = {*words(trigger), *SMALL_WORDS}
    counts: Counter[str] = Counter()
    for prompt in prompts.values():
        counts.update(set(words(prompt)))
    common = {word for word, count in counts.items() if count >= least and word not in own}
    if not common:
        return []
    runs = _common_runs(prompts, {word: counts[word] for word in common}, least)
    often = sorted(runs, key=lambda run: (-len(run), run))
    named: list[tuple[str, ...]] = []
    for run in often:
        if not any(_is_part(run, longer) for longer in named):
            named.append(run)
    listed = ", ".join(f"{' '.join(run)!r} ({runs[run]})" for run in named[:SHOWN])
    more = f" and {len(named) - SHOWN} more" if len(named) > SHOWN else ""
    return [
        Finding(
            "fused",
            f"in all captions or nearly all of {len(prompts)}, beside the trigger: {listed}{more}",
            (),
            "The model cannot tell this from the trigger. If it is not in every image, take it out of the captions of those"
            " without it; if it is and should stay promptable, add images without it; if it is part of what is learned, leave it",
        )
    ]


def _common_runs(prompts: Mapping[str, str], common: Mapping[str, int], least: float) -> dict[tuple[str, ...], int]:
    """The runs of words that `least` captions have, with their number; `common` are such words. A run has no part that fewer have."""
    runs: dict[tuple[str, ...], int] = {(word,): count for word, count in common.items()}
    last = set(runs)
    for length in range(2, LONGEST + 1):
        counts: Counter[tuple[str, ...]] = Counter()
        for prompt in prompts.values():
            counts.update(_runs(prompt, length, last))
        last = {run for run, count in counts.items() if count >= least}
        if not last:
            break
        runs |= {run: counts[run] for run in last}
    return runs


def _runs(prompt: str, length: int, shorter: Set[tuple[str, ...]]) -> set[tuple[str, ...]]:
    """The runs of so many words in a caption, each once, whose beginning and end of a word less are in `shorter`."""
    found: set[tuple[str, ...]] = set()
    for segment in segments(prompt):
        there = words(segment)
        runs = (tuple(there[first : first + length]) for first in range(len(there) - length + 1))
        found.update(run for run in runs if run[:-1] in shorter and run[1:] in shorter)
    return found


def _is_part(run: tuple[str, ...], longer: tuple[str, ...]) -> bool:
    return any(longer[start : start + len(run)] == run for start in range(len(longer) - len(run) + 1))
