"""`registry convert`: a model file in another form, exactly."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loraloom import console
from loraloom.commands.registry.subcommand import REFERENCE, add_command, open_store
from registry.errors import Refused
from registry.formats.dialects import writable
from registry.home import expanded
from registry.printable import as_lines

if TYPE_CHECKING:
    from registry.converting.request import ConvertRequest

PLACE = 55
ABOUT = "a model in another form, verified equal before it is saved"
FORMS = {
    "safetensors": "a pickle (.ckpt, .pt, .pth, .bin), loaded without running its code; or a file in another --dtype",
    "single-file": "checkpoint: a diffusers folder as one file, as ComfyUI and A1111 load it",
    "folder": "checkpoint: one file as a diffusers folder",
}


def add_parsers(words: Any) -> None:
    """Add the subcommand."""
    parser = add_command(words, "convert", convert, ABOUT)
    parser.add_argument("reference", metavar="REF", help=REFERENCE)
    forms = {name: f"adapter: {row.about}" for name, row in writable().items()} | FORMS
    about = "; ".join(f"{name}: {what}" for name, what in forms.items())
    parser.add_argument("--to", required=True, choices=forms, metavar="FORM", help=about)
    parser.add_argument("--output", "-o", required=True, type=Path, metavar="PATH", help="what to write; an existing one is refused")
    parser.add_argument("--dtype", help="fp32, fp16, bf16, of checkpoints also fp8_e4m3, fp8_e5m2; default: as it is")
    parser.add_argument(
        "--base",
        metavar="REF",
        help="of the same build: a checkpoint, for adapters of unpublished builds; a folder, for what a single file lacks",
    )
    parser.add_argument("--family", help="sd1, sdxl, flux1, ..., where it is not detected")
    parser.add_argument("--memory-mib", type=int, help="memory limit for reading a pickle; default: by its size")
    parser.add_argument("--name", help="registered name; default: the output's")
    parser.add_argument("--no-register", action="store_true", help="write the file only")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and stop")


def request_of(arguments: argparse.Namespace, folder: Path) -> ConvertRequest:
    """The conversion that was asked for; a relative output lies below the working folder. Raises Refused."""
    from registry.converting.request import ConvertRequest

    if arguments.memory_mib is not None and arguments.memory_mib < 1:
        raise Refused(f"--memory-mib must be at least 1, got {arguments.memory_mib}.")
    return ConvertRequest(
        reference=arguments.reference,
        target=arguments.to,
        output=(folder / expanded(arguments.output)).absolute(),
        base=arguments.base,
        family=arguments.family,
        dtype=arguments.dtype,
        memory_mib=arguments.memory_mib,
        name=arguments.name,
        register=not arguments.no_register,
    )


def convert(arguments: argparse.Namespace) -> int:
    """Convert one model."""
    from registry.converting.job import plan_convert, run_convert

    request, store = request_of(arguments, Path.cwd()), open_store()
    with console.progress() as report:
        plan = plan_convert(request, store)
        done = None if arguments.dry_run else run_convert(plan, store, report=report)
    if done is None:
        console.answer_json(plan.to_json()) if arguments.json else console.answer_lines(plan.to_text())
    elif arguments.json:
        console.answer_json(done.result)
    else:
        for note in done.notes:
            console.say(f"note: {note}")
        console.answer_lines(as_lines([done.result["output"], f"  sha256 {done.result['sha256'][:12]}, {done.result['seconds']:.1f} s"]))
    return 0
