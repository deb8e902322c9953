"""`loraloom merge KEY=VALUE ...`: checkpoints merged exactly, in one bounded stream; `loraloom merge reproduce REF` does it again."""

from typing import TYPE_CHECKING, Any

HELP = "merge checkpoints: weighted sums, differences, TIES and more, by block or by rule"

if TYPE_CHECKING:
    from loraloom.hydra.job import Finished, Job, Request
    from registry.merging.config import MergeConfig
    from registry.merging.plan import MergePlan
    from registry.merging.recipe import Recipe

ABOUT = """\
Merges checkpoints of one family, tensor by tensor, in bounded memory. The plan (dry_run=true) is made from headers alone; all
faults are reported before a byte is written. The result names its sources by hash, and is registered with them and its recipe.

  loraloom merge reproduce REF [--json]    merge again by REF's recipe, and compare the hashes"""

EXAMPLES = (
    "loraloom merge method=weighted_sum 'sources=[anime,photo]' params.alpha=0.3 output=mix.safetensors dry_run=true",
    "loraloom merge preset=style_mix 'sources=[anime,photo]' output=mix.safetensors",
    "loraloom merge preset=inpaint 'sources=[sd15-inpaint,mine,sd15]' output=mine-inpaint.safetensors",
    "loraloom merge method=ties 'sources=[base,one,two]' params.density=0.2 'params.weights=[1,0.5]'",
    "loraloom merge method=weighted_sum 'sources=[a,b]' 'rules=[{match: \"attn2\", alpha: 0.8},{match: \"first_stage_model\", take: 2}]'",
    "loraloom merge recipe=mix.yaml params.alpha=0.5",
)


def job() -> "Job[MergeConfig]":
    """The job behind the command: its schema, its plan, its run."""
    from loraloom.hydra.job import Job
    from registry.merging.config import MergeConfig

    return Job(name="merge", help=ABOUT, schema=MergeConfig, plan=_plan, run=_run, examples=EXAMPLES)


def run(argv: list[str]) -> int:
    """Answer the command line after `loraloom merge`; gives the exit code."""
    if argv and argv[0] == "reproduce":
        return _reproduce(argv[1:])
    from loraloom.hydra.run import run_job

    return run_job(job(), argv)


def _plan(request: "Request[MergeConfig]") -> "MergePlan":
    from pathlib import Path

    from registry.merging.config import recipe_from
    from registry.merging.plan import plan_merge
    from registry.store import Store

    config, store = request.config, Store()
    recipe = recipe_from(config)
    name = recipe.name or "merged"
    output = Path(config.output) if config.output else Path(config.out) / "merge" / "STAMP" / _file_name(name, recipe, store)
    return plan_merge(recipe, store, output, memory_mib=config.memory_mib, threads=config.threads)


def _file_name(name: str, recipe: "Recipe", store: Any) -> str:
    """The result's name in the run folder: a folder's when the first source is one, or when it gets shards."""
    from registry.errors import LoomError

    try:
        folder = bool(recipe.shard_mib) or "root" in store.find(recipe.sources[0].ref).metadata
    except LoomError:  # reported by the plan, with everything else
        folder = False
    return name if folder else f"{name}.safetensors"


def _run(request: "Request[MergeConfig]") -> "Finished":
    from dataclasses import replace
    from pathlib import Path

    from loraloom import console
    from loraloom.hydra.job import Finished
    from registry.files.stamped_folder import new_folder
    from registry.formats.atomic_file import write_json, write_text
    from registry.launch.importing import import_torch
    from registry.merging.job import run_plan
    from registry.store import Store

    plan = _plan(request)
    import_torch()
    for note in plan.notes:
        console.say(f"note: {note}")
    folder = new_folder(Path(request.config.out), "merge")
    if not request.config.output:
        plan = replace(plan, output=folder / plan.output.name)
    with console.progress() as report:
        done = run_plan(plan, Store(), report=report)
    write_text(folder / "recipe.yaml", done.recipe.to_yaml())
    write_json(folder / "result.json", dict(done.result))
    counts = ", ".join(f"{count} {what}" for what, count in done.result["keys"].items())
    console.say(f"{done.output}: {counts}; {done.result['seconds']:.1f} s, {done.result['peak_mib']:.0f} MiB beyond mapped pages")
    return Finished(folder)


def _reproduce(argv: list[str]) -> int:
    import tempfile
    from pathlib import Path

    from loraloom import console
    from loraloom.cli import Parser
    from registry.merging.reproduce import reproduce
    from registry.store import Store

    parser = Parser(
        prog="loraloom merge reproduce", description="Merge again by a recipe, and compare the hashes; exit code 1 when they differ."
    )
    parser.add_argument("reference", metavar="REF", help="what was merged: name, sha256:<prefix>, or a path")
    parser.add_argument("--scratch", type=Path, help="folder for the second copy, which is removed again (default: the system's)")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(dir=arguments.scratch, prefix="reproduce-") as scratch, console.progress() as report:
        again = reproduce(arguments.reference, Store(), Path(scratch), report=report)
    if arguments.json:
        console.answer_json(
            {"reference": again.reference, "same": again.same, "expected": again.expected, "found": again.found, "seconds": again.seconds}
        )
    else:
        verdict = "the same bytes" if again.same else f"DIFFERENT: {again.expected} was registered, {again.found} came out"
        console.answer(f"{again.reference}: {verdict} ({again.seconds:.1f} s)")
    return 0 if again.same else 1
