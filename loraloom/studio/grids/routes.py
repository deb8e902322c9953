"""What the section Grids answers. Each answer reads its values and calls one function."""

from __future__ import annotations

from loraloom.studio.context import Studio
from loraloom.studio.grids import building, choosing, jobs, listing, viewing, voting
from loraloom.studio.routes import Ask, Routes
from loraloom.studio.runs.listing import own_queue, start_waiting
from registry.errors import Refused
from registry.plain_values import from_json

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
    """One grid, as the list has it, with the job that draws it."""
    return _shown(studio, ask.text("folder"))


@ROUTES.topic("grids-grid")
def one_changed(studio: Studio, argument: str) -> object:
    """The same, whenever it changes."""
    return _shown(studio, argument)


def _shown(studio: Studio, given: str) -> object:
    folder = viewing.grid_folder(studio, given)
    row = listing.listing_of(studio).row(folder)
    return row | {"job": jobs.drawing(studio, folder) if row["state"] == "drawing" else None}


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


# --- the builder


@ROUTES.read("grids/form")
def form(studio: Studio, _ask: Ask) -> object:
    """The fields of the builder."""
    return building.described(studio)


@ROUTES.read("grids/models")
def models(studio: Studio, ask: Ask) -> object:
    """Registered models of a kind, for suggestions."""
    return building.models(studio, ask.text("kind"), ask.text("typed", ""))


@ROUTES.read("grids/again")
def again(studio: Studio, ask: Ask) -> object:
    """The settings of a grid, or of one of its cells, for the builder."""
    folder, cell = viewing.grid_folder(studio, ask.text("folder")), ask.optional("cell")
    found = building.form_of_cell(folder, cell) if cell is not None else building.form_of_grid(studio, folder)
    return found.to_json()


@ROUTES.write("grids/plan")
def plan(studio: Studio, ask: Ask) -> object:
    """The plan of the builder's settings, or their faults, and the words of the command.

    Not in a read-only Studio: settings name files anywhere, and axes.prompt=@FILE shows the lines of one.
    """
    given = building.read_form(ask.values.get("form"))
    found = building.planned(studio, given, page=ask.text("page", ""), number=ask.number("number", 0))
    return {"words": building.words_of(given), **found.to_json()}


@ROUTES.write("grids/draw")
def draw(studio: Studio, ask: Ask) -> object:
    """Draw a grid as a job: `loraloom grid ...`."""
    return jobs.add(studio, ["grid", *building.words_of(building.read_form(ask.values.get("form")))])


# --- jobs


@ROUTES.topic("grids-jobs")
def all_jobs(studio: Studio, _argument: str) -> object:
    """The jobs of this section that run or wait, and the last ones."""
    return jobs.jobs(studio)


@ROUTES.topic("grids-job")
def one_job(studio: Studio, argument: str) -> object:
    """One job, with the end of its log; one that waits for nothing is started."""
    start_waiting(studio, [own_queue(studio).job(argument)])
    return jobs.job(studio, argument)


@ROUTES.read("grids/scores")
def scores(_studio: Studio, _ask: Ask) -> object:
    """The scores that a grid's images can have."""
    return jobs.scores()


@ROUTES.write("grids/score")
def score(studio: Studio, ask: Ask) -> object:
    """Score a grid's images as a job: `loraloom score FOLDER --score ...`."""
    return jobs.add(studio, jobs.score_words(viewing.grid_folder(studio, ask.text("folder")), ask.texts("scores")))


@ROUTES.write("grids/explain")
def explain(studio: Studio, ask: Ask) -> object:
    """Explain a cell as a job: `loraloom explain FOLDER --cells KEY`."""
    return jobs.add(studio, jobs.explain_words(viewing.grid_folder(studio, ask.text("folder")), ask.text("key")))


# --- votes


@ROUTES.read("grids/comparable")
def comparable(studio: Studio, ask: Ask) -> object:
    """The axes of a grid that can be compared by votes."""
    return voting.comparable(viewing.grid_folder(studio, ask.text("folder")), ask.optional("compare"))


@ROUTES.write("grids/vote")
def vote(studio: Studio, ask: Ask) -> object:
    """Open a session of votes: the pairs of `loraloom vote FOLDER`."""
    return voting.opened(studio, viewing.grid_folder(studio, ask.text("folder")), ask.optional("compare"))


@ROUTES.read("grids/ballot")
def ballot(_studio: Studio, ask: Ask) -> object:
    """The page of a session."""
    return voting.ballot(ask.text("session"))


@ROUTES.read("grids/ballot/image")
def ballot_image(_studio: Studio, ask: Ask) -> object:
    """An image of a session."""
    return voting.image(ask.text("session"), ask.text("name"))


@ROUTES.write("grids/ballot/start", most=4096)
def ballot_start(_studio: Studio, ask: Ask) -> object:
    """The open pair of a voter."""
    voter = voting.voter_of(ask.values)
    return voting.cast(ask.text("session"), lambda session: session.start(voter))


@ROUTES.write("grids/ballot/vote", most=4096)
def ballot_vote(_studio: Studio, ask: Ask) -> object:
    """A vote, on the disk before this answers."""
    voter, id, choice = voting.voter_of(ask.values), ask.text("id"), ask.text("choice")
    seconds = voting.seconds_of(ask.values)
    return voting.cast(ask.text("session"), lambda session: session.vote(voter, id, choice, seconds))


@ROUTES.write("grids/ballot/skip", most=4096)
def ballot_skip(_studio: Studio, ask: Ask) -> object:
    """Another pair in place of the open one."""
    voter, id = voting.voter_of(ask.values), ask.text("id")
    return voting.cast(ask.text("session"), lambda session: session.skip(voter, id))


@ROUTES.write("grids/ballot/undo", most=4096)
def ballot_undo(_studio: Studio, ask: Ask) -> object:
    """Take back the last vote of a voter."""
    voter = voting.voter_of(ask.values)
    return voting.cast(ask.text("session"), lambda session: session.undo(voter))


@ROUTES.write("grids/ballot/more", most=4096)
def ballot_more(_studio: Studio, ask: Ask) -> object:
    """More pairs for a voter."""
    voter = voting.voter_of(ask.values)
    return voting.cast(ask.text("session"), lambda session: session.more(voter))


@ROUTES.read("grids/ranking")
def ranking(studio: Studio, ask: Ask) -> object:
    """The ranking by a grid's votes: `loraloom rank FOLDER`."""
    return voting.ranking(viewing.grid_folder(studio, ask.text("folder")), ask.optional("compare"))


# --- a run's checkpoint


@ROUTES.read("grids/runs")
def runs(studio: Studio, _ask: Ask) -> object:
    """Training runs below the Studio's folders, the newest first."""
    return listing.listing_of(studio).runs()


@ROUTES.ask("grids/choose_plan")
def choose_plan(studio: Studio, ask: Ask) -> object:
    """The plan of `loraloom choose RUN`, and whether its images are drawn."""
    return choosing.planned(studio, choosing.read_question(ask))


@ROUTES.write("grids/choose_draw")
def choose_draw(studio: Studio, ask: Ask) -> object:
    """Draw a run's checkpoints as a job: `loraloom choose RUN --no-vote`."""
    return jobs.add(studio, choosing.read_question(ask).words("--no-vote"))


@ROUTES.write("grids/choose_vote")
def choose_vote(studio: Studio, ask: Ask) -> object:
    """Open a session of votes on a run's checkpoints."""
    return choosing.opened(studio, choosing.read_question(ask))


@ROUTES.read("grids/choose_ranking")
def choose_ranking(studio: Studio, ask: Ask) -> object:
    """The ranking of a run's checkpoints by the votes so far."""
    try:
        values = from_json(ask.text("question"))
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise Refused("question: expected a JSON object.")
    return choosing.ranking(studio, choosing.read_question(Ask(values)))


@ROUTES.write("grids/choose")
def choose(studio: Studio, ask: Ask) -> object:
    """Keep the winner as NAME@best where the votes name one: `loraloom choose RUN --no-vote`."""
    return choosing.chosen(studio, choosing.read_question(ask))
