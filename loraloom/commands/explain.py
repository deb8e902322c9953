"""`loraloom explain IMAGE`: one image's way, from its tokens to its pixels, as a page; of a grid's cells, in its report."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loraloom import console
from registry.errors import Refused
from registry.printable import one_line

HELP = "explain an image: tokens, nearest words, predictions by step, what each of its settings changed"
ABOUT = """\
Draws the image again from its own metadata and writes a folder with explain.html, explain.json and images/: the tokens of the prompts and
the nearest words of their embeddings, how alike texts are, the predicted image at each step, and the same image without the negative
prompt, without guidance, without the image it was drawn from and without each ControlNet, textual inversion and adapter. An image of
another program (A1111, ComfyUI, SwarmUI, ...) is drawn as far as its models are registered, as grid from=IMAGE does; settings that it does
not say are given by --set. The last line is the page.

Of a grid's folder, --cells or --all explains its cells, each in explain/ beside the report, which shows it in a tab of the open cell. What
was explained or drawn before is not drawn again. The last line is the report."""

RAW = argparse.RawDescriptionHelpFormatter

if TYPE_CHECKING:
    from infer.explain.cells import CellsPlan
    from infer.explain.plan import ExplainPlan
    from infer.grid.config import GridConfig


def add_parser(subparsers: Any) -> None:
    """Add `explain` to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser("explain", help=HELP, description=ABOUT, formatter_class=RAW)
    parser.add_argument(
        "image", metavar="IMAGE|FOLDER", help="an image that loraloom or another program drew (PNG, JPEG, WebP), or a grid's folder"
    )
    parser.add_argument("--cells", metavar="1,5-7", help="of a grid: these cells, by number as cells.jsonl counts from 1, or by key")
    parser.add_argument("--all", action="store_true", help="of a grid: every cell")
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
    parser.add_argument("--out", metavar="FOLDER", help="of an image: where the folder explain/<stamp> is made (runs)")
    parser.add_argument("--dry-run", action="store_true", help="check everything, list what is drawn, and stop")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Plan, draw, measure, write."""
    from registry.home import expanded

    path = expanded(arguments.image).absolute()
    return _of_cells(path, arguments) if path.is_dir() else _of_image(path, arguments)


def _of_image(image: Path, arguments: argparse.Namespace) -> int:
    from infer.explain.explain import explain
    from infer.explain.page import write_explanation
    from infer.explain.plan import plan_explanation
    from registry.files.stamped_folder import new_folder
    from registry.home import expanded
    from registry.store import Store

    if arguments.cells is not None or arguments.all:
        raise Refused(f"--cells and --all are for the folder of a grid, runs/<name>/<stamp>; {one_line(image)} is none.")
    settings, given = _settings(arguments.set)
    plan = plan_explanation(image, Store(), against=arguments.against, frames=arguments.frames, settings=settings, given=given)
    if arguments.dry_run:
        return _show(plan, as_json=arguments.json)
    folder = new_folder(expanded(arguments.out or "runs"), "explain")
    with console.progress() as report:
        found = explain(plan, report=report)
    return _answer(write_explanation(found, folder), "page", as_json=arguments.json)


def _of_cells(folder: Path, arguments: argparse.Namespace) -> int:
    from infer.explain.cells import explain_cells, plan_cells
    from registry.store import Store

    if arguments.set or arguments.out is not None:
        raise Refused("--set and --out are for an image: the cells of a grid are explained as they are, beside its report.")
    if (arguments.cells is not None) == arguments.all:
        raise Refused(f"{one_line(folder)} is a folder. Of a grid's, give the cells to explain: --cells 1,5 (or keys), or --all.")
    cells = None if arguments.all else [word.strip() for word in arguments.cells.split(",") if word.strip()]
    plan = plan_cells(folder, Store(), cells=cells, against=arguments.against, frames=arguments.frames)
    if arguments.dry_run:
        return _show(plan, as_json=arguments.json)
    with console.progress() as report:
        values = explain_cells(plan, report=report)
    console.say(f"cells explained: {values['explained']}, and before: {values['reused']}")
    return _answer(values, "report", as_json=arguments.json)


def _show(plan: "CellsPlan | ExplainPlan", *, as_json: bool) -> int:
    console.answer_json(plan.to_json()) if as_json else console.answer_lines(plan.to_text())
    return 0


def _answer(values: dict[str, Any], page: str, *, as_json: bool) -> int:
    for note in values["notes"]:
        console.say(f"note: {note}")
    if as_json:
        console.answer_json(values)
    else:
        console.answer(values[page])
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
