"""`loraloom hint IMAGE --prepare edges --output FILE.png`: one ControlNet hint by itself."""

import argparse
from pathlib import Path
from typing import Any

from loraloom import console
from loraloom.output_files import output_path
from registry.errors import Refused

HELP = "prepare the hint of a ControlNet and look at it: edges, scribble, keypoints, ..."


def add_parser(subparsers: Any) -> None:
    """Add `hint` to the command line."""
    from infer.hints.methods import PREPARE

    about = "Makes the hint that `prepare` of a ControlNet makes in a grid, as an image to look at."
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "hint", help=HELP, description=about, epilog=_preparations(), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("image", metavar="IMAGE", help="an image; a JSON file for keypoints")
    parser.add_argument("--prepare", required=True, metavar="NAME", choices=list(PREPARE), help=", ".join(PREPARE))
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="an option of the preparation; repeat")
    parser.add_argument("--size", metavar="WIDTHxHEIGHT", help="pixels of the hint (default: the image's own)")
    parser.add_argument("--fit", choices=["stretch", "crop"], help="what is done with an image of another shape than the size")
    parser.add_argument("--device", default="auto", help="where a network runs: auto, cpu, cuda, cuda:1, mps")
    parser.add_argument("--output", required=True, metavar="FILE.png", help="the file to write")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Prepare, write, and print the path."""
    from infer.draw.values import read_size
    from infer.hints.alone import one_hint, read_options
    from infer.hints.setting import read_prepare
    from registry.formats.atomic_file import atomic_file
    from registry.home import expanded
    from registry.store import Store

    output = output_path(arguments.output, "--output", "hint", (".png",))
    if output.exists() and expanded(arguments.image).exists() and output.samefile(expanded(arguments.image)):
        raise Refused(f"--output {arguments.output} is the image itself, which the hint would take the place of. Give another name.")
    width, height = read_size(arguments.size)
    prepare = read_prepare({"name": arguments.prepare, **read_options(arguments.option)})
    assert prepare is not None
    size = (width, height) if width is not None and height is not None else None
    hint = one_hint(arguments.image, prepare, Store(), size=size, fit=arguments.fit, device=arguments.device)
    with atomic_file(output) as out:
        hint.image.save(out, "PNG")
    for note in hint.notes:
        console.say(f"note: {note}")
    if arguments.json:
        console.answer_json({**hint.to_json(), "output": str(Path(output))})
    else:
        console.answer(str(output))
    return 0


def _preparations() -> str:
    """The preparations with their options, for the end of the help."""
    from infer.hints.methods import PREPARE

    lines = ["preparations:"]
    for one in PREPARE.values():
        lines.append(f"  {one.name}: {one.summary}")
        for option in one.options.values():
            default = "needed" if option.required else "null" if option.default is None else f"{option.default:g}"
            lines.append(f"    {option.name} ({default}): {option.meaning}")
    return "\n".join(lines)
