"""What the section Models answers."""

from __future__ import annotations

from pathlib import Path

from loraloom.studio.context import Studio
from loraloom.studio.models.cards import card_page
from loraloom.studio.models.detail import detail, layouts, partners, registered
from loraloom.studio.models.dropped import ModelFile, known_file, models_of_image
from loraloom.studio.models.graph import graph_of
from loraloom.studio.models.grid_images import GridImages
from loraloom.studio.models.images import servable
from loraloom.studio.models.jobs import add_job, export_links, plan
from loraloom.studio.places import MEDIA
from loraloom.studio.routes import Ask, Routes, Sent, SentFile
from registry.errors import Refused
from registry.home import index_place
from registry.index.catalogue.selection import Selection
from registry.record import OVERRIDABLE
from registry.references import EMBEDDED

ROUTES = Routes(name="models", title="Models", order=4)
MOST_AT_ONCE = 200  # cards of one answer
LARGEST_IMAGE = 64 << 20  # bytes of a dropped image
_GRIDS: dict[tuple[Path, ...], GridImages] = {}


def grids_of(studio: Studio) -> GridImages:
    """The grids below the Studio's folders; every page and thread shares them."""
    return _GRIDS.setdefault(tuple(studio.roots), GridImages(tuple(studio.roots)))


def _selection(ask: Ask) -> Selection:
    return Selection(
        words=tuple(word for text in ask.texts("words") for word in text.split()),
        kind=ask.optional("kind"),
        family=ask.optional("family"),
        rank=ask.optional("rank"),
        tags=tuple(ask.texts("tags")),
        licence=ask.optional("licence"),
        warning=ask.optional("warning"),
        missing=ask.flag("missing"),
    )


@ROUTES.ask("models/list")
def listing(studio: Studio, ask: Ask) -> object:
    """A part of a selection: cards, how many there are, and the counts of every facet."""
    offset, limit = ask.number("offset", 0), ask.number("limit", 60, low=1, high=MOST_AT_ONCE)
    page = card_page(studio.store, _selection(ask), ask.optional("sort"), grids_of(studio), offset=offset, limit=limit)
    return page.to_json()


@ROUTES.ask("models/ids")
def ids(studio: Studio, ask: Ask) -> object:
    """The ids of a selection, in its order."""
    with studio.store.browse(_selection(ask), sort=ask.optional("sort")) as found:
        return {"ids": list(found.ids)}


@ROUTES.ask("models/unhashed", most=4 << 20)
def unhashed(studio: Studio, ask: Ask) -> object:
    """How many bytes of these models are read before they can be annotated, those without a hash; and which are registered no more."""
    ids = ask.texts("ids")
    found = studio.store.with_ids(ids)
    there = {record.id for record in found}
    return {
        "gone": [id for id in dict.fromkeys(ids) if id not in there],
        "bytes": sum(
            entry.bytes for record in found if record.hashes.sha256 is None and record.id not in EMBEDDED for entry in record.files
        ),
    }


@ROUTES.read("models/one")
def one(studio: Studio, ask: Ask) -> object:
    """One model's page."""
    return detail(studio, ask.text("id"), grids_of(studio)).to_json()


@ROUTES.read("models/image")
def image(studio: Studio, ask: Ask) -> object:
    """The image of a model's card, or one of its own by `path`; a thumbnail of about `side` pixels where that is given."""
    store = studio.store
    record = next(iter(store.with_ids([ask.text("id")])), None)
    if record is None:
        raise Refused("This model is not registered any more.")
    path = servable(studio, record, ask.optional("path"), grids_of(studio))
    side, lasting = ask.number("side", 0, high=4096), ask.optional("v") is not None
    if side == 0:
        return SentFile(path, MEDIA[path.suffix.lower()], lasting=lasting)
    return Sent(*studio.places.thumbnail(path.resolve(), side), lasting=lasting)


@ROUTES.read("models/lineage")
def lineage(studio: Studio, ask: Ask) -> object:
    """What a model was made from, and what was made from it, as a graph."""
    return graph_of(studio.store.lineage(registered(studio.store, ask.text("id")).id)).to_json()


@ROUTES.read("models/partners")
def compared(studio: Studio, ask: Ask) -> object:
    """The models that a base or adapter can be compared with."""
    return {"partners": [vars(partner) for partner in partners(studio.store, registered(studio.store, ask.text("id")))]}


@ROUTES.read("models/fits")
def fit(studio: Studio, ask: Ask) -> object:
    """Whether an adapter fits a base, as `registry fits` says."""
    from registry.detect.inspect import fits

    adapter = studio.store.find(registered(studio.store, ask.text("adapter")).id, kind="adapter")
    base = studio.store.find(registered(studio.store, ask.text("base")).id, kind="checkpoint")
    found = fits(Path(str(adapter.path)), Path(str(base.path)))
    return {**found.to_json(), "text": found.explain()}


@ROUTES.read("models/layouts")
def tools(_studio: Studio, _ask: Ask) -> object:
    """The tools that models are exported to."""
    return {"layouts": [{"name": name, "title": title} for name, title in layouts()]}


@ROUTES.read("models/duplicates")
def duplicates(studio: Studio, _ask: Ask) -> object:
    """What is there more than once."""
    return {"duplicates": [found.to_json() for found in studio.store.duplicates()]}


@ROUTES.upload("models/image-models", most=LARGEST_IMAGE)
def image_models(studio: Studio, ask: Ask) -> object:
    """The models that a dropped image names."""
    return models_of_image(ask.body, ask.text("name"), studio.store).to_json()


@ROUTES.ask("models/file")
def file(studio: Studio, ask: Ask) -> object:
    """What is known of a dropped model file, by the hashes that the browser computed."""
    hashes = ask.values.get("hashes")
    if not isinstance(hashes, dict) or not all(isinstance(value, str) for value in hashes.values()):
        raise Refused("hashes: expected an object of texts.")
    return known_file(ModelFile(name=ask.text("name"), bytes=ask.number("bytes", 0), hashes=hashes), studio.store).to_json()


# --- changes, each the function behind its command


@ROUTES.write("models/tag", most=4 << 20)
def tag(studio: Studio, ask: Ask) -> object:
    """registry tag: tags of several models at once."""
    changed = studio.store.tag_all(ask.texts("ids"), ask.texts("add"), remove=ask.texts("remove"))
    return {"changed": len(changed)}


@ROUTES.write("models/note")
def note(studio: Studio, ask: Ask) -> object:
    """registry note."""
    return {"notes": studio.store.note(registered(studio.store, ask.text("id")).id, ask.text("text")).notes}


@ROUTES.write("models/alias")
def alias(studio: Studio, ask: Ask) -> object:
    """registry alias."""
    found = studio.store.alias(registered(studio.store, ask.text("id")).id, ask.text("alias"), remove=ask.flag("remove"))
    return {"aliases": list(found.aliases)}


@ROUTES.write("models/set")
def set_fields(studio: Studio, ask: Ask) -> object:
    """registry set: overrides of what was detected, trigger words, the image."""
    image = ask.optional("image")
    if image is not None:
        record = registered(studio.store, ask.text("id"))
        image = str(servable(studio, record, image, grids_of(studio)))
    forget = ask.texts("forget")
    if unknown := [name for name in forget if name not in OVERRIDABLE]:
        raise Refused(f"forget: {', '.join(unknown)} cannot be forgotten. Expected {', '.join(OVERRIDABLE)}.")
    changed = studio.store.override(
        registered(studio.store, ask.text("id")).id,
        kind=ask.optional("kind"),
        family=ask.optional("family"),
        variant=ask.optional("variant"),
        licence=ask.optional("licence"),
        image=image,
        triggers=ask.texts("triggers"),
        forget=forget,
    )
    return {"record": changed.to_json()}


@ROUTES.write("models/verify")
def verify(studio: Studio, ask: Ask) -> object:
    """registry verify of one model."""
    return studio.store.verify(studio.store.find(registered(studio.store, ask.text("id")).id, fresh=False)).to_json()


@ROUTES.write("models/remove")
def remove(studio: Studio, ask: Ask) -> object:
    """registry rm: from the index alone, never a file."""
    done = studio.store.remove(registered(studio.store, ask.text("id")).id)
    return {"name": done.record.name, "derived": list(done.derived)}


@ROUTES.ask("models/plan")
def planned(studio: Studio, ask: Ask) -> object:
    """registry convert|export --dry-run."""
    return plan(studio, ask.texts("words"))


@ROUTES.write("models/export")
def export(studio: Studio, ask: Ask) -> object:
    """registry export of what is linked as it is."""
    return export_links(studio, ask.texts("words"))


@ROUTES.write("models/queue", most=4 << 20)
def queue(studio: Studio, ask: Ask) -> object:
    """A command of the registry as a job of the queue."""
    return add_job(studio, ask.texts("words")).to_json()


@ROUTES.topic("models")
def changes(studio: Studio, _argument: str) -> object:
    """Another value when the index changes: its files' sizes and times, of a server's index the number of records."""
    place = index_place(studio.home)
    if not isinstance(place, Path):
        return studio.store.count()
    found = []
    for path in (place, place.with_name(f"{place.name}-wal")):
        try:
            stat = path.stat()
        except OSError:
            continue
        found.append(f"{stat.st_mtime_ns:x}-{stat.st_size:x}")
    return found
