"""What sd-parsers reads of an image beside what is read here: `pip install sd-parsers`, then python -m bench.metadata.readers.

The samples are those of tests/infer/metadata. A row is a value that both read; "other" is the other reader's where it differs.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from infer.draw.values import number
from infer.metadata.reader import read_metadata
from infer.metadata.result import ImageMetadata
from tests.infer.metadata.images import A1111, graph, png
from tests.infer.metadata.test_programs import FOOOCUS, INVOKE, NOVELAI

TYPES = {"positive": "CONDITIONING", "negative": "CONDITIONING", "latent_image": "LATENT", "samples": "LATENT", "images": "IMAGE"}


def links_of(nodes: dict[str, Any]) -> dict[str, Any]:
    """The links of an API graph as the page has them: sd-parsers follows these."""
    given = [(node, name, one) for node, row in nodes.items() for name, one in row["inputs"].items() if isinstance(one, list)]
    links = [[at, int(one[0]), one[1], int(node), 0, TYPES.get(name, name.upper())] for at, (node, name, one) in enumerate(given)]
    return {"nodes": [], "links": links}


PLAIN = graph(n3={"seed": 77}, n6={"text": "a cat"})  # without the primitive nodes, which sd-parsers does not follow
SAMPLES: dict[str, dict[str, str]] = {
    "A1111": {"parameters": A1111},
    "ComfyUI": {"prompt": json.dumps(PLAIN), "workflow": json.dumps(links_of(PLAIN))},
    "Fooocus": {"parameters": json.dumps(FOOOCUS)},
    "InvokeAI": {"invokeai_metadata": json.dumps(INVOKE)},
    "NovelAI": {
        "Software": "NovelAI",
        "Source": "NovelAI Diffusion V3 C1E1DE52",
        "Description": str(NOVELAI["prompt"]),
        "Comment": json.dumps(NOVELAI),
    },
}


def own(found: ImageMetadata) -> dict[str, str]:
    """Name -> value as a text, as the program has it."""
    values = {
        "prompt": found.typed or found.prompt,
        "negative": found.negative,
        "sampler": found.sampler,
        "seed": found.seed,
        "steps": found.steps,
        "cfg": None if found.guidance is None else number(found.guidance),
        "model": found.model and found.model.name,
        "hash": found.model and found.model.digits,
    }
    return {name: str(value) for name, value in values.items() if value is not None}


def other(path: Path) -> dict[str, str]:
    """The same of sd-parsers."""
    from sd_parsers import ParserManager

    found: Any = ParserManager().parse(path)
    if found is None or not found.samplers:
        return {}
    sampler = found.samplers[0]
    parameters = {str(name): value for name, value in sampler.parameters.items()}
    values = {
        "prompt": "\n".join(str(one.value) for one in sampler.prompts),
        "negative": "\n".join(str(one.value) for one in sampler.negative_prompts),
        "sampler": sampler.name,
        "seed": parameters.get("seed"),
        "steps": parameters.get("steps"),
        "cfg": number(float(parameters.get("cfg_scale", parameters.get("cfg", 0)))),
        "model": sampler.model and sampler.model.name,
        "hash": sampler.model and sampler.model.hash and sampler.model.hash.lower(),
    }
    return {name: str(value) for name, value in values.items() if value not in (None, "")}


def rows(folder: Path) -> Iterator[tuple[str, str, str, str]]:
    """(program, value, ours, the other reader's where it differs)."""
    for program, texts in SAMPLES.items():
        path = png(folder / "sample.png", **texts)
        ours, theirs = own(read_metadata(path)), other(path)
        for name in theirs.keys() | ours.keys():
            yield program, name, ours.get(name, "-"), "" if ours.get(name) == theirs.get(name) else theirs.get(name, "-")


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder:
        for program, name, ours, different in sorted(rows(Path(folder))):
            print(f"{program:10}{name:10}{ours[:60]!r:64}{f'other: {different[:60]!r}' if different else 'equal'}")


if __name__ == "__main__":
    main()
