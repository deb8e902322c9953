"""Captions: a style word, a noun, keywords, a background, each part sometimes left out; colour words come from recoloured drawings."""

import json
import random
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from train.pocket.nouns import NOUNS, UNSEEN, listed
from train.pocket.sources import STYLES

# named backgrounds (sRGB); white is the default and mostly goes unsaid
BACKGROUNDS = {
    "white": (255, 255, 255),
    "light blue": (173, 216, 240),
    "blue": (70, 130, 220),
    "dark blue": (40, 50, 110),
    "pink": (255, 190, 210),
    "red": (215, 60, 60),
    "yellow": (255, 230, 120),
    "orange": (255, 180, 100),
    "light green": (190, 235, 180),
    "green": (80, 170, 90),
    "lavender": (214, 200, 245),
    "gray": (185, 185, 185),
    "black": (20, 20, 20),
}
# colours of recolours: the shade a drawing's mean is brought to (sRGB)
COLOURS = {
    "red": (222, 52, 52),
    "orange": (245, 144, 40),
    "yellow": (250, 206, 60),
    "green": (82, 172, 70),
    "blue": (58, 122, 220),
    "purple": (142, 84, 196),
    "pink": (246, 140, 182),
    "brown": (140, 90, 56),
    "gray": (150, 152, 156),
}
# What else may stand in the style slot. The picture is then of any style, so that a word the base does not know (an adapter's
# trigger) leaves it whole.
NEUTRAL = listed(
    "drawing|picture|photo|painting|cartoon|icon|emoji|image|illustration|sketch|sticker|clip art|art|ink|line art|watercolor|"
    "pixel art|comic|poster|logo|"
    "pencil drawing|oil painting|black and white|vector art|doodle|print|crayon drawing|simple|cute|beautiful|detailed|minimal|"
    "vintage|modern|new|old|my"
)
# what takes no "a"
MASS = frozenset(
    listed(
        "love|fire|snow|rain|sea|honey|cheese|bread|bacon|rice|pasta|spaghetti|sushi|popcorn|money|mail|music|garlic|milk|coffee|tea|wine|"
        "beer|soda|juice|cutlery|butter|meat|chocolate|lightning|poop|thinking|medicine|corn|maize|wood|soup|saturn|earth|dynamite|"
        "broccoli|santa claus|santa"
    )
)
# A caption that names no style, or a word that is none, mostly shows this one: a small model asked for no style in particular would
# else draw the mean of six drawings. (share of captions that name the style, share with another word in its place); the rest name none.
DEFAULT_STYLE = "fluent flat"
STYLE_SLOT = {True: (0.45, 0.17), False: (0.92, 0.05)}
CONSONANTS, VOWELS = "bcdfghjklmnprstvwxyz", "aeiou"
TEMPLATES = ("{s} style, {c}", "{s}, {c}", "{c}, {s} style", "{c}, {s}", "{s} {c}", "{c} in {s} style", "{s} of {c}")


def style_words(style: str) -> tuple[str, ...]:
    """How captions name a training style: by its own name mostly."""
    return {"fluent flat": ("fluent flat", "flat"), "fluent 3d": ("fluent 3d", "3d")}.get(style, (style,))


def with_article(noun: str) -> str:
    if noun.startswith(("smiling", "grinning")) and not noun.endswith("face"):
        return noun
    first, last = noun.split()[0], noun.split()[-1]
    plural = last.endswith("s") and not last.endswith(("ss", "us", "is"))
    if plural or noun in MASS:
        return noun
    vowel = first[0] in "aeiou" and not first.startswith(("uni", "ufo"))
    return f"{'an' if vowel else 'a'} {noun}"


@dataclass(frozen=True)
class View:
    """What one training picture shows."""

    style: str
    noun: str  # Unicode name
    background: str = "white"
    colour: str | None = None  # what it was recoloured to, or the drawing's own main colour
    recoloured: bool = False


@cache
def unseen() -> frozenset[tuple[str, str]]:
    return frozenset(UNSEEN)


def colour_of_name(noun: str) -> str | None:
    """The colour that the noun's own name says: "red apple" -> "red"."""
    return next((c for c in COLOURS if noun.split()[0] == c), None)


def nonsense(rng: random.Random) -> str:
    """A word nobody knows, as triggers are: "sks", "bavuto", "xjq"."""
    if rng.random() < 0.4:
        return "".join(rng.choice(CONSONANTS) for _ in range(rng.randint(2, 4)))
    return "".join(rng.choice(CONSONANTS) + rng.choice(VOWELS) for _ in range(rng.randint(1, 3))) + rng.choice(("", "n", "k", "s"))


def caption(view: View, keywords: tuple[str, ...], rng: random.Random) -> str:
    """One caption of a view; the same view gets many. Never a pair of UNSEEN."""
    words = NOUNS[view.noun]
    said = view.colour if view.recoloured or (view.colour and rng.random() < 0.3) else None
    if (view.noun, said) in unseen():
        if view.recoloured:
            raise ValueError(f"{view.colour} {view.noun} is held out of the recolours")
        said = None
    plain = [w for w in words if not any(w.startswith(c + " ") for c in COLOURS)] or list(words)
    noun = rng.choice(plain if said else words) if rng.random() < 0.45 else (plain if said else words)[0]
    named = with_article(f"{said} {noun}") if said and noun not in MASS else (f"{said} {noun}" if said else with_article(noun))
    article = rng.random()
    if article < 0.25:
        named = re.sub(r"^an? ", "" if article < 0.15 else "the ", named)
    if keywords and rng.random() < 0.15:
        named += ", " + ", ".join(rng.sample(keywords, min(len(keywords), rng.choice((1, 2)))))
    draw, (named_style, unknown_style) = rng.random(), STYLE_SLOT[view.style == DEFAULT_STYLE]
    if draw < named_style:
        style = rng.choice(style_words(view.style)) if rng.random() < 0.4 else style_words(view.style)[0]
        text = rng.choice(TEMPLATES) if rng.random() < 0.25 else TEMPLATES[0]
        text = text.format(s=style, c=named)
    elif draw < named_style + unknown_style:
        text = rng.choice(TEMPLATES).format(s=nonsense(rng) if rng.random() < 0.5 else rng.choice(NEUTRAL), c=named)
    else:
        text = named
    if view.background != "white" or rng.random() < 0.25:
        text += f" on {with_article(view.background)} background" if rng.random() < 0.85 else f", {view.background} background"
    return text


def load_keywords(work: Path) -> dict[str, tuple[str, ...]]:
    """Keywords of each noun that name nothing else: no colour, and no word of another noun."""
    others: dict[str, str] = {w: n for n, words in NOUNS.items() for w in words}
    table = json.loads((work / "concepts.json").read_text(encoding="utf-8"))
    found = {}
    for name in NOUNS:
        given = (k.lower() for k in table[name]["keywords"])
        found[name] = tuple(k for k in given if k not in others and len(k) > 2 and not set(k.split()) & {*COLOURS, "black", "white"})
    return found


def vocabulary(work: Path) -> set[str]:
    """Every word that a caption can hold, for the tokenizer."""
    texts = [w for words in NOUNS.values() for w in words] + [k for ks in load_keywords(work).values() for k in ks]
    texts += [*STYLES, *BACKGROUNDS, *COLOURS, *NEUTRAL, "a an the on in of and with style background two three small big old new"]
    texts += ["face crying laughing angry happy sad blob ink outline black white silver gold golden"]
    return {w for t in texts for w in re.findall(r"'s|[a-z]+|[0-9]|[^\sa-z0-9]+", t.lower())}
