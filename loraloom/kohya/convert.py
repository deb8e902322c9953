"""sd-scripts' TOML files as the command line of `loraloom train` that trains the same."""

import shlex
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from loraloom.hydra.literal import quote
from loraloom.kohya.adapter import convert_adapter
from loraloom.kohya.arguments import Values
from loraloom.kohya.converted import Converted
from loraloom.kohya.datasets import convert_datasets
from loraloom.kohya.files import read_files
from loraloom.kohya.scripts import SCRIPTS, script_of
from loraloom.kohya.tables import BESIDE, IGNORED, UNSUPPORTED, by_name
from loraloom.kohya.training import convert_training
from registry.errors import Faults
from train.config import TrainConfig, dotted_names, get

Facts = Callable[[str], tuple[bool, bool]]  # base -> (a flow model, CLIP's last but one layer is read)
Steps = Callable[[list[str]], tuple[int, float]]  # settings -> (steps of the run, epochs of the run)


def convert(paths: Sequence[Path], *, chosen: Sequence[str], facts: Facts, steps: Steps) -> Converted:
    """The settings of the files, with those of the command line (`chosen`, NAME=VALUE) in their place.

    Raises Faults with everything in the files that would change what is learned and is not here.
    """
    files = read_files(paths)
    given = {name.lstrip("+"): value for name, _, value in (one.partition("=") for one in chosen)}
    to, values = Converted(chosen=set(given)), Values(files.arguments)
    to.faults += files.faults
    base = given.get("base") or values["pretrained_model_name_or_path"]
    try:
        flow, penultimate = facts(str(base)) if base else (False, False)
        known = bool(base)
    except Faults as error:
        to.faults += error.faults
        flow, penultimate, known = False, False, False
    module = values["network_module"]
    script = script_of(module, flow=flow)
    values.defaults = script.defaults
    if known and module in SCRIPTS and script is not SCRIPTS[module]:
        what = "is a flow model" if flow else "predicts noise"
        to.fault(f"network_module={module} is of sd-scripts' {SCRIPTS[module].name}, and the base {what}. Give the module of its script.")
    convert_training(values, to, script=script, penultimate=penultimate)
    convert_adapter(values, to)
    convert_datasets(files, values, to)
    _rest(values, to)
    return finished(to, chosen, steps, "These files cannot be trained as sd-scripts would:")


def finished(to: Converted, chosen: Sequence[str], steps: Steps, title: str) -> Converted:
    """The settings that differ from the defaults, those that need the number of steps among them. Raises Faults with all faults."""
    _unknown(to)
    if to.faults:
        raise Faults(title, list(dict.fromkeys(to.faults)))
    if to.later:
        total, epochs = steps([*overrides(to), *chosen])
        for count in to.later:
            for name, value in count(total, epochs).items():
                to.set(name, value, to.sources.get(name, name))
    defaults = TrainConfig()
    to.settings = {name: value for name, value in to.settings.items() if name == "base" or get(defaults, name) != value}
    return to


def _rest(values: Values, to: Converted) -> None:
    """Arguments that no rule has read: ignored, or a fault where they act."""
    ignored, refused, beside = by_name(IGNORED), by_name(UNSUPPORTED), by_name(BESIDE)
    for name in files_order(values):
        acts = values.gives(name)
        if name in refused and acts:
            shown = "" if name.endswith(("key", "token")) else f"={values[name]}"
            to.fault(f"{name}{shown}: {refused[name]}. Leave it out.")
        elif name in ignored or name in beside:
            to.ignored[name] = ignored.get(name) or beside[name]
        elif acts:
            to.ignored[name] = "it does not act beside the others of this file"


def files_order(values: Values) -> list[str]:
    """The given arguments that were not read yet, in the files' order."""
    return [name for name in values.given if name not in values.read]


def _unknown(to: Converted) -> None:
    """Settings that would be the same, of which there is none in this version."""
    known: Collection[str] = dotted_names()
    for name in [name for name in to.settings if name not in known]:
        to.fault(f"{to.sources[name]}={to.settings.pop(name)}: there is no such setting here. Leave it out.")


def overrides(to: Converted) -> list[str]:
    """NAME=VALUE as the command line takes them."""
    return [f"{name}={spelt(value)}" for name, value in to.settings.items()]


def spelt(value: Any, *, inside: bool = False) -> str:
    """A value as Hydra reads it; texts as they are, in lists and groups quoted."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return repr(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    if isinstance(value, list):
        return f"[{','.join(spelt(item, inside=True) for item in value)}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{spelt(item, inside=True)}" for key, item in value.items()) + "}"
    return quote(str(value)) if inside and isinstance(value, str) else str(value)


def to_text(to: Converted, chosen: Sequence[str], tool: str = "sd-scripts") -> str:
    """The command, a setting a line, then where each comes from, what is ignored, and notes."""
    words = [*overrides(to), *chosen]
    lines = ["loraloom train \\", *(f"  {shlex.quote(word)} \\" for word in words[:-1]), *(f"  {shlex.quote(word)}" for word in words[-1:])]
    rows = [(to.sources[name], f"{name}={spelt(value)}") for name, value in to.settings.items()]
    wide = max((len(source) for source, _ in rows), default=0)
    lines += ["", f"from {tool}:", *(f"  {source:<{wide}}  {setting}" for source, setting in rows)]
    if to.ignored:
        lines += ["ignored:", *(f"  {name}: {reason}" for name, reason in to.ignored.items())]
    if to.notes:
        lines += ["notes:", *(f"  {note}" for note in dict.fromkeys(to.notes))]
    return "\n".join(lines)


def to_json(to: Converted) -> dict[str, Any]:
    """Plain values, stable keys."""
    return {"settings": to.settings, "sources": to.sources, "ignored": to.ignored, "notes": list(dict.fromkeys(to.notes))}
