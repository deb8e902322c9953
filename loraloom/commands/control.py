"""`loraloom control RUN save|sample|stop`: ask something of a training that runs."""

from __future__ import annotations

import argparse
from glob import escape
from typing import TYPE_CHECKING, Any

from loraloom import console
from registry.errors import Ambiguous, NotFound
from registry.home import expanded
from registry.printable import some
from registry.references import looks_like_path

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

HELP = "ask a running training for a checkpoint or previews now, or to stop"
ABOUT = """\
Asks the training that runs in a folder, whoever started it and in whatever terminal: save (a checkpoint, which checkpoint.keep leaves),
sample (the previews), or stop (a checkpoint, then the end; it can be resumed). It acts after its next step, and what it learns is the
same to the byte. Refused where no process trains."""
WHAT = {"save": "a checkpoint", "sample": "previews", "stop": "a checkpoint and its end"}


def add_parser(subparsers: Any) -> None:
    """Add `control` to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser("control", help=HELP, description=ABOUT)
    about = "a run folder; latest, the newest in ./runs that trains; or a name, of a run in ./runs that trains or of a registered one"
    parser.add_argument("folder", metavar="RUN", help=about)
    parser.add_argument("what", choices=WHAT, metavar="|".join(WHAT), help="what to ask for")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the request."""
    from train.output.requests import ask

    folder = find_run(arguments.folder)
    ask(folder, arguments.what)
    if arguments.json:
        console.answer_json({"folder": str(folder), "asked": arguments.what})
    else:
        console.answer(f"{folder} is asked for {WHAT[arguments.what]} after its next step")
    return 0


def find_run(given: str, *, out: str = "runs") -> Path:
    """The run folder that is meant. Raises NotFound, and Ambiguous where several of a name train."""
    from train.output.folder import find_folder

    if not given:
        raise NotFound("RUN is an empty text. Give a run folder, a name, or latest.")
    path, root = expanded(given), expanded(out).absolute()
    if given == "latest":
        running = training_in(root.glob("*/*"))
        return max(running, key=lambda one: one.name) if running else find_folder(given, out=out, name=None, setting="")
    if looks_like_path(given) or (path / "config.yaml").is_file():
        return find_folder(given, out=out, name=None, setting="")
    running = training_in(root.glob(f"{escape(given)}/*"))
    if len(running) > 1:
        raise Ambiguous(f"{len(running)} runs named {given!r} train now: {some(map(str, running), between='; ')}. Give the folder.")
    return running[0] if running else find_folder(_registered(given, root), out=out, name=None, setting="")


def training_in(folders: Iterable[Path]) -> list[Path]:
    """Those of the folders in which a process trains, by name."""
    from train.output.folder import in_use

    return sorted(one for one in folders if in_use(one))


def _registered(name: str, root: Path) -> str:
    from registry.store import Store

    try:
        return str(Store().find(name, kind="run").path)
    except NotFound as error:
        raise NotFound(f"No run named {name!r} trains in {root}, and none is registered. Give its folder, or latest.") from error
