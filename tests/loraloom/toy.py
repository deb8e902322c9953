"""A tiny job with every kind of setting: the machinery is generic, so its tests do not lean on train or grid."""

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from loraloom.hydra.job import Finished, Request
from registry.errors import Faults, LoomError


class Mode(Enum):
    """How the toy works."""

    quick = "quick"
    careful = "careful"


@dataclass(kw_only=True)
class Knobs:
    """A section."""

    rank: int = field(default=4, metadata={"help": "how wide"})
    label: str | None = field(default=None, metadata={"help": "what it is called"})
    rate: float = field(default=0.5, metadata={"help": "how fast"})


@dataclass(kw_only=True)
class Toy:
    """All kinds of settings that a job may have."""

    prompt: str = field(default="", metadata={"help": "what to draw"})
    negative: str | None = field(default=None, metadata={"help": "what not to draw"})
    sampler: str | None = field(default=None, metadata={"help": "a name in a table", "word": True})
    steps: int = field(default=10, metadata={"help": "how many"})
    mode: Mode = field(default=Mode.quick, metadata={"help": "how"})
    knobs: Knobs = field(default_factory=Knobs)
    words: list[str] | None = field(default=None, metadata={"help": "several texts"})
    size: Any = field(default=None, metadata={"help": "64 or 96x64"})
    out: str = field(default="runs", metadata={"help": "where"})
    dry_run: bool = field(default=False, metadata={"help": "plan only"})

    def __post_init__(self) -> None:
        faults = [
            f"{name} must be at least 1, got {value}."
            for name, value in (("steps", self.steps), ("knobs.rank", self.knobs.rank))
            if value < 1
        ]
        if faults:
            raise Faults("These settings are out of range:", faults)


class Stopped(LoomError):
    """As train's own: distinguished by its exit code."""

    exit_code = 130


@dataclass(frozen=True)
class ToyPlan:
    """A plan that shows what was given."""

    request: Request[Toy]

    def to_text(self) -> str:
        return f"plan: {self.request.config.steps} steps"

    def to_json(self) -> Any:
        return {"steps": self.request.config.steps, "given": dict(self.request.given)}


CONF = {
    "toy.yaml": """\
defaults:
  - toy_schema
  - _self_
  - model: small
  - knobs: null
  - override hydra/job_logging: none
  - override hydra/hydra_logging: none
steps: 20
hydra:
  run: {dir: .}
  sweep: {dir: runs/sweeps, subdir: .}
  output_subdir: null
""",
    "model/small.yaml": "# @package _global_\n# Learns in a minute.\nknobs: {rank: 2}\n",
    "model/large.yaml": "# @package _global_\n# Needs your own file.\nprompt: ???\nsteps: 99\n",
    "knobs/wide.yaml": "# More room.\nrank: 64\nlabel: wide\n",
}

RUNS: list[Request[Toy]] = []  # what the job was run with, in order


def run_toy(request: Request[Toy]) -> Finished:
    if request.config.prompt == "fail":
        raise RuntimeError("the toy broke")
    if request.config.prompt == "stop":
        raise Stopped("step 3 is kept")
    RUNS.append(request)
    folder = Path(request.config.out) / "toy" / str(len(RUNS))
    folder.mkdir(parents=True)
    return Finished(folder)
