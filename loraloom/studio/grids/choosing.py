"""A run's checkpoint chosen by blind votes: drawn as a job, voted on in the page, and the winner kept as NAME@best."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infer.vote.finished import FinishedGrid
from loraloom.commands.choose import run_folder
from loraloom.queue.queue import Queue
from loraloom.studio.context import Studio
from loraloom.studio.grids import voting
from loraloom.studio.routes import Ask, Sent
from registry.errors import NotFound, Refused
from train.choosing.choice import PROMPTS, SEEDS, Choice, plan_choice
from train.choosing.drawn import AXIS, found_grid
from train.choosing.winner import choose_winner


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked of a run, as the switches of `loraloom choose` have it."""

    run: str
    checkpoints: str | None = None
    weights: str | None = None
    prompts: int = PROMPTS
    texts: tuple[str, ...] = ()  # prompts in place of held-out captions
    seeds: int = SEEDS

    def words(self, *more: str) -> list[str]:
        """The command line after `loraloom`."""
        given = ["choose", self.run]
        given += ["--checkpoints", self.checkpoints] if self.checkpoints else []
        given += ["--weights", self.weights] if self.weights else []
        given += ["--prompts", str(self.prompts)] if self.prompts != PROMPTS else []
        for text in self.texts:
            given += ["--prompt", text]
        given += ["--seeds", str(self.seeds)] if self.seeds != SEEDS else []
        return [*given, *more]


def read_question(ask: Ask) -> Question:
    """The question of a request. Raises Refused."""
    texts = tuple(text for text in ask.texts("texts") if text.strip())
    if any(text.startswith(("@", "-")) for text in texts):  # the command reads @FILE, and takes -x for a switch
        raise Refused("prompts: a prompt that begins with @ or - cannot be given here.")
    return Question(
        run=ask.text("run"),
        checkpoints=ask.optional("checkpoints") or None,
        weights=ask.optional("weights") or None,
        prompts=ask.number("prompts", PROMPTS, low=1, high=1000),
        texts=texts,
        seeds=ask.number("seeds", SEEDS, low=1, high=1000),
    )


def plan(studio: Studio, question: Question) -> Choice:
    """The plan of `loraloom choose RUN`. Raises Refused, Faults with all that is wrong."""
    folder = run_folder(question.run, studio.store)
    return plan_choice(
        studio.places.readable(folder),
        studio.store,
        checkpoints=question.checkpoints,
        weights=question.weights,
        prompts=question.prompts,
        given_prompts=question.texts,
        seeds=question.seeds,
    )


def planned(studio: Studio, question: Question) -> dict[str, Any]:
    """The plan as JSON, the words of its job, and whether its images are drawn."""
    choice = plan(studio, question)
    grid = found_grid(choice)
    return {
        "plan": choice.to_json(),
        "words": question.words("--no-vote"),
        "folder": None if grid is None else str(grid.folder),
        "jobs": drawing(studio, question),
    }


def drawing(studio: Studio, question: Question) -> list[dict[str, Any]]:
    """The jobs that wait or run for choices of this run, each with whether it is this one's."""
    wanted = tuple(question.words("--no-vote"))
    jobs = [job for job in Queue(studio.home).jobs(limit=0) if job.words[:1] == ("choose",)]
    of_run = [job for job in jobs if any(job.folder / word == Path(question.run) for word in job.words[1:2])]
    return [{"id": job.id, "command": job.command, "same": job.words == wanted} for job in of_run]


def _drawn(choice: Choice) -> FinishedGrid:
    grid = found_grid(choice)
    if grid is None:
        raise NotFound("The images of this choice are not drawn yet.")
    return grid


def opened(studio: Studio, question: Question) -> dict[str, Any]:
    """A session of votes on the images of a choice. Raises NotFound where they are not drawn."""
    return voting.opened_on(studio, _drawn(plan(studio, question)), (AXIS,))


def ranking(studio: Studio, question: Question) -> Sent:
    """The ranking of the candidates by the votes so far."""
    return voting.ranking_of(_drawn(plan(studio, question)), (AXIS,))


def chosen(studio: Studio, question: Question) -> dict[str, Any]:
    """Rank, and keep the winner as NAME@best where the votes name one: what `loraloom choose RUN --no-vote` does. Raises WriteFailed."""
    choice = plan(studio, question)
    studio.places.writable(Path(choice.run.folder))
    return choose_winner(choice, _drawn(choice), studio.store).to_json()
