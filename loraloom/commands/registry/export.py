"""`registry export`: models linked into the folders of other tools."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from loraloom import console
from loraloom.commands.registry.subcommand import REFERENCE, add_command, open_store
from registry.errors import Refused
from registry.exporting.layouts import LAYOUTS
from registry.home import expanded
from registry.names import suggest

PLACE = 56
ABOUT = "models in the folders of ComfyUI, A1111 or diffusers: linked, converted where the tool does not read them; nothing is overwritten"


def add_parsers(words: Any) -> None:
    """Add the subcommand."""
    parser = add_command(words, "export", export, ABOUT)
    parser.add_argument("references", nargs="+", metavar="REF", help=REFERENCE)
    where = f"TOOL is {', '.join(LAYOUTS)}; DIR is its own folder, such as ComfyUI"
    parser.add_argument("--layout", nargs="+", required=True, metavar=("TOOL", "DIR"), help=where)
    parser.add_argument("--dry-run", action="store_true", help="print the plan and stop")


def export(arguments: argparse.Namespace) -> int:
    """Export models."""
    from registry.exporting.job import plan_export, run_export

    references, layout, folder = given(arguments)
    store = open_store()
    with console.progress() as report:
        plan = plan_export(references, store, expanded(folder).absolute(), layout=layout)
        done = None if arguments.dry_run else run_export(plan, store, report=report)
    answer = plan.to_json(done)
    if arguments.json:
        console.answer_json(answer)
        return 0
    console.answer_table(
        ["name", "kind", "how", "target"], [[item["name"], item["kind"], item["how"], item["target"]] for item in answer["items"]]
    )
    for item in plan.items:
        for note in item.notes:
            console.say(f"note: {item.record.name}: {note}")
    return 0


def given(arguments: argparse.Namespace) -> tuple[list[str], str, Path]:
    """(references, tool, folder): the folder follows the tool, or comes last."""
    layout, *behind = arguments.layout
    if layout not in LAYOUTS:
        raise Refused(f"--layout {layout!r} is not known. {suggest(layout, LAYOUTS)}")
    references = list(arguments.references)
    if len(behind) == 1:
        return references, layout, Path(behind[0])
    if behind or len(references) < 2:
        raise Refused(f"Give the folder: loraloom registry export REF ... --layout {layout} DIR")
    return references[:-1], layout, Path(references[-1])
