"""The answers of the section Runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loraloom.studio.guard import EVERYWHERE
from loraloom.studio.routes import Ask, Routes, Sent
from loraloom.studio.runs import actions
from loraloom.studio.runs import details as run_details
from loraloom.studio.runs import listing as run_listing
from loraloom.studio.runs.compare import compared
from loraloom.studio.runs.curves import run_charts
from loraloom.studio.runs.folders import run_folder
from loraloom.studio.runs.sweeps import sweep, sweeps
from registry.errors import Refused
from registry.names import suggest
from train.output import requests

if TYPE_CHECKING:
    from loraloom.studio.context import Studio

ROUTES = Routes(name="runs", title="Runs", order=1)

PAGE = 50  # rows
MOST = 200  # rows of a request
LOG = 1 << 16  # bytes of a log at once
SEALED = "sandbox allow-scripts; default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


@ROUTES.read("runs/list")
def listed(studio: Studio, ask: Ask) -> object:
    """A page of jobs and runs: `text`, `state`, `offset`, `limit`."""
    state = ask.text("state", "")
    if state and state not in run_listing.STATES:
        raise Refused(f"Unknown state {state!r:.60}. {suggest(state, run_listing.STATES, whole=True)}")
    limit = ask.number("limit", PAGE, low=1, high=MOST)
    return run_listing.listing(studio, text=ask.text("text", ""), state=state, offset=ask.number("offset", 0), limit=limit)


@ROUTES.topic("runs")
def watched_list(studio: Studio, _argument: str) -> object:
    """The jobs that run and wait, and whether the list has changed."""
    return run_listing.glance(studio)


@ROUTES.read("runs/run")
def run(studio: Studio, ask: Ask) -> object:
    """A run's page; of a run whose folder is not here what the index has."""
    given = ask.text("path")
    if run_details.is_elsewhere(studio, given):
        return run_details.elsewhere(studio, given)
    return run_details.details(studio, run_details.own_run(studio, given))


@ROUTES.topic("run")
def watched_run(studio: Studio, argument: str) -> object:
    """How far a run is, and what has changed of its files."""
    return vars(run_details.glance(studio, run_details.own_run(studio, argument)))


@ROUTES.read("runs/curves")
def curves(studio: Studio, ask: Ask) -> object:
    """The charts of a run so far."""
    folder = run_details.own_run(studio, ask.text("path"))
    return {"charts": [chart.to_json() for chart in run_charts(folder)]}


@ROUTES.read("runs/previews")
def previews(studio: Studio, ask: Ask) -> object:
    """The previews of a run by prompt and step."""
    from train.output.folder import read_config

    folder = run_details.own_run(studio, ask.text("path"))
    return run_details.previews(folder, read_config(folder))


@ROUTES.read("runs/report")
def report(studio: Studio, ask: Ask) -> object:
    """report.html of a run, as a page that can reach neither the Studio nor anything else: whoever wrote that file."""
    folder = run_details.own_run(studio, ask.text("path"))
    page = studio.places.readable(folder / run_details.REPORT)
    return Sent(page.read_bytes(), "text/html; charset=utf-8", policy=f"{SEALED}; {EVERYWHERE}")


@ROUTES.read("runs/files")
def files(studio: Studio, ask: Ask) -> object:
    """The files of a run folder."""
    return run_details.files_of(run_details.own_run(studio, ask.text("path")))


@ROUTES.read("runs/job")
def job(studio: Studio, ask: Ask) -> object:
    """One job of the queue; of one that made a single run here also that run."""
    found = run_listing.own_queue(studio).job(ask.text("id"))
    return found.to_json() | {"runs": [vars(run_folder(path)) for path in found.made if (path / "config.yaml").is_file()]}


@ROUTES.topic("job")
def watched_job(studio: Studio, argument: str) -> object:
    """One job; one that waits for nothing is started."""
    found = run_listing.own_queue(studio).job(argument)
    run_listing.start_waiting(studio, [found])
    return found.to_json()


@ROUTES.read("runs/log")
def log(studio: Studio, ask: Ask) -> object:
    """What a job wrote from the byte `start` on, and the byte to continue from; without `start` the end of it."""
    start = ask.number("start", -LOG, low=-LOG)
    text, after = run_listing.own_queue(studio).log(ask.text("id"), start=start, most=LOG)
    return {"text": text, "next": after}


@ROUTES.ask("runs/compare")
def compare(studio: Studio, ask: Ask) -> object:
    """2 to 6 runs side by side: `paths`."""
    return compared([run_details.own_run(studio, path) for path in ask.texts("paths")])


@ROUTES.read("runs/sweeps")
def all_sweeps(studio: Studio, ask: Ask) -> object:
    """A page of the sweeps."""
    return sweeps(studio.roots, offset=ask.number("offset", 0), limit=ask.number("limit", PAGE, low=1, high=MOST))


@ROUTES.read("runs/sweep")
def one_sweep(studio: Studio, ask: Ask) -> object:
    """A sweep's runs with the best."""
    folder = studio.places.readable(ask.text("path"))
    if not (folder / "runs").is_dir():
        raise Refused(f"{folder}: this is not the folder of a sweep.")
    return sweep(folder)


# --- what changes something


@ROUTES.write("runs/stop")
def stop(studio: Studio, ask: Ask) -> object:
    """`loraloom queue stop ID`: a training saves a checkpoint first; a second time ends it at once.

    `stops` is how often it was asked as far as the page knows: a second click, or another page's, is not the next stop.
    """
    return run_listing.own_queue(studio).stop(ask.text("id"), stops=ask.number("stops", 0)).to_json()


@ROUTES.write("runs/remove")
def remove(studio: Studio, ask: Ask) -> object:
    """`loraloom queue remove ID`."""
    run_listing.own_queue(studio).remove(ask.text("id"))
    return {}


@ROUTES.write("runs/move")
def move(studio: Studio, ask: Ask) -> object:
    """`loraloom queue move ID --first | --last | --before OTHER`: `place` is first, last, up or down."""
    actions.move(studio, ask.text("id"), ask.text("place"))
    return {}


@ROUTES.write("runs/again")
def again(studio: Studio, ask: Ask) -> object:
    """`loraloom queue resume ID`: an ended job once more."""
    return run_listing.own_queue(studio).resume(ask.text("id")).to_json()


@ROUTES.write("runs/resume")
def resume(studio: Studio, ask: Ask) -> object:
    """`loraloom queue add train resume=FOLDER`."""
    return actions.resume_run(studio, run_details.own_run(studio, ask.text("path"))).to_json()


@ROUTES.write("runs/make_report")
def make_report(studio: Studio, ask: Ask) -> object:
    """`loraloom queue add report RUN`: the report of a run that is not finished; `added` is false where a job makes it already."""
    job, added = actions.make_report(studio, run_details.own_run(studio, ask.text("path")))
    return job.to_json() | {"added": added}


@ROUTES.write("runs/ask")
def ask_run(studio: Studio, ask: Ask) -> object:
    """`loraloom control RUN save | sample | stop`: asked of a training that runs, wherever it was started; `what` is one of them."""
    what = ask.text("what")
    if what not in requests.KINDS:
        raise Refused(f"what: {suggest(what, requests.KINDS)}")
    requests.ask(run_details.own_run(studio, ask.text("path")), what)
    return {}


@ROUTES.write("runs/pause")
def pause(studio: Studio, ask: Ask) -> object:
    """`loraloom queue pause`, or `loraloom queue start` where `paused` is false."""
    queue = run_listing.own_queue(studio)
    queue.pause() if ask.flag("paused") else queue.start()
    return {"paused": queue.paused}
