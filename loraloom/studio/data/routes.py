"""What the section Data answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from loraloom.studio.context import Studio
from loraloom.studio.data import uploads
from loraloom.studio.data.findings import FINDINGS, LintOptions
from loraloom.studio.data.jobs import job_words
from loraloom.studio.data.masks import mask_png
from loraloom.studio.data.pages import entry_json, page_of, set_now, state_seldom
from loraloom.studio.data.requests import check_time, check_unchanged, edit_asked, filter_asked, masks_written, set_folder
from loraloom.studio.data.sets import list_sets
from loraloom.studio.data.sizes import sizes_asked
from loraloom.studio.routes import Ask, Routes, Sent
from registry.errors import NotFound, Refused
from registry.printable import counted
from train.data.editing import journal
from train.data.editing.request import EditRequest
from train.data.listing import KEPT

ROUTES = Routes(name="data", title="Data", order=3)
PER_PAGE = 60
MOST_SHOWN = 100  # changes of a plan that the page lists
MOST_EDITS = 200  # of the history
MOST_UPLOADED = 512 << 20  # bytes of one file


@ROUTES.read("data/sets")
def sets(studio: Studio, _ask: Ask) -> object:
    """The sets, with counts."""
    cards, is_cut = list_sets(studio)
    return {"sets": [card.to_json() for card in cards], "cut": is_cut}


@ROUTES.read("data/set")
def one_set(studio: Studio, ask: Ask) -> object:
    """A page of a set: `only`, `tagged`, `state`, `finding`, `bucket` filter it; with `resolution` it has crops."""
    folder = set_folder(studio, ask)
    sizes = sizes_asked(ask)
    page = page_of(
        set_now(folder), filter_asked(ask), sizes, offset=ask.number("offset", 0), limit=ask.number("limit", PER_PAGE, low=1, high=500)
    )
    return {**page, "writable": _is_writable(studio, folder)}


def _is_writable(studio: Studio, folder: Path) -> bool:
    try:
        studio.places.writable(folder)
    except Refused:
        return False
    return not studio.read_only


@ROUTES.read("data/image")
def one_image(studio: Studio, ask: Ask) -> object:
    """One image of a set, with every crop that training may take of it."""
    now = set_now(set_folder(studio, ask))
    entry = now.found.named(ask.text("image"))
    sizes = sizes_asked(ask)
    looked = FINDINGS.of(now.found.folder)
    marks = looked.by_image().get(entry.name, ()) if looked else ()
    items = now.items([entry], sizes).get(entry.name, ()) if sizes else ()
    return entry_json(now, entry, marks, items)


@ROUTES.read("data/buckets")
def buckets(studio: Studio, ask: Ask) -> object:
    """The buckets of a set at a resolution, with their images counted."""
    now = set_now(set_folder(studio, ask))
    sizes = sizes_asked(ask)
    return {"buckets": now.buckets(sizes) if sizes else []}


# --- edits


@ROUTES.ask("data/plan")
def plan(studio: Studio, ask: Ask) -> object:
    """What an edit would change, the first of it shown, and the command."""
    request = edit_asked(studio, ask)
    check_time(request)
    found = request.plan(known=set_now(request.folder).found if not request.add else None)
    changes = [shown.to_json() for shown in found.shown[:MOST_SHOWN]]
    return {
        "words": request.words(),
        "images": found.looked_at,
        "changed": found.images,
        "without_caption": found.without_caption,
        "changes": changes,
    }


@ROUTES.write("data/edit", most=4 << 20)
def edit(studio: Studio, ask: Ask) -> object:
    """Make an edit; `words` is the command that did the same."""
    request = edit_asked(studio, ask)
    check_time(request)
    check_unchanged(request, ask)
    found, made = request.make()
    used = [Path(file) for file in (*request.masks.values(), *request.add)]
    hashes = [change.after for change in found.changes if hasattr(change, "after")]
    masks = masks_written(request, [one for one in hashes if one])
    words = _lasting(request, hashes)
    uploads.drop(used)
    return {
        "words": words,
        "images": found.looked_at,
        "changed": found.images,
        "edit": made.edit.to_json() if made else None,
        "masks": masks,
    }


def _lasting(request: EditRequest, hashes: list[Any]) -> list[str]:
    """The command's words with files that lie there still: an upload does not."""
    words = request.words()
    for upload in request.masks.values():
        kept = [request.folder / KEPT / "kept" / str(one) for one in hashes if one]
        words = [str(kept[-1]) if word == upload and kept else word for word in words]
    return [Path(word).name if word in request.add else word for word in words]


@ROUTES.write("data/undo")
def undo(studio: Studio, ask: Ask) -> object:
    """Take back the newest edit, or with `finish` finish one that was interrupted; with `number` only while the newest is that one."""
    folder = set_folder(studio, ask, writes=True)
    keep_changed = ask.flag("keep_changed", False)
    act = journal.finish if ask.flag("finish", False) else journal.undo
    number = ask.number("number", 0)
    with journal.editing(folder):
        newest = next((one.number for one in journal.history(folder) if one.stage != "undone"), 0)
        if number and number != newest:
            raise Refused(f"Edit {number} is not the newest one any more: it is undone already, or another was made since.")
        made = act(folder, keep_changed=keep_changed)
    return {"edit": made.edit.to_json(), "changed": list(made.changed), "left": list(made.left)}


@ROUTES.read("data/history")
def history(studio: Studio, ask: Ask) -> object:
    """The edits of a set, the newest first."""
    edits = journal.history(set_folder(studio, ask))
    return {"edits": [one.to_json() for one in edits[:MOST_EDITS]], "all": len(edits)}


@ROUTES.read("data/mask")
def mask(studio: Studio, ask: Ask) -> object:
    """The mask of an image that has one, as training reads it. `v` in the address makes it cacheable."""
    found = set_now(set_folder(studio, ask)).found
    entry = found.named(ask.text("image"))
    if len(entry.masks) != 1:
        raise NotFound(f"{entry.name}: it has {counted(len(entry.masks), 'mask file')}.")
    file = studio.places.readable(found.folder / entry.masks[0])
    return Sent(mask_png(file, of=entry.name), "image/png", lasting=ask.optional("v") is not None)


@ROUTES.upload("data/upload", most=MOST_UPLOADED)
def upload(studio: Studio, ask: Ask) -> object:
    """Keep a dropped file in the home until it is added to a set."""
    if studio.read_only:
        raise Refused("This Studio is read-only. Start it without --read-only to change something.")
    return {"file": str(uploads.take(studio.home, ask.text("name"), ask.body))}


# --- findings and jobs


@ROUTES.ask("data/lint")
def lint(studio: Studio, ask: Ask) -> object:
    """Look a set over, in a thread; the topic data_lint:SET has how far it is."""
    folder = set_folder(studio, ask)
    now = set_now(folder)
    sizes = sizes_asked(ask)
    masks = "auto" if any(entry.masks for entry in now.found.entries) else "none"
    options = LintOptions(ask.text("trigger", "").strip() or None, sizes.sides[-1] if sizes else None, masks)
    return {**FINDINGS.start(folder, now.state, options).to_json(now.state), "words": options.words(folder)}


@ROUTES.topic("data_lint")
def lint_now(studio: Studio, argument: str) -> object:
    """How far the lint of a set is, and what it found."""
    folder = studio.places.readable(argument)
    looked = FINDINGS.of(folder)
    return looked.to_json(state_seldom(folder)) if looked else None


@ROUTES.topic("data_set")
def set_state(studio: Studio, argument: str) -> object:
    """A text that changes with the files of a set."""
    return state_seldom(studio.places.readable(argument))


@ROUTES.ask("data/job_words")
def words_of_job(studio: Studio, ask: Ask) -> object:
    """The command of a job."""
    return {"words": job_words(ask, str(set_folder(studio, ask, writes=True)))}


@ROUTES.write("data/job")
def start_job(studio: Studio, ask: Ask) -> object:
    """Start captioning or mask making through the queue."""
    from loraloom.queue.queue import Queue

    words = job_words(ask, str(set_folder(studio, ask, writes=True)))
    return Queue(studio.home).add(words, folder=studio.folder).to_json()
