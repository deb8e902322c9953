"""`loraloom explain IMAGE`: one image's way, from its tokens to its pixels, as a page."""

import argparse
from typing import TYPE_CHECKING, Any

from loraloom import console

HELP = "explain an image: tokens, nearest words, predictions by step, what each of its settings changed"
ABOUT = """\
Draws the image again from its own metadata and writes a folder with explain.html, explain.json and images/: the tokens of the prompts and
the nearest words of their embeddings, how alike texts are, the predicted image at each step, and the same image without the negative
prompt, without guidance, without the image it was drawn from and without each ControlNet, textual inversion and adapter. An image of
another program (A1111, ComfyUI, SwarmUI, ...) is drawn as far as its models are registered, as grid from=IMAGE does; settings that it does
not say are given by --set. The last line is the page."""

if TYPE_CHECKING:
    from infer.grid.config import GridConfig


def add_parser(subparsers: Any) -> None:
    """Add `explain` to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser("explain", help=HELP, description=ABOUT)
    parser.add_argument("image", metavar="IMAGE", help="an image that loraloom or another program drew: PNG, JPEG, WebP")
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="settings of `loraloom grid` in place of the image's own: --set base=pocket steps=20",
    )
    parser.add_argument("--against", action="append", default=[], metavar="TEXT", help="compare the prompt with this text; repeat")
    parser.add_argument("--frames", type=int, default=8, metavar="N", help="predictions by step, the image itself among them (8)")
    parser.add_argument("--out", default="runs", metavar="FOLDER", help="where the folder explain/<stamp> is made (runs)")
    parser.add_argument("--dry-run", action="store_true", help="check everything, list what is drawn, and stop")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Plan, draw, measure, write."""
    from infer.explain.explain import explain
    from infer.explain.page import write_explanation
    from infer.explain.plan import plan_explanation
    from infer.grid.job import new_folder
    from registry.home import expanded
    from registry.store import Store

    image = expanded(arguments.image).absolute()
    settings, given = _settings(arguments.set)
    plan = plan_explanation(image, Store(), against=arguments.against, frames=arguments.frames, settings=settings, given=given)
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


def _settings(words: list[str]) -> "tuple[GridConfig | None, list[str]]":
    """The settings of a grid that are given, and their names, as `loraloom grid` reads them."""
    if not words:
        return None, []
    from loraloom.commands.grid import given_settings, job
    from loraloom.hydra.job import Request
    from loraloom.hydra.run import requested

    request: Request[GridConfig] = requested(job(), words)
    return request.config, given_settings(request)
