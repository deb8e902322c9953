"""Where Hydra meets code: the command line of a job becomes a checked dataclass, and no DictConfig goes further.

Each argument is judged before Hydra sees it, so that all faults are told at once, with the nearest known name. The composed
config is merged once more over the job's schema, which refuses what `++` would have smuggled in.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from loraloom import console
from loraloom.job_arguments import Arguments, read_arguments
from loraloom.literal import is_open_text, quote_value, rightly_quoted, take_literally
from loraloom.places import data_dir
from loraloom.presets import Presets, leaves
from loraloom.settings import Schema, Setting, read_schema
from registry.errors import Faults, LoomError, Refused
from registry.names import suggest

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig

C = TypeVar("C")

MISSING = "???"  # as OmegaConf spells a value that must be given


class Plan(Protocol):
    """What a dry run shows."""

    def to_text(self) -> str: ...

    def to_json(self) -> Any: ...


@dataclass(frozen=True)
class Request(Generic[C]):
    """One accepted command line: the whole config, and of it what was given explicitly, by dotted name."""

    config: C
    given: Mapping[str, Any]


@dataclass(frozen=True)
class Finished:
    """A run that left its folder; `exit_code` 1 is one whose result tells of something that failed."""

    folder: Path
    exit_code: int = 0


@dataclass(frozen=True, kw_only=True)
class Job(Generic[C]):
    """A job with many settings. `plan` checks everything that can be known before the costly part, and makes nothing."""

    name: str  # conf/<name>.yaml
    help: str
    schema: type[C]
    plan: Callable[[Request[C]], Plan]
    run: Callable[[Request[C]], Finished]
    examples: tuple[str, ...] = ()


def run_job(job: Job[Any], argv: Sequence[str]) -> int:
    """Answer the command line of a job: its help, its config, its plan, its run or its sweep."""
    arguments = read_arguments(job.name, argv)
    composer = Composer(job, arguments)
    if arguments.help:
        from loraloom.job_help import show_help

        show_help(job, composer, as_json=arguments.json)
        return 0
    if arguments.hydra:
        composer.check()
        return _hand_to_hydra(job, composer, [*arguments.hydra, *composer.overrides])
    if arguments.multirun:
        from loraloom.sweep import run_sweep

        return run_sweep(job, composer)
    request = composer.request()
    if getattr(request.config, "dry_run", False):
        plan = job.plan(request)
        console.answer_json(plan.to_json()) if arguments.json else console.answer(plan.to_text())
        return 0
    finished = job.run(request)
    console.answer(str(finished.folder.absolute()))
    return finished.exit_code


class Composer:
    """The settings, the presets and the arguments of one command line, and how they become a config."""

    def __init__(self, job: Job[Any], arguments: Arguments) -> None:
        self.job = job
        self.arguments = arguments
        self.schema: Schema = read_schema(job.schema)
        self.presets = Presets(job.name, extra=arguments.config_dir)
        self.overrides: list[str] = [*map(self.literal, arguments.overrides), *self.presets.search_path()]

    def request(self) -> Request[Any]:
        """The checked config of a single run. Raises Faults with every fault that the arguments have."""
        self.check()
        return self.request_of(self.overrides)

    def request_of(self, overrides: Sequence[str]) -> Request[Any]:
        """The checked config of these overrides, which are all single values by now."""
        with understandable():
            return self.request_from(compose(self.job, overrides), overrides)

    def request_from(self, raw: "DictConfig", overrides: Sequence[str]) -> Request[Any]:
        """The checked config of what Hydra composed from these overrides."""
        touched = self.touched(overrides)
        if missing := [name for name, value in touched.items() if value == MISSING]:
            raise Faults(
                f"loraloom {self.job.name} was not started:",
                [f"{name}=... must be given: {self.schema.settings[name].help}." for name in missing],
            )
        with understandable():
            config = to_config(raw, self.job.schema)
        return Request(config, {name: leaf(config, name) for name in touched})

    def touched(self, overrides: Sequence[str]) -> dict[str, Any]:
        """Dotted name -> value, before any conversion, of what the overrides set, themselves or by a preset."""
        presets: dict[str, Any] = {}
        own: dict[str, Any] = {}
        for override in map(parse, overrides):
            name, value = override.key_or_group, override.value()
            if name in self.presets.groups and not isinstance(value, dict):
                presets |= self.presets.sets(name, value)
            else:
                own |= leaves(value, name)
        return {name: value for name, value in (presets | own).items() if name in self.schema.settings}

    def literal(self, argument: str) -> str:
        """The argument as Hydra should read it: its value quoted where a text is meant, and no `+`, since our schemas are closed."""
        argument = argument.lstrip("+") if "=" in argument else argument
        quoted = take_literally(argument, self.schema, multirun=self.arguments.multirun)
        if quoted is argument and is_open_text(argument, self.schema) and not is_readable(argument):
            return quote_value(argument)
        return quoted

    def check(self) -> None:
        """Raise Faults with everything that is wrong with the arguments, each judged by itself; tell of what does not count."""
        faults = [
            fault for raw, override in zip(self.arguments.overrides, self.overrides, strict=False) if (fault := self.fault(raw, override))
        ]
        if faults:
            raise Faults(f"loraloom {self.job.name} was not started:", faults)
        last = {argument.partition("=")[0].lstrip("+"): argument for argument in self.arguments.overrides}
        for argument in self.arguments.overrides:
            if (chosen := last[argument.partition("=")[0].lstrip("+")]) != argument:
                console.say(f"note: {argument} does not count; {chosen} comes after it")

    def fault(self, raw: str, argument: str) -> str | None:
        """What is wrong with one argument (as typed, and with its text quoted), or None."""
        if "=" not in raw and not raw.startswith("~"):
            return f"{raw!r} is no setting. Expected KEY=VALUE; --help lists them."
        from hydra.errors import HydraException

        try:
            override = parse(argument)
        except HydraException:
            return self.grammar_fault(raw)
        name = override.key_or_group
        if name.partition(".")[0].partition("/")[0] == "hydra":
            return None if self.arguments.multirun or self.arguments.hydra else f"{raw}: Hydra's own settings act only with --multirun."
        if name in self.presets.groups and not isinstance(override.value(), dict):
            return self.preset_fault(raw, override)
        if name not in self.schema.settings and name not in self.schema.sections:
            return f"{raw}: there is no setting {name!r}. {self.schema.nearest(name, groups=self.presets.groups)}"
        if override.is_delete():
            return f"{raw}: a setting cannot be taken away. Give it another value."
        if override.is_sweep_override() and not self.arguments.multirun:
            return self.comma_fault(raw, name)
        values = sweep_values(override) if override.is_sweep_override() else [override.value()]
        return next((found for value in values if (found := self.value_fault(raw, name, value))), None)

    def grammar_fault(self, raw: str) -> str:
        """What to say of an argument that Hydra's grammar cannot read."""
        key = raw.partition("=")[0]
        name = key.lstrip("+~")
        if name not in self.schema.settings and name not in self.schema.sections and name not in self.presets.groups:
            return f"{raw}: there is no setting {name!r}. {self.schema.nearest(name, groups=self.presets.groups)}"
        setting = self.schema.settings.get(name)
        if setting is not None and setting.is_plain:
            return f"{raw}: expected {setting.expected}."
        return f"{raw}: the value cannot be read; texts with such characters stand in quotes. Did you mean {rightly_quoted(raw)}?"

    def comma_fault(self, raw: str, name: str) -> str:
        """What to say of several values where there is one run."""
        setting = self.schema.settings.get(name)
        key, _, value = raw.partition("=")
        more = "" if setting is None or setting.is_plain else f" A list is {rightly_quoted(f'{key}=[{value}]')}."
        return f"{raw}: several values make a sweep, which --multirun runs.{more}"

    def preset_fault(self, raw: str, override: "Override") -> str | None:
        """What is wrong with the choice of a preset."""
        group = override.key_or_group
        if override.is_delete():
            return None
        if override.is_sweep_override() and not self.arguments.multirun:
            return f"{raw}: several presets make a sweep, which --multirun runs."
        chosen = sweep_values(override) if override.is_sweep_override() else [override.value()]
        for one in chosen:
            for name in one if isinstance(one, list) else [one]:
                if name is not None and str(name) not in self.presets.groups[group]:
                    return f"{raw}: there is no preset {str(name)!r} of {group}. {self._presets_like(str(name), group)}"
        return None

    def _presets_like(self, name: str, group: str) -> str:
        known = self.presets.groups[group]
        words = suggest(name, known)
        all_of_them = "" if words.startswith("Known") else f" There are: {', '.join(sorted(known))}."
        setting = self.schema.settings.get(f"{group}.name")
        return words + all_of_them + (f" A value of the setting itself is given as {setting.name}={name}." if setting else "")

    def value_fault(self, raw: str, name: str, value: Any) -> str | None:
        """Whether the schema takes the value, alone."""
        from omegaconf import OmegaConf
        from omegaconf.errors import OmegaConfBaseException

        try:
            OmegaConf.update(OmegaConf.structured(self.job.schema), name, value)
        except OmegaConfBaseException as error:
            if getattr(error, "key", None) is not None and isinstance(value, dict):
                unknown = f"{name}.{error.key}"
                return f"{raw}: there is no setting {unknown!r}. {self.schema.nearest(unknown)}"
            return f"{raw}: {_expected(self.schema.settings.get(name), value)}"
        return None

    @cached_property
    def defaults(self) -> Any:
        """The config with nothing given, unchecked: what --help shows."""
        with understandable():
            return compose(self.job, self.presets.search_path())


def _expected(setting: Setting | None, value: Any) -> str:
    """'expected a whole number', with the nearest value where one can be seen."""
    if setting is None:
        return "this is a section; set what stands in it: SECTION.NAME=VALUE."
    words = f"expected {setting.expected}."
    if setting.kinds == (int,) and isinstance(value, float) and value.is_integer():
        words += f" Did you mean {int(value)}?"
    members = [name for kind in setting.kinds for name in getattr(kind, "__members__", ())]
    return f"{words} {suggest(str(value), members)}" if members and "Did" in suggest(str(value), members) else words


def leaf(config: object, name: str) -> Any:
    """The value of a dotted name in nested dataclasses."""
    for part in name.split("."):
        config = getattr(config, part)
    return config


# --- the few places that touch Hydra and OmegaConf


def parse(argument: str) -> "Override":
    """One argument in Hydra's grammar. Raises HydraException."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create().parse_override(argument)


def is_readable(argument: str) -> bool:
    """Whether Hydra's grammar takes the argument."""
    from hydra.errors import HydraException

    try:
        parse(argument)
    except HydraException:
        return False
    return True


def sweep_values(override: "Override") -> list[Any]:
    """The single values of a sweep that can be enumerated; none of one that only an optimizer can walk."""
    from hydra.core.override_parser.types import Transformer

    return list(override.sweep_iterator(Transformer.identity)) if override.is_discrete_sweep() else []


def sweep_points(overrides: Sequence[str]) -> list[list[str]]:
    """The single runs of a sweep, each as overrides, in the order in which Hydra's own sweeper takes them."""
    choices: dict[str, list[str]] = {}
    for override in map(parse, overrides):
        key = override.get_key_element()
        several = override.is_sweep_override() and override.is_discrete_sweep()
        values = list(override.sweep_string_iterator()) if several else [override.get_value_element_as_str()]
        choices[key] = [key if override.is_delete() and not value else f"{key}={value}" for value in values]
    return [list(point) for point in product(*choices.values())]


def prepare(job: Job[Any]) -> None:
    """Make the job's schema and our one resolver known to Hydra."""
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    ConfigStore.instance().store(name=f"{job.name}_schema", node=job.schema)
    # In presets only: the folder of a set that travels with loraloom, wherever it is installed.
    OmegaConf.register_new_resolver("shipped", lambda name: str(data_dir() / name), replace=True)


def compose(job: Job[Any], overrides: Sequence[str]) -> "DictConfig":
    """The raw config of a single run."""
    import hydra

    prepare(job)
    with hydra.initialize_config_dir(str(Presets.home()), version_base="1.3", job_name=job.name):
        return hydra.compose(job.name, overrides=list(overrides))


def to_config(raw: "DictConfig", schema: type[C]) -> C:
    """The typed config; merging over the schema also refuses what is not in it."""
    from omegaconf import OmegaConf

    merged = OmegaConf.merge(OmegaConf.structured(schema), OmegaConf.to_container(raw))
    config = OmegaConf.to_object(merged)
    if not isinstance(config, schema):
        raise TypeError(f"{schema.__name__} came back as {type(config).__name__}")
    return config


@contextmanager
def understandable() -> Iterator[None]:
    """Turn what Hydra and OmegaConf raise into Refused, with the first cause; our own errors come out as they are."""
    from hydra.errors import HydraException
    from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException

    try:
        yield
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        cause: BaseException = error
        while cause.__cause__ is not None and not isinstance(cause, LoomError):
            cause = cause.__cause__
        if isinstance(cause, LoomError):
            raise cause from error
        where = getattr(cause, "full_key", None)
        message = str(cause).partition("\n")[0] or type(cause).__name__
        if isinstance(cause, InterpolationResolutionError):
            message += ". ${...} in quotes is replaced by a setting's value; the signs themselves are written \\${...}"
        raise Refused(f"{where}: {message}" if where else message) from error


def _hand_to_hydra(job: Job[Any], composer: Composer, words: Sequence[str]) -> int:
    """Let Hydra itself answer --cfg."""
    call_hydra(job, words, lambda _raw: None)
    return 0


def call_hydra(job: Job[Any], words: Sequence[str], task: Callable[["DictConfig"], None]) -> None:
    """Run Hydra's own main on these words; it reads them from sys.argv."""
    import os
    import sys

    import hydra

    prepare(job)
    before = sys.argv
    os.environ["HYDRA_FULL_ERROR"] = "1"  # else Hydra prints the traceback and exits by itself
    sys.argv = [f"loraloom {job.name}", *words]
    try:
        with understandable():
            hydra.main(version_base="1.3", config_path=str(Presets.home()), config_name=job.name)(task)()
    finally:
        sys.argv = before
