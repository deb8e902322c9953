"""Which image is of which prompt, and at which seed: by what it states, else by its file name, else by its number. Never by a guess.

Texts are compared without regard to case, blanks and a full stop at the end. A file name is the prompt's words joined by `-` or `_`, a
number behind them or not, or at least CUT characters of its beginning; DALL·E's date before, and the account and id that Midjourney puts
around it, are left out. Where nothing in the folder matches so, names that are numbers alone count the prompts from 1: 3.png, 3-2.png.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from infer.outside.folder import OutsideFolder, OutsideImage
from registry.printable import counted, one_line, some

CUT = 20  # characters of a prompt's slug that a name which was cut off has at least
DATED = re.compile(r"^dall-e-(?:3-)?\d{4}-\d{2}-\d{2}-\d{2}-\d{2}-\d{2}-")
IDENTIFIED = re.compile(r"-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(-\d)?$")
NUMBERED = re.compile(r"^(.+?)-(\d{1,6})$")
INDEX = re.compile(r"^(\d{1,6})(?:[-_](\d{1,6}))?$")
SHOWN = 60  # characters of a prompt in a message


@dataclass(frozen=True)
class Match:
    """An image of a prompt: which prompt, at the place of which seed, and by what it was found."""

    prompt: int
    seed: int
    image: OutsideImage
    by: str


@dataclass(frozen=True)
class Matched:
    """The images of a folder that are in the grid, and in words what is not."""

    matches: tuple[Match, ...]
    notes: tuple[str, ...]


def match(folder: OutsideFolder, prompts: Sequence[str], seeds: Sequence[Sequence[int]], gather: Callable[[str], None]) -> Matched:
    """The images of each prompt, whose seeds are `seeds[prompt]` in order. Every image that may be of two prompts is a fault."""
    where = f"outside {one_line(folder.name)}"
    found: dict[int, list[tuple[OutsideImage, str]]] = {}
    left = []
    for image in folder.images:
        places = _places(image, prompts)
        if len(set(places.values())) > 1:
            named = "; ".join(f"{by}: {_short(prompts[place])}" for by, place in places.items())
            gather(f"{where}: {one_line(image.path.name)} may be of different prompts ({named}). Rename it, or correct what is beside it.")
        elif places:
            by, place = next(iter(places.items()))
            found.setdefault(place, []).append((image, by))
        else:
            left.append(image)
    if not found and left:
        found, left = _by_number(left, prompts, where, gather)
    matches, notes = [], []
    for place in range(len(prompts)):
        own = sorted(found.get(place, []), key=lambda pair: pair[0].order)
        placed, over = _seeded(place, own, seeds[place], where, gather)
        matches += placed
        left += over
        notes += _missing(prompts[place], placed, seeds[place], where)
    if left:
        names = some((one_line(image.path.name) for image in sorted(left, key=lambda one: one.order)), 8)
        notes.append(f"{where}: left out: {counted(len(left), 'image matches', 'images match')} no prompt and seed of the grid: {names}.")
    if not matches:
        gather(
            f"{where}: none of its {counted(len(folder.images), 'image')} matches a prompt of the grid. Expected a file name such as "
            f"{slug(prompts[0])[:40] or '1'}.png, a NAME.txt with the prompt beside NAME.png, "
            "a captions.json, or names that are numbers: 1.png."
        )
    return Matched(tuple(matches), (*folder.notes, *notes))


def plain(text: str) -> str:
    """The text as it is compared."""
    return " ".join(unicodedata.normalize("NFC", text).casefold().split()).rstrip(". ")


def slug(text: str) -> str:
    """The letters and digits of a text in small letters, `-` between them."""
    letters = unicodedata.normalize("NFKC", text).casefold()
    return "-".join(part for part in re.split(r"[\W_]+", letters) if part)


def _places(image: OutsideImage, prompts: Sequence[str]) -> dict[str, int]:
    """Source -> number of the prompt that it names."""
    found: dict[str, int] = {}
    for by, one in image.stated.items():
        exact = [place for place, prompt in enumerate(prompts) if prompt == one.prompt]
        near = exact or [place for place, prompt in enumerate(prompts) if plain(prompt) == plain(one.prompt)]
        found |= {by if number == 0 else f"{by} ({number + 1})": place for number, place in enumerate(near)}
    named = list(dict.fromkeys(_named(image.path.stem, prompts)))
    return found | {"its file name" if number == 0 else f"its file name ({number + 1})": place for number, place in enumerate(named)}


def _named(stem: str, prompts: Sequence[str]) -> Iterator[int]:
    """The prompts that a file name names: those that it spells out, else those that it spells but for a number, else those it begins."""
    slugs = [slug(prompt) for prompt in prompts]
    names = [IDENTIFIED.sub("", DATED.sub("", slug(stem)))]
    if IDENTIFIED.search(slug(stem)):
        names.append(IDENTIFIED.sub("", slug(stem.partition("_")[2])))
    shorter = [match[1] for name in names if (match := NUMBERED.match(name))]
    for spelt in (names, shorter):
        exact = [place for place, own in enumerate(slugs) if own and own in spelt]
        if exact:
            yield from exact
            return
    for spelt in (names, shorter):
        cut = [place for place, own in enumerate(slugs) for name in spelt if len(name) >= CUT and own.startswith(name)]
        if cut:
            yield from cut
            return


def _by_number(
    images: Sequence[OutsideImage], prompts: Sequence[str], where: str, gather: Callable[[str], None]
) -> tuple[dict[int, list[tuple[OutsideImage, str]]], list[OutsideImage]]:
    """By names that are numbers, from 1; only where every image has one."""
    numbers = [INDEX.match(image.path.stem) for image in images]
    if not all(numbers):
        return {}, list(images)
    if any(number and int(number[1]) == 0 for number in numbers):
        gather(f"{where}: files are numbered from 0, and prompts count from 1. Rename them: 1.png is of {_short(prompts[0])}.")
        return {}, list(images)
    found: dict[int, list[tuple[OutsideImage, str]]] = {}
    left = []
    for image, number in zip(images, numbers, strict=True):
        assert number is not None
        place = int(number[1]) - 1
        found.setdefault(place, []).append((image, "its number")) if place < len(prompts) else left.append(image)
    return found, left


def _seeded(
    place: int, own: Sequence[tuple[OutsideImage, str]], seeds: Sequence[int], where: str, gather: Callable[[str], None]
) -> tuple[list[Match], list[OutsideImage]]:
    """The images of a prompt at its seeds: at the one that they state where the grid has it, the others in the order of their names."""
    at: dict[int, Match] = {}
    later = []
    for image, by in own:
        said = next((one.seed for one in image.stated.values() if one.seed is not None), None)
        if said not in seeds:
            later.append((image, by))
        elif (number := seeds.index(said)) in at:
            gather(f"{where}: {one_line(at[number].image.path.name)} and {one_line(image.path.name)} are both of seed {said}. Keep one.")
        else:
            at[number] = Match(place, number, image, by)
    free = [number for number in range(len(seeds)) if number not in at]
    for number, (image, by) in zip(free, later, strict=False):
        at[number] = Match(place, number, image, by)
    return [at[number] for number in sorted(at)], [image for image, _ in later[len(free) :]]


def _missing(prompt: str, placed: Sequence[Match], seeds: Sequence[int], where: str) -> list[str]:
    if len(placed) == len(seeds):
        return []
    there = {one.seed for one in placed}
    gone = ", ".join(str(seed) for number, seed in enumerate(seeds) if number not in there)
    what = "there is no image of" if not placed else f"seed {gone} has no image of"
    return [f"{where}: {what} {_short(prompt)}: these cells stay empty."]


def _short(prompt: str) -> str:
    text = one_line(prompt)
    return repr(text if len(text) <= SHOWN else f"{text[:SHOWN]}…")
