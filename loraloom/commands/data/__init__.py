"""`loraloom data lint PATH`: every fault of an image-caption set at once; `loraloom data caption FOLDER`: captions by a local model."""

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

from loraloom import console
from loraloom.commands.data import edit
from loraloom.output_files import html_path
from registry.errors import Faults, Refused
from registry.home import expanded
from registry.printable import counted

HELP = "look an image-caption set over before training on it"
CAPTION = "caption the images of a folder that have no caption, with a model that is on this machine; existing captions stay as they are"
MASK = "make a mask of every image that has none, with a segmentation model, beside the image; existing files stay as they are"
LINT = "tell every fault of a set at once, with file names; exit code 2 when training would refuse it"


def add_parser(subparsers: Any) -> None:
    """Add `data` and what it can do to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser("data", help=HELP, description=HELP)
    inner = parser.add_subparsers(metavar="WHAT")
    lint: argparse.ArgumentParser = inner.add_parser("lint", help=LINT, description=LINT)
    lint.add_argument("path", metavar="PATH", help="a folder of images with captions, or anything datasets.load_dataset opens")
    lint.add_argument("--trigger", metavar="WORD", help="as data.trigger: a set without captions is fine then")
    lint.add_argument("--resolution", metavar="PIXELS", type=int, help="name the images that would be enlarged for it")
    lint.add_argument("--base", metavar="REF", help="count the captions' tokens for this base: what it does not read is named")
    lint.add_argument("--base-config", metavar="FOLDER", help="as base_config, for single files that carry no tokenizers")
    lint.add_argument("--image-column", metavar="NAME", help="as data.image_column")
    lint.add_argument("--caption-column", metavar="NAME", help="as data.caption_column")
    lint.add_argument("--masks", metavar="SOURCE", default="none", help="as data.masks: none, alpha, files, auto or a folder")
    lint.add_argument("--split", metavar="NAME", default="train", help="as data.split")
    lint.add_argument("--html", metavar="FILE", help="write a contact sheet: each image with its caption and findings, in one HTML file")
    lint.add_argument("--json", action="store_true", help="one JSON document on stdout")
    lint.set_defaults(run=run_lint)
    _add_mask(inner)
    _add_caption(inner)
    edit.add_parser(inner)


def _add_caption(inner: Any) -> None:
    caption: argparse.ArgumentParser = inner.add_parser("caption", help=CAPTION, description=CAPTION)
    caption.add_argument("folder", metavar="FOLDER", help="a folder of images; each caption is written beside its image as NAME.txt")
    about = "a folder with an image-to-text model of transformers (BLIP, GIT, Florence-2, LLaVA, Qwen-VL, ...), or with a tagger in ONNX"
    caption.add_argument("--model", metavar="PATH", required=True, help=f"{about} (model.onnx and selected_tags.csv, as the WD taggers)")
    caption.add_argument("--trigger", metavar="WORD", help="put before each caption that does not contain it")
    caption.add_argument("--prefix", metavar="TEXT", help="put before each caption, with a comma")
    caption.add_argument("--suffix", metavar="TEXT", help="put after each caption, with a comma")
    caption.add_argument(
        "--prompt", metavar="TEXT", help="what a chat model is given; a task such as <CAPTION>; what BLIP and GIT continue"
    )
    caption.add_argument("--max-tokens", metavar="N", type=int, help="most tokens of a caption (100)")
    caption.add_argument("--beams", metavar="N", type=int, help="beams of the search (1: the most probable token each time)")
    caption.add_argument("--general", metavar="P", type=float, help="least probability of a tag (0.35)")
    caption.add_argument("--character", metavar="P", type=float, help="least probability of a character's tag (0.85)")
    caption.add_argument("--exclude", metavar="TAGS", help="tags that no caption gets, with commas between them")
    caption.add_argument("--keep-underscores", action="store_true", default=None, help="write long_hair, not long hair")
    caption.add_argument(
        "--escape-brackets", action="store_true", default=None, help="write \\( for (: for prompts; training reads it as it is"
    )
    caption.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (taggers: cpu)")
    caption.add_argument(
        "--dry-run", action="store_true", help="check everything and count the images, but load no model and write nothing"
    )
    caption.add_argument("--json", action="store_true", help="one JSON document on stdout")
    caption.set_defaults(run=run_caption)


def _add_mask(inner: Any) -> None:
    mask: argparse.ArgumentParser = inner.add_parser("mask", help=MASK, description=MASK)
    mask.add_argument("path", metavar="FOLDER", help="a folder of images; its subfolders are not read")
    mask.add_argument(
        "--model", metavar="PATH", required=True, help="a transformers segmentation folder, or a file .onnx or .tflite (extra: masks)"
    )
    mask.add_argument(
        "--label", metavar="CLASS", action="append", default=[], help="class that is kept, by name or number; several by repeating it"
        " (default: all but the background)"
    )  # fmt: skip
    mask.add_argument("--in-folder", action="store_true", help="write masks/NAME.png in place of NAME-masklabel.png")
    mask.add_argument("--threshold", metavar="SHARE", type=_share, help="white from this probability on, black below (default: grey)")
    mask.add_argument("--expand", metavar="PIXELS", type=_pixels, default=0, help="grow masks by so many pixels on every side")
    mask.add_argument("--size", metavar="PIXELS", type=_pixels, help="side that images are scaled to for the model (default: its own)")
    mask.add_argument("--mean", metavar="M", type=float, nargs=3, help="mean of the model's pixels (default: its own; ImageNet's for ONNX)")
    mask.add_argument("--std", metavar="S", type=_positive, nargs=3, help="standard deviation of the model's pixels")
    mask.add_argument("--dry-run", action="store_true", help="check everything and list the masks, write nothing")
    mask.add_argument("--json", action="store_true", help="one JSON document on stdout")
    mask.set_defaults(run=run_mask)


def run_mask(arguments: argparse.Namespace) -> int:
    """Make the masks; exit code 1 where nothing is found in some image."""
    from train.masks.make import make_masks, plan_masks, would_make
    from train.masks.segmenters import ModelOptions

    given = ModelOptions(
        labels=tuple(arguments.label),
        size=arguments.size,
        mean=None if arguments.mean is None else tuple(arguments.mean),
        deviation=None if arguments.std is None else tuple(arguments.std),
    )
    with console.progress() as report:
        job = plan_masks(arguments.path, arguments.model, given, in_folder=arguments.in_folder, report=report)
        if arguments.dry_run:
            made = would_make(job)
        else:
            made = make_masks(job, threshold=arguments.threshold, expand=arguments.expand, report=report)
    console.answer_json(made.to_json()) if arguments.json else console.answer_lines(made.to_text())
    return 1 if made.empty else 0


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most 1")
    return value


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def _pixels(text: str) -> int:
    value = int(text)
    if not 0 <= value <= 8192:
        raise argparse.ArgumentTypeError(f"{text} is not in 0 .. 8192 pixels")
    return value


def run_lint(arguments: argparse.Namespace) -> int:
    """Print what there is to say about the set; exit code 2 with faults."""
    from train.data.lint import lint
    from train.data.linting.sheet import write_sheet
    from train.settings.data import DataConfig

    config = DataConfig(
        path=arguments.path,
        trigger=arguments.trigger,
        split=arguments.split,
        image_column=arguments.image_column,
        caption_column=arguments.caption_column,
        masks=arguments.masks,
    )
    sheet = html_path(arguments.html, "--html", "contact sheet") if arguments.html else None
    count = _counter(arguments.base, arguments.base_config) if arguments.base else None
    with console.progress() as report:
        found = lint(config, resolution=arguments.resolution, count=count, report=report)
        shown = write_sheet(sheet, found, report=report) if sheet else 0
    console.answer_json(found.to_json()) if arguments.json else console.answer_lines(found.to_text())
    if sheet:
        rest = f", with {shown} of {counted(len(found.samples), 'image')}" if shown < len(found.samples) else ""
        console.say(f"contact sheet: {sheet}{rest}")
    return 2 if found.faults else 0


def run_caption(arguments: argparse.Namespace) -> int:
    """Caption what has no caption; exit code 1 where an image could not be read."""
    from train.data.captioning.captioner import CaptionerOptions, faults_of, open_captioner
    from train.data.captioning.write import finished, plan_captions, write_captions

    model = expanded(arguments.model).absolute()
    exclude = tuple(tag.strip() for tag in arguments.exclude.split(",") if tag.strip()) if arguments.exclude is not None else None
    given = {name: getattr(arguments, name) for name in CaptionerOptions.__dataclass_fields__ if name != "exclude"}
    options = CaptionerOptions(exclude=exclude, **given)
    faults = faults_of(model, options)
    for check in (device := partial(_device, arguments.device), plan_of := partial(plan_captions, expanded(arguments.folder))):
        try:
            check()
        except Refused as refused:
            faults.append(str(refused))
    if faults:
        raise Refused(faults[0]) if len(faults) == 1 else Faults("This cannot be captioned as it is:", faults)
    plan = plan_of()
    if arguments.dry_run:
        line = f"{plan.folder}: {counted(len(plan.targets), 'image')} to caption, {plan.existing} have a caption"
        console.answer_json(plan.to_json()) if arguments.json else console.answer(line)
        return 0
    finish = partial(finished, prefix=arguments.prefix, suffix=arguments.suffix, trigger=arguments.trigger)
    with console.progress() as report:
        captioner = open_captioner(model, options, device=device()) if plan.targets else None
        done = write_captions(plan, captioner or (lambda image: ""), finish=finish, report=report)
    console.answer_json(done.to_json()) if arguments.json else console.answer_lines(done.to_text())
    return 1 if done.failed else 0


def _device(wanted: str) -> str:
    """The device of --device. Raises Refused."""
    from train.plan.base import resolve_device

    try:
        return str(resolve_device(wanted))
    except RuntimeError as error:  # of torch, for a name that it does not know
        raise Refused(f"--device {wanted}: expected auto, cpu, cuda, cuda:1 or mps.") from error


def _counter(reference: str, base_config: str | None) -> Callable[[str], tuple[int, int]]:
    """Counts a caption's tokens, and those that fit, with the base's own tokenizers; no weights are read."""
    from registry.store import Store
    from train.config import TrainConfig
    from train.plan.base import find_base, skeleton

    config = TrainConfig(base=reference, base_config=base_config)
    base = find_base(config, Store())
    return partial(base.family.count_tokens, skeleton(base, config))
