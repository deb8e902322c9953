"""`loraloom judge RUN`: a run's checkpoints drawn beside the base, and which of them are good by their images."""

import argparse
from typing import Any

from loraloom import console
from registry.errors import Refused
from registry.home import expanded

NAME = "judge"
HELP = "draw a run's checkpoints beside the base, and say which are good: style, drift, copies, with intervals"


def add_parser(subparsers: Any) -> None:
    """Add `judge` to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser(NAME, help=HELP, description=f"{HELP.capitalize()}.")
    parser.add_argument("folder", metavar="RUN", help="a run folder, runs/<name>/<stamp>; its kept checkpoints are compared")
    parser.add_argument("--prompts", type=int, default=8, metavar="N", help="prompts of held-out images that are drawn (8)")
    parser.add_argument("--seeds", type=int, default=2, metavar="N", help="seeds a prompt (2)")
    parser.add_argument(
        "--generic",
        action="append",
        metavar="TEXT",
        help="a prompt beside the set, to see drift; several by repeating",
    )
    parser.add_argument(
        "--embed",
        action="append",
        default=[],
        metavar="PATH",
        help="image model of this machine (CLIP, SigLIP, DINOv2: a folder of transformers; SSCD: TorchScript; ONNX), to measure likeness "
        "to held-out images and copies; several by repeating",
    )
    parser.add_argument("--embed-size", type=int, metavar="PIXELS", help="short side for a file that names no size (288, as SSCD)")
    both = "model with an image and a text side (CLIP, SigLIP), to measure how prompts are followed"
    parser.add_argument("--clip", metavar="PATH", help=both)
    faces = "face embedding such as ArcFace's (ONNX or TorchScript), to measure how like the set's faces the drawn ones are"
    parser.add_argument("--faces", metavar="PATH", help=faces)
    parser.add_argument("--face-detector", metavar="PATH", help="YuNet's ONNX file (OpenCV's model zoo), which finds the faces")
    parser.add_argument("--dry-run", action="store_true", help="check everything, count the images, and stop")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Plan, draw, measure, and show the table."""
    from registry.store import Store
    from train.judging.models import GivenModels
    from train.judging.run import GENERIC, judge_run, plan_judging
    from train.run_report.judgement_rows import judgement_rows
    from train.run_report.model_tables import model_tables

    for name in ("prompts", "seeds"):
        if not 1 <= getattr(arguments, name) <= 1000:
            raise Refused(f"--{name} must be from 1 to 1000, got {getattr(arguments, name)}.")
    generic = tuple(arguments.generic) if arguments.generic else GENERIC
    store = Store()
    with console.progress() as report:
        planned = plan_judging(
            expanded(arguments.folder),
            store,
            prompts=arguments.prompts,
            seeds=arguments.seeds,
            generic=generic,
            models=GivenModels(
                embed=tuple(arguments.embed),
                clip=arguments.clip,
                side=arguments.embed_size,
                faces=arguments.faces,
                face_detector=arguments.face_detector,
            ),
            report=report,
        )
        if arguments.dry_run:
            console.answer_json(planned.to_json()) if arguments.json else console.answer_lines(planned.to_text())
            return 0
        found, value = judge_run(planned, store, report=report)
    if arguments.json:
        console.answer_json(value)
        return 0
    console.answer_table(*judgement_rows(value))
    for table in model_tables(value):
        console.answer(f"\n{table.title}")
        console.answer_table(table.columns, table.rows)
    for note in planned.notes:
        console.say(f"note: {note}")
    console.answer(found.sentence())
    if found.faces is not None:
        console.answer(found.faces.sentence())
    return 0
