"""The answers of the section New run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loraloom.studio.new_run.settings import JOB, described, planner_of, words_of, words_of_run
from loraloom.studio.new_run.sources import matching, sources
from loraloom.studio.routes import Ask, Routes
from loraloom.studio.runs import actions
from loraloom.studio.runs.details import config_elsewhere, is_elsewhere, own_run

if TYPE_CHECKING:
    from loraloom.studio.context import Studio

ROUTES = Routes(name="new_run", title="New run", order=2)


@ROUTES.read("new_run/settings")
def settings(studio: Studio, _ask: Ask) -> object:
    """Every setting and preset."""
    return described(studio)


@ROUTES.read("new_run/sources")
def choose_from(studio: Studio, ask: Ask) -> object:
    """Bases and folders with images that have `text` in them."""
    found, text = sources(studio), ask.text("text", "")
    bases, data = matching(found.bases, text), matching(found.data, text)
    return {"bases": [vars(one) for one in bases], "data": [vars(one) for one in data], "cut": found.cut}


@ROUTES.write("new_run/plan")
def plan(studio: Studio, ask: Ask) -> object:
    """The plan of `loraloom train WORDS dry_run=true`: of the questions of a `page`, numbered upwards, only the newest is answered.

    Not in a read-only Studio: settings name folders anywhere, and a plan shows captions of their images.
    """
    return planner_of(studio).plan(ask.texts("words"), page=ask.text("page", ""), number=ask.number("number", 0)).to_json()


@ROUTES.read("new_run/from")
def earlier(studio: Studio, ask: Ask) -> object:
    """The settings of an earlier run: `path`; of a run whose folder is not here those that the index has."""
    given = ask.text("path")
    if is_elsewhere(studio, given):
        return {"words": words_of(config_elsewhere(studio, given))}
    return {"words": words_of_run(studio, own_run(studio, given))}


@ROUTES.write("new_run/start")
def start(studio: Studio, ask: Ask) -> object:
    """`loraloom queue add [--first] train WORDS`."""
    return actions.start(studio, [JOB, *ask.texts("words")], first=ask.flag("first")).to_json()
