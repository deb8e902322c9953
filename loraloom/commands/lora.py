"""`loraloom lora ...`: the algebra of adapters, on their deltas: fuse, combine, resize, extract, inspect, diff."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loraloom import console
from registry.errors import Refused
from registry.launch.importing import import_torch
from registry.printable import as_lines, counted

if TYPE_CHECKING:
    from registry.adapters.factors import Keep
    from registry.references import Weighted
    from registry.store import Store

HELP = "fuse, combine, resize, extract, inspect and compare adapters"
REFERENCE = "name, name@alias, name@step-300, sha256:<prefix>, or a path"
WEIGHTED = "REF or REF:WEIGHT, weight 1 when not given; several joined by `+`"


def add_parser(subparsers: Any) -> None:
    """Add `lora` and its subcommands to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser("lora", help=HELP, description=HELP)
    words = parser.add_subparsers(metavar="WHAT", required=True)
    _add_fuse(words)
    _add_combine(words)
    _add_resize(words)
    _add_extract(words)
    _add_questions(words)


def _command(words: Any, name: str, run: Any, about: str, *, writes: bool = True) -> Any:
    parser = words.add_parser(name, help=about, description=about)
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    if writes:
        parser.add_argument("--output", required=True, metavar="FILE", help="what to write; an existing file is refused")
        parser.add_argument("--name", help="registered name; default: the output's")
        parser.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    parser.set_defaults(run=run)
    return parser


def _add_fuse(words: Any) -> None:
    parser = _command(words, "fuse", fuse, "a checkpoint with adapters fused in: base + weight x delta of each")
    parser.add_argument("base", metavar="BASE", help=f"the checkpoint: {REFERENCE}")
    parser.add_argument("--adapter", action="append", default=[], metavar="REF:WEIGHT", help=f"{WEIGHTED}; may be given again")
    parser.add_argument("--dtype", help="of the result: fp32, fp16, bf16, fp8_e4m3, fp8_e5m2; default: the base's, tensor by tensor")
    parser.add_argument(
        "--coverage",
        type=float,
        default=1.0,
        metavar="SHARE",
        help="least share of the adapters' modules that the base must have; default 1",
    )
    parser.add_argument("--memory-mib", type=int, default=512, help="memory beyond mapped pages; default 512")
    parser.add_argument("--threads", type=int, help="default: one a core, at most 4")


def _add_combine(words: Any) -> None:
    parser = _command(words, "combine", combine, "several adapters as one: the weighted sum of their deltas")
    parser.add_argument("adapters", nargs="+", metavar="REF:WEIGHT", help=f"{WEIGHTED}; `name@step-*` is all checkpoints of a run")
    parser.add_argument("--rank", default="exact", help="exact (default: the sum of the ranks), or a number")
    parser.add_argument("--average", action="store_true", help="divide the weights by their sum")
    parser.add_argument("--dtype", help="fp32, fp16, bf16; default: the adapters' own, fp32 when they differ")


def _add_resize(words: Any) -> None:
    about = "an adapter at another rank, by truncated SVD of each layer; LyCORIS becomes LoRA"
    parser = _command(words, "resize", resize, about)
    parser.add_argument("adapter", metavar="REF", help=REFERENCE)
    _add_keep(parser)
    parser.add_argument("--dtype", help="fp32, fp16, bf16; default: the adapter's own")


def _add_extract(words: Any) -> None:
    parser = _command(words, "extract", extract, "the difference between a fine-tuned checkpoint and its base, as a LoRA")
    parser.add_argument("tuned", metavar="TUNED", help=f"the tuned checkpoint: {REFERENCE}")
    parser.add_argument("base", metavar="BASE", help="the checkpoint it was made from")
    _add_keep(parser)
    parser.add_argument("--component", action="append", metavar="NAME", help="denoiser, text_encoder, text_encoder_2; default: all")
    parser.add_argument("--seed", type=int, default=0, help="of the randomised SVD; default 0")
    parser.add_argument("--dtype", default="fp16", help="fp32, fp16, bf16; default fp16")
    parser.add_argument(
        "--biases", action="store_true", help="write the changes of biases (diff_b) and norms (diff) too, which ComfyUI applies"
    )


def _add_keep(parser: Any) -> None:
    parser.add_argument("--rank", type=int, help="the rank, or with one of the measures below the most a layer gets")
    parser.add_argument("--sv-ratio", type=float, metavar="T", help="keep singular values above the first / T")
    parser.add_argument("--sv-fro", type=float, metavar="T", help="keep this share of the Frobenius norm")
    parser.add_argument("--energy", type=float, metavar="T", help="keep this share of the squared Frobenius norm")


def _add_questions(words: Any) -> None:
    parser = _command(
        words, "inspect", inspect, "norms, spectrum and effective rank by module and block; what does nothing or is broken", writes=False
    )
    parser.add_argument("adapter", metavar="REF", help=REFERENCE)
    parser.add_argument("--image", "--picture", dest="image", type=Path, metavar="FILE.png", help="draw the blocks")
    parser = _command(words, "diff", diff, "how two adapters differ, whatever their spelling; exit code 1 when they do", writes=False)
    parser.add_argument("first", metavar="REF", help=REFERENCE)
    parser.add_argument("second", metavar="REF", help=REFERENCE)


def _store() -> Store:
    from registry.store import Store

    return Store()


def _weighted(texts: list[str]) -> list[Weighted]:
    from registry.references import parse_adapters

    return [one for text in texts for one in parse_adapters(text)]


def _keep(arguments: argparse.Namespace) -> Keep:
    from registry.adapters.factors import Keep

    return Keep(rank=arguments.rank, sv_ratio=arguments.sv_ratio, sv_fro=arguments.sv_fro, energy=arguments.energy)


def _finish(arguments: argparse.Namespace, plan: Any, run: Any, store: Store) -> int:
    """Show the plan, or run it and show the result."""
    if arguments.dry_run:
        console.answer_json(plan.to_json()) if arguments.json else console.answer_lines(plan.to_text())
        return 0
    import_torch()
    with console.progress() as report:
        done = run(plan, store, report=report)
    if arguments.json:
        console.answer_json(done.result)
        return 0
    for note in (plan.merge if hasattr(plan, "merge") else plan).notes:
        console.say(f"note: {note}")
    console.answer_lines(_summary(done.result))
    return 0


def _summary(result: Any) -> str:
    """The result in a few lines."""
    from registry.adapters.fuse import LEAST_RETAINED

    lines = [str(result["output"])]
    if "coverage" in result:
        lines.append(f"  {counted(result['keys']['merged'], 'tensor')} changed, {result['keys']['copied']} copied")
        retained = result["retained"]
        lines.append("  nothing was to change" if retained is None else f"  {retained:.2%} of the change is left after rounding")
        if retained is not None and retained < LEAST_RETAINED:
            lines.append("  WARNING: much of the change was rounded away. Fuse into a wider dtype: --dtype bf16 or fp32.")
        lines += _not_applied(result["coverage"])
        if (result["noise"] or 0.0) > 1:
            lines.append(
                f"  WARNING: rounding moved the weights {result['noise']:.1f} times as far as the adapters. Fuse into a wider dtype."
            )
    elif "left_out" in result:
        rank = max(result["ranks"].values(), default=0)
        lines.append(f"  {counted(result['modules'], 'layer')} changed, {result['unchanged']} did not; rank up to {rank}")
        kept, left = result["retained_all"], result["left_out"]
        lines.append(f"  {kept:.2%} of the change is kept, {left:.2%} lies in what is not written{_where(result)}")
    else:
        lines.append(
            f"  {counted(result['modules'], 'module')}, rank {_ranks(result['ranks'])}; the least "
            f"any layer keeps: {result['retained_least']:.2%}"
        )
        if keys := result["left"]:
            lines.append(f"  NOT in it: {counted(len(keys), 'key')} of no module, the first: {keys[0]}")
    return as_lines([*lines, f"  sha256 {result['sha256'][:12]}, {result['seconds']:.1f} s"])


def _not_applied(coverage: Any) -> list[str]:
    """What of the adapters is not in the result, a line for each reason."""
    lines = []
    for field, what, why in (
        ("missing", "module", "that the base has not"),
        ("mismatched", "module", "of another shape"),
        ("left", "key", "of no module"),
    ):
        if names := coverage[field]:
            lines.append(f"  NOT applied: {counted(len(names), what)} {why}, the first: {names[0]}")
    return lines


def _ranks(ranks: dict[str, int]) -> str:
    if not ranks:
        return "as it was"
    least, most = min(ranks.values()), max(ranks.values())
    return str(most) if least == most else f"{least} to {most}"


def fuse(arguments: argparse.Namespace) -> int:
    """Fuse adapters into a checkpoint."""
    from registry.adapters.fuse import plan_fuse, run_fuse

    if not 0 <= arguments.coverage <= 1:
        raise Refused(f"--coverage must be from 0 to 1, got {arguments.coverage:g}.")
    if arguments.threads is not None and not 1 <= arguments.threads <= 256:
        raise Refused(f"--threads must be from 1 to 256, got {arguments.threads}.")
    store = _store()
    plan = plan_fuse(
        arguments.base,
        _weighted(arguments.adapter),
        store,
        arguments.output,
        dtype=arguments.dtype,
        coverage=arguments.coverage,
        name=arguments.name,
        memory_mib=arguments.memory_mib,
        threads=arguments.threads,
    )
    return _finish(arguments, plan, run_fuse, store)


def combine(arguments: argparse.Namespace) -> int:
    """Combine adapters."""
    from registry.adapters.combine import plan_combine, run_combine
    from registry.adapters.factors import Keep

    if arguments.rank != "exact" and not arguments.rank.isdecimal():
        raise Refused(f"--rank must be exact or a whole number, got {arguments.rank!r}.")
    store = _store()
    plan = plan_combine(
        _weighted(arguments.adapters),
        store,
        arguments.output,
        keep=None if arguments.rank == "exact" else Keep(rank=int(arguments.rank)),
        dtype=arguments.dtype,
        average=arguments.average,
        name=arguments.name,
    )
    return _finish(arguments, plan, run_combine, store)


def resize(arguments: argparse.Namespace) -> int:
    """Give an adapter another rank."""
    from registry.adapters.combine import plan_combine, run_combine
    from registry.references import Weighted

    keep, store = _keep(arguments), _store()
    if not keep.to_plain():
        raise Refused("Give how much to keep: --rank N, or --energy, --sv-fro, --sv-ratio.")
    plan = plan_combine(
        [Weighted(arguments.adapter)], store, arguments.output, keep=keep, dtype=arguments.dtype, name=arguments.name, tool="resize"
    )
    return _finish(arguments, plan, run_combine, store)


def _where(result: dict[str, Any]) -> str:
    """': 1.20% in biases (--biases writes them), 0.10% in embeddings'; empty where nothing is left out."""
    ways = {"biases": " (--biases writes them)", "norms": " (--biases writes them)"}
    parts = [f"{share:.2%} in {kind}{ways.get(kind, '') if not result['vectors'] else ''}" for kind, share in result["left_out_by"].items()]
    return f": {', '.join(parts)}" if parts else ""


def extract(arguments: argparse.Namespace) -> int:
    """Extract a LoRA from two checkpoints."""
    from registry.adapters.extract import plan_extract, run_extract

    store = _store()
    plan = plan_extract(
        arguments.tuned,
        arguments.base,
        store,
        arguments.output,
        keep=_keep(arguments),
        components=tuple(arguments.component) if arguments.component else None,
        seed=arguments.seed,
        dtype=arguments.dtype,
        biases=arguments.biases,
        name=arguments.name,
    )
    return _finish(arguments, plan, run_extract, store)


def _check_image(path: Path) -> None:
    """Refuse a path where the image cannot be written, before anything is computed."""
    if path.suffix.lower() != ".png" or path.is_dir():
        raise Refused(f"--image {path}: a PNG file is drawn; give a name that ends with .png.")
    if not path.absolute().parent.is_dir():
        raise Refused(f"--image {path}: there is no folder {path.absolute().parent}. Make it first.")


def inspect(arguments: argparse.Namespace) -> int:
    """Show an adapter in numbers."""
    from registry.adapters.inspect import draw, inspect_adapter

    if arguments.image:
        _check_image(arguments.image)
    report = inspect_adapter(_read(arguments.adapter, _store()))
    if arguments.image:
        draw(report, arguments.image)
    if arguments.json:
        console.answer_json(report.to_json())
        return 0
    rows = [
        [name, values["modules"], *("-" if value is None else f"{value:{form}}" for value, form in shown)]
        for name, values in report.blocks().items()
        for shown in [((values["norm"], ".4g"), (values["effective_rank"], ".1f"))]
    ]
    console.answer_table(["block", "modules", "norm", "effective rank"], rows)
    cannot = "cannot be computed without the base"
    for state, one, many in (("zero", "does nothing", "do nothing"), ("broken", "is broken", "are broken"), ("base", cannot, cannot)):
        modules = [module for module in report.modules if module.state == state]
        if modules:
            why = f" {modules[0].fault}" if modules[0].fault else ""
            console.answer(f"{counted(len(modules), f'module {one}', f'modules {many}')}, the first: {modules[0].name}{why}")
    if report.left:
        console.answer(f"{counted(len(report.left), 'key belongs', 'keys belong')} to no module, the first: {report.left[0]}")
    return 0


def diff(arguments: argparse.Namespace) -> int:
    """Compare two adapters."""
    from registry.adapters.inspect import diff_adapters

    store = _store()
    found = diff_adapters(_read(arguments.first, store), _read(arguments.second, store))
    if arguments.json:
        console.answer_json(found.to_json())
        return 0 if found.same else 1
    if found.same:
        console.answer("the same change in every module")
        return 0
    rows = [
        [one.name, f"{one.first:.4g}", f"{one.second:.4g}", f"{one.difference:.4g}", "-" if one.cosine is None else f"{one.cosine:.4f}"]
        for one in sorted(found.modules, key=lambda one: -one.difference)
    ]
    console.answer_table(["module", "first", "second", "difference", "cosine"], rows)
    for words, names in (
        ("only in the first", found.only_first),
        ("only in the second", found.only_second),
        ("need the base", found.skipped),
    ):
        if names:
            console.answer(
                f"{counted(len(names), 'module is', 'modules are')} {words}, the first: {names[0]}"
                if "only" in words
                else f"{counted(len(names), 'module')} {words}"
            )
    if found.cosine is not None:
        console.answer(f"cosine of the whole change: {found.cosine:.4f}")
    return 1


def _read(reference: str, store: Store) -> Any:
    from registry.adapters.named_sources import weights_named
    from registry.adapters.reader import read_adapter

    record = store.find(weights_named(reference), expected="adapter")
    if record.kind not in ("adapter", "unknown"):
        raise Refused(f"{reference} is of kind {record.kind}; an adapter was expected.")
    return read_adapter(str(record.path))
