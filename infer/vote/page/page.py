"""The page itself: for the local server, or as one static file whose votes come back as a JSON file."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from infer.draw.machine import version_of
from infer.output.page.images import embed
from infer.output.page.policy import allowed
from infer.vote.comparison import Comparison
from infer.vote.page.images import bare_image
from infer.vote.page.order import Order, Tallies, Trial, every_place
from infer.vote.page.session import Session, shown_prompt
from infer.vote.pages import environment
from infer.vote.ranking.verdict import preview
from infer.vote.returned import FORMAT, image_id
from registry.errors import Refused
from registry.formats.atomic_file import write_text
from registry.printable import one_line, script_json

POLICY = "default-src 'none'; img-src 'self' data:; connect-src 'self'; style-src 'unsafe-inline'; script-src {}"


def server_page(session: Session) -> str:
    """The HTML that the local server sends: it holds no pair, they are asked for one by one."""
    return session_page(session, at="", image="image/", given={})


def session_page(session: Session, *, at: str, image: str, given: Mapping[str, str]) -> str:
    """The same for a server with more to answer: what its addresses begin with, those of images too, and what is sent with each vote."""
    data = {"mode": "server", "voter": session.voter, "at": at, "image": image, "given": dict(given)}
    return _page(data, preview=session.preview(), notes=session.notes(), saves=False)


def policy() -> str:
    """What a server's page may do, as a Content-Security-Policy: run its own script and no other, ask its server, show its images."""
    return POLICY.format(allowed(_script(environment()[1])))


def write_static(path: Path, found: Comparison, *, asked: int, seed: int, voter: str | None) -> list[str]:
    """Write the page with its images inside; gives notes on images that had to be embedded smaller.

    The pairs are planned beforehand, every two candidates as often as any.
    """
    trials, salt = _planned(found, asked, seed), secrets.token_hex(16)
    if not trials:
        raise Refused("No two of these candidates have images of one prompt and seed, so there is nothing to vote on. Draw the grid first.")
    cells = {cell.key: cell for one in trials for cell in (found.cells[one.block][one.left], found.cells[one.block][one.right])}
    images, _, notes = embed(
        [bare_image(cell.image, cell.outside.box if cell.outside else None) for cell in cells.values() if cell.image is not None]
    )
    rows = []
    for one in trials:
        left, right = found.cells[one.block][one.left], found.cells[one.block][one.right]
        rows.append([image_id(salt, left.key), image_id(salt, right.key), shown_prompt(left, right)])
    names = [image_id(salt, key) for key in cells]
    order = sorted(range(len(names)), key=names.__getitem__)  # not the order of the grid
    data = {
        "mode": "file",
        "voter": voter,
        "format": FORMAT,
        "salt": salt,
        "trials": rows,
        "images": {names[index]: images[index] for index in order},
    }
    text = preview(sum(not one.repeat for one in trials), len(found.candidates))
    write_text(path, _page(data, preview=text, notes=(), saves=True))
    return notes


def _planned(found: Comparison, asked: int, seed: int) -> list[Trial]:
    """The pairs of a voter of whom nothing is known."""
    tallies = Tallies(found)
    order = Order(found, tallies, voter="", seed=seed, asked=asked, places=every_place(found))
    trials: list[Trial] = []
    while (trial := order.next()) is not None:
        order.cast(trial)
        tallies.add(trial, "tie")  # so that the next are others
        trials.append(trial)
    return trials


def _page(data: dict[str, Any], *, preview: str, notes: Sequence[str], saves: bool) -> str:
    from markupsafe import Markup

    templates, own = environment()
    script = _script(own)
    made: str = templates.get_template("vote.html").render(
        generator=f"LoRA Loom {version_of('loraloom')}",
        preview=preview,
        notes=[one_line(note) for note in notes],
        saves=saves,
        css=own("report.css") + own("vote.css"),
        policy=Markup(POLICY.format(allowed(script))),
        js=script,
        data=Markup(script_json(data)),
    )
    return made


def _script(own: Callable[[str], Any]) -> Any:
    """The script of the page."""
    return own("dom.js") + own("page.js") + own("zoom.js") + own("vote.js")
