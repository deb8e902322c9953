"""`loraloom studio`: one local page over the same commands."""

import argparse
import os
import threading
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any

from loraloom import console
from registry.errors import NotFound, Refused
from registry.home import expanded
from registry.printable import counted

PATIENCE = 5.0  # seconds that answers have to end

HELP = "one local page over the same commands: runs, data, models, grids, votes"
ABOUT = """\
Serves a page on this machine alone, at an address with a random token in it. What it does are commands, and each button shows its own. Jobs
are started through the queue of the home (`loraloom queue`) and go on when the page or this server ends. To see it from another machine,
tunnel the port: ssh -L 8765:127.0.0.1:8765 HOST, with --port 8765."""


def add_parser(subparsers: Any) -> None:
    """Add `studio` to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser("studio", help=HELP, description=ABOUT)
    parser.add_argument("folder", nargs="?", metavar="DIR", help="the working folder, whose runs/ and grids/ are shown; default: this one")
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    parser.add_argument("--open", action="store_true", help="open the page in a browser")
    parser.add_argument("--read-only", action="store_true", help="nothing can be changed or started: to share it over a tunnel")
    parser.add_argument(
        "--root",
        action="append",
        default=[],
        metavar="DIR",
        help="another folder whose files may be shown and edited; repeatable",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Serve until Ctrl-C."""
    if not 0 <= arguments.port < 1 << 16:
        raise Refused(f"--port {arguments.port}: expected 1 to 65535, or 0 for a free one.")
    folder = Path.cwd() if arguments.folder is None else expanded(arguments.folder).absolute()
    roots = [folder, *(expanded(given).absolute() for given in arguments.root)]
    if missing := [root for root in roots if not root.is_dir()]:
        raise NotFound(f"{missing[0]}: there is no such folder. Give one that is there.")
    import asyncio
    import webbrowser

    from loraloom.studio.context import Studio
    from loraloom.studio.guard import ADDRESS, Guard
    from loraloom.studio.server import listening, serve

    studio = Studio(folder=folder, roots=roots, read_only=arguments.read_only)
    guard, place = Guard(), listening(arguments.port)
    address = f"http://{ADDRESS}:{place.getsockname()[1]}/{guard.token}/"

    def ready() -> None:
        console.answer(address)
        console.say("Open this address; Ctrl-C ends." + (" Nothing can be changed: --read-only." if studio.read_only else ""))
        if arguments.open:
            webbrowser.open(address)

    asyncio.run(serve(studio, guard, place, ready))
    leave(PATIENCE)
    return 0


def leave(seconds: float) -> None:
    """Wait for answers that are still computed; end the process where one waits for longer, for which Python would wait for ever.

    That is a file that is no file (a named pipe), or lies on a network disk that hangs. What is written is whole or not there.
    """
    from loraloom.studio.events import NAMED

    until = monotonic() + seconds
    working = [thread for thread in threading.enumerate() if thread.name.startswith(NAMED)]
    with suppress(KeyboardInterrupt):
        for thread in working:
            thread.join(max(0.0, until - monotonic()))
    if left := sum(thread.is_alive() for thread in working if not thread.daemon):
        console.say(f"{counted(left, 'answer')} of the page did not end: the Studio ends without.")
        os._exit(0)
