"""`loraloom explain IMAGE.png`: one image's way, from its tokens to its pixels, as a page."""

import argparse
from typing import Any

from loraloom import console

HELP = "explain an image: tokens, nearest words, predictions by step, what the negative prompt and adapters changed"
ABOUT = """\
Draws the image again from its own metadata and writes a folder with explain.html, explain.json and images/: the tokens of the prompts and
the nearest words of their embeddings, how alike texts are, the predicted image at each step, and the same image without the negative
prompt, without guidance and without each adapter. The last line is the page."""


def add_parser(subparsers: Any) -> None:
    """Add `explain` to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser("explain", help=HELP, description=ABOUT)
    parser.add_argument("image", metavar="IMAGE.png", help="an image that loraloom drew")
    parser.add_argument("--against", action="append", default=[], metavar="TEXT", help="compare the prompt with this text; repeat")
    parser.add_argument("--frames", type=int, default=8, metavar="N", help="predictions by step, the image itself among them (8)")
    parser.add_argument("--out", default="runs", metavar="FOLDER", help="where the folder explain/<stamp> is made (runs)")
    parser.add_argument("--dry-run", action="store_true", help="check everything, list what is drawn, and stop")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Plan, draw, measure, write."""
    from infer.explain.explain import explain, plan_explanation
    from infer.explain.page import write_explanation
    from infer.grid.job import new_folder
    from registry.home import expanded
    from registry.store import Store

    image = expanded(arguments.image).absolute()
    plan = plan_explanation(image, Store(), against=arguments.against, frames=arguments.frames)
    if arguments.dry_run:
        console.answer_json(plan.to_json()) if arguments.json else console.answer_lines(plan.to_text())
        return 0
    folder = new_folder(expanded(arguments.out), "explain")
    with console.progress() as report:
        found = explain(plan, report=report)
    values = write_explanation(found, folder)
    for note in found.notes:
        console.say(f"note: {note}")
    if arguments.json:
        console.answer_json(values)
    else:
        console.answer(values["page"])
    return 0
