"""`loraloom data lint PATH`: every fault of an image-caption set at once, with file names, before anyone trains on it."""

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

from loraloom import console

HELP = "look an image-caption set over before training on it"
LINT = "tell every fault of a set at once, with file names; exit code 2 when training would refuse it"


def add_parser(subparsers: Any) -> None:
    """Add `data lint` to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser("data", help=HELP, description=HELP)
    inner = parser.add_subparsers(metavar="WHAT")
    lint: argparse.ArgumentParser = inner.add_parser("lint", help=LINT, description=LINT)
    lint.add_argument("path", metavar="PATH", help="a folder of images with captions, or anything datasets.load_dataset opens")
    lint.add_argument("--trigger", metavar="WORD", help="as data.trigger: a set without captions is fine then")
    lint.add_argument("--resolution", metavar="PIXELS", type=int, help="name the images that would be enlarged for it")
    lint.add_argument("--base", metavar="REF", help="count the captions' tokens for this base: what it does not read is named")
    lint.add_argument("--base-config", metavar="FOLDER", help="as base_config, for single files that carry no tokenizers")
    lint.add_argument("--image-column", metavar="NAME", help="as data.image_column")
    lint.add_argument("--caption-column", metavar="NAME", help="as data.caption_column")
    lint.add_argument("--split", metavar="NAME", default="train", help="as data.split")
    lint.add_argument("--json", action="store_true", help="one JSON document on stdout")
    lint.set_defaults(run=run_lint)


def run_lint(arguments: argparse.Namespace) -> int:
    """Print what there is to say about the set; exit code 2 with faults."""
    from train.config import DataConfig
    from train.data.lint import lint

    config = DataConfig(
        path=arguments.path,
        trigger=arguments.trigger,
        split=arguments.split,
        image_column=arguments.image_column,
        caption_column=arguments.caption_column,
    )
    count = _counter(arguments.base, arguments.base_config) if arguments.base else None
    with console.progress() as report:
        found = lint(config, resolution=arguments.resolution, count=count, report=report)
    console.answer_json(found.to_json()) if arguments.json else console.answer_lines(found.to_text())
    return 2 if found.faults else 0


def _counter(reference: str, base_config: str | None) -> Callable[[str], tuple[int, int]]:
    """Counts a caption's tokens, and those that fit, with the base's own tokenizers; no weights are read."""
    from registry.store import Store
    from train.config import TrainConfig
    from train.plan.base import find_base, skeleton

    config = TrainConfig(base=reference, base_config=base_config)
    base = find_base(config, Store())
    return partial(base.family.count_tokens, skeleton(base, config))
