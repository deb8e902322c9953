"""sample_prompts: a file of prompts with their options, as previews."""

import json
import tomllib
from pathlib import Path
from typing import Any

from loraloom.kohya.arguments import Values
from loraloom.kohya.converted import Converted
from registry.home import expanded

KEYS = {  # option of a line -> key of a TOML or JSON file
    "w": "width",
    "h": "height",
    "d": "seed",
    "s": "sample_steps",
    "l": "scale",
    "g": "guidance_scale",
    "n": "negative_prompt",
    "ss": "sample_sampler",
    "cn": "controlnet_image",
    "ctr": "cfg_trunc_ratio",
    "rcfg": "renorm_cfg",
    "fs": "flow_shift",
}
LETTERS = {key: f"--{letter}" for letter, key in KEYS.items()}


def convert_previews(values: Values, to: Converted, *, embedded: bool) -> None:
    """Prompts, seed, steps and guidance. `embedded`: the base has its guidance embedded, which is --g."""
    given = values["sample_prompts"]
    if given is None:
        return
    try:
        rows = _rows(expanded(given))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        to.fault(
            f"sample_prompts={given}: a .txt, .toml or .json file of prompts is read ({type(error).__name__}: {error}). Give"
            " preview.prompts.",
            unless=("preview.prompts",),
        )
        return
    to.set("preview.prompts", [str(row["prompt"]) for row in rows], "sample_prompts")
    left = set().union(*rows) - {"prompt", "enum"}
    guidance = "guidance_scale" if embedded else "scale"
    for key, setting, kind in (("sample_steps", "preview.steps", int), (guidance, "preview.guidance", float)):
        value = rows[0].get(key) if rows else None
        if value is not None and all(row.get(key) == value for row in rows):
            to.set(setting, kind(value), f"{LETTERS[key]} of sample_prompts")
            left.discard(key)
    seeds = [row.get("seed") for row in rows]
    first = seeds[0] if seeds else None
    if isinstance(first, int) and seeds == [first + place for place in range(len(seeds))]:
        to.set("preview.seed", seeds[0], "--d of sample_prompts")  # each further prompt has the next seed
        left.discard("seed")
    if left:
        words = " ".join(sorted(LETTERS.get(key, key) for key in left))
        to.ignored[f"sample_prompts {words}"] = (
            "previews have one size, guidance and number of steps, seeds that count up from the first prompt's, and no negative prompt"
        )


def _rows(path: Path) -> list[dict[str, Any]]:
    """A dictionary a prompt. Raises OSError, ValueError, TypeError or KeyError for a file of another form."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".toml":
        found = tomllib.loads(text)["prompt"]
        shared = {key: value for key, value in found.items() if key != "subset"}
        rows = [{**shared, **subset} for subset in found["subset"]]
    elif path.suffix == ".json":
        rows = [_line(one) if isinstance(one, str) else dict(one) for one in json.loads(text)]
    elif path.suffix == ".txt":
        rows = [_line(line.strip()) for line in text.splitlines() if line.strip() and not line.startswith("#")]
    else:
        raise ValueError(f"{path.suffix or 'no'} ending")
    for row in rows:
        _ = row["prompt"]
        for key, kind in (("sample_steps", int), ("scale", float), ("guidance_scale", float)):
            if row.get(key) is not None:
                row[key] = kind(row[key])
    return rows


def _line(text: str) -> dict[str, Any]:
    """`a hat --d 4 --s 20`: the prompt and its options by sd-scripts' keys; what is none of them stays out, as there."""
    prompt, *options = text.split(" --")
    row: dict[str, Any] = {"prompt": prompt.strip()}
    for option in options:
        letter, _, value = option.strip().partition(" ")
        key = KEYS.get(letter.lower())
        if key is not None:
            row[key] = int(value) if key in ("width", "height", "seed", "sample_steps") else value.strip()
    return row
