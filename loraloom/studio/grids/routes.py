"""What the section Grids answers. Each answer reads its values and calls one function."""

from __future__ import annotations

from loraloom.studio.context import Studio
from loraloom.studio.grids import listing, viewing
from loraloom.studio.routes import Ask, Routes

ROUTES = Routes(name="grids", title="Grids", order=5)
PAGE = 24  # grids of a page


@ROUTES.read("grids/list")
def grids(studio: Studio, ask: Ask) -> object:
    """Grids from `offset` on, `limit` at most; of those that have all words of `search` in their folder, base or axes."""
    found = listing.listing_of(studio)
    return found.page(ask.number("offset", 0), ask.number("limit", PAGE, low=1, high=200), search=ask.text("search", ""))


@ROUTES.topic("grids")
def changed(studio: Studio, _argument: str) -> object:
    """Changes whenever a grid is begun, goes on or ends."""
    return listing.listing_of(studio).state()


@ROUTES.read("grids/grid")
def grid(studio: Studio, ask: Ask) -> object:
    """One grid, as the list has it."""
    return listing.listing_of(studio).row(viewing.grid_folder(studio, ask.text("folder")))


@ROUTES.topic("grids-grid")
def one_changed(studio: Studio, argument: str) -> object:
    """One grid, as the list has it, whenever it changes."""
    return listing.listing_of(studio).row(viewing.grid_folder(studio, argument))


@ROUTES.read("grids/viewer")
def viewer(studio: Studio, ask: Ask) -> object:
    """The report's own page of a grid, with its data."""
    return viewing.viewer(viewing.grid_folder(studio, ask.text("folder")))


@ROUTES.read("grids/part")
def part(studio: Studio, ask: Ask) -> object:
    """What was drawn since, of a grid that is being drawn."""
    return viewing.part(viewing.grid_folder(studio, ask.text("folder")), ask.number("part", 0, high=100_000))


@ROUTES.read("grids/panel")
def panel(studio: Studio, ask: Ask) -> object:
    """How a cell's image came about."""
    return viewing.panel(viewing.grid_folder(studio, ask.text("folder")), ask.text("key"))


@ROUTES.read("grids/file")
def file(studio: Studio, ask: Ask) -> object:
    """An image in a grid's folder, or a small copy of about `side` pixels."""
    folder = viewing.grid_folder(studio, ask.text("folder"))
    return viewing.file(studio, folder, ask.text("name"), ask.number("side", 0, high=4096), lasting=ask.optional("v") is not None)


@ROUTES.write("grids/mend")
def mend(studio: Studio, ask: Ask) -> object:
    """Make the report of a killed grid whole: `loraloom report FOLDER`."""
    return viewing.mended(studio, viewing.grid_folder(studio, ask.text("folder")))
