"""A command line becomes a checked dataclass, and no DictConfig goes further.

Each argument is checked before Hydra parses it, so that all faults are reported at once, with the nearest known name. The
composed config is merged once more over the job's schema, which refuses what `++` would have let through.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from loraloom import console
from loraloom.hydra.arguments import Arguments
from loraloom.hydra.bridge import compose, is_readable, parse, to_config, understandable
from loraloom.hydra.job import Job, Request
from loraloom.hydra.literal import as_mappings, is_open_text, quote_value, take_literally, takes_anything
from loraloom.hydra.overrides import OverrideChecker
from loraloom.hydra.points import sweep_values
from loraloom.hydra.presets import Presets, leaves
from loraloom.hydra.settings import Schema, read_schema
from registry.errors import Faults, LoomError

if TYPE_CHECKING:
    from omegaconf import DictConfig

MISSING = "???"  # as OmegaConf spells a value that must be given


class Composer:
    """The settings, the presets and the arguments of one command line, and how they become a config."""

    def __init__(self, job: Job[Any], arguments: Arguments) -> None:
        self.job = job
        self.arguments = arguments
        self.schema: Schema = read_schema(job.schema)
        self.presets = Presets(job.name, extra=arguments.config_dir)
        self.named_as_settings = self.presets.groups.keys() & self.schema.settings.keys()
        self.given = [(raw, self.literal(raw)) for raw in arguments.overrides]
        self._last = {self._key(raw): at for at, (raw, _) in enumerate(self.given)}  # Hydra would merge a record into the one before
        kept = [literal for at, (raw, literal) in enumerate(self.given) if self._counting(raw) == at]
        self.overrides: list[str] = [*kept, *self.presets.search_path()]

    def request(self) -> Request[Any]:
        """The checked config of a single run. Raises Faults with every fault that the arguments have."""
        self.check()
        return self.request_of(self.overrides)

    def request_of(self, overrides: Sequence[str]) -> Request[Any]:
        """The checked config of these overrides, which are all single values by now."""
        with understandable():
            return self.request_from(compose(self.job.name, self.job.schema, overrides), overrides)

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
        return Request(config, {name: leaf(config, name) for name in touched}, frozenset(self._set_by(overrides)[1]))

    def _is_value(self, name: str, value: Any) -> bool:
        """Whether an override of a group is a value of the setting that has its name."""
        return name in self.named_as_settings and str(value) not in self.presets.groups[name]

    def _take_values(self) -> None:
        """Make known to Hydra the values of settings that a group of presets has the name of."""
        for override in map(parse, self.overrides):
            group = override.key_or_group
            if group in self.named_as_settings:
                values = sweep_values(override, self.presets.groups) if override.is_sweep_override() else [override.value()]
                for value in map(str, values):
                    if value not in self.presets.groups[group]:
                        self.presets.take_value(group, value)

    def touched(self, overrides: Sequence[str]) -> dict[str, Any]:
        """Dotted name -> value, before any conversion, of what the overrides set, themselves or by a preset."""
        presets, own = self._set_by(overrides)
        return presets | own

    def _set_by(self, overrides: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The same of the presets, and of the overrides themselves."""
        presets: dict[str, Any] = {}
        own: dict[str, Any] = {}
        for override in map(parse, overrides):
            name, value = override.key_or_group, override.value()
            if name in self.presets.groups and not isinstance(value, dict) and not self._is_value(name, value):
                presets |= self.presets.sets(name, value)
            else:
                own |= {name: value} if name in self.schema.settings else leaves(value, name)
        known = self.schema.settings
        return {name: value for name, value in presets.items() if name in known}, {name: own[name] for name in own if name in known}

    def literal(self, argument: str) -> str:
        """The argument as Hydra should read it: its value quoted where a text is meant, and no `+`, since our schemas are closed."""
        if argument.lstrip("+").startswith(("hydra.", "hydra/")):
            return argument
        argument = argument.lstrip("+") if "=" in argument else argument
        if argument.partition("=")[0] in self.presets.user_groups:
            return f"+{argument}"  # it is in no defaults list, so that Hydra has to add it
        quoted = take_literally(argument, self.schema, multirun=self.arguments.multirun)
        if quoted is argument and takes_anything(argument, self.schema) and not is_readable(argument):
            return quote_value(argument) if is_open_text(argument, self.schema) else as_mappings(argument)
        return quoted

    def check(self) -> None:
        """Raise Faults with everything that is wrong with the arguments, each checked by itself; note what is ignored."""
        checker = self.checker
        faults: list[str] = []
        wrong: set[str] = set()
        for raw, override in self.given:
            if fault := checker.fault(raw, override):
                faults.append(fault)
                wrong.add(override)
        sound = [override for override in self.overrides if override not in wrong]
        faults += self._exclusive_faults()
        faults += [] if faults else self._swept_faults()
        if faults:
            raise Faults(f"loraloom {self.job.name} was not started:", [*faults, *self._out_of_range(sound)])
        self._take_values()
        sets = [self._sets(override) for _, override in self.given]
        for at, (argument, _) in enumerate(self.given):
            within = [later for later in range(at + 1, len(sets)) if sets[at] and sets[at] <= sets[later]]  # of a record
            chosen, _ = self.given[max(self._counting(argument), *within, at)]
            if chosen != argument:
                console.say(f"note: {argument} is ignored: overridden by {chosen}")

    def _counting(self, argument: str) -> int:
        """The place of what counts in place of an argument. A ~ stays beside the choice before it, which Hydra takes away."""
        return max(self._last.get(self._key(one), -1) for one in (argument, argument.lstrip("~")))

    def _key(self, argument: str) -> str:
        """What an argument sets: the name before its `=`. A section's record is beside the section's preset."""
        name, _, value = argument.partition("=")
        name = name.lstrip("+")
        is_beside = name in self.schema.sections and name in self.presets.groups and value.lstrip().startswith("{")
        return f"{name}={{" if is_beside else name

    def _sets(self, override: str) -> set[str]:
        """The settings, or the group of presets, that an override sets."""
        read = parse(override)
        name = read.key_or_group
        value = None if read.is_sweep_override() or read.is_delete() else read.value()
        return {*leaves(value, name)} if name in self.schema.sections and isinstance(value, dict) else {name}

    @property
    def hydra_settings(self) -> list[str]:
        """The overrides that are Hydra's own; the folder of presets is no such setting."""
        return [one for _, one in self.given if one.lstrip("+~").startswith(("hydra.", "hydra/"))]

    @cached_property
    def checker(self) -> OverrideChecker:
        """What finds the faults of single overrides."""
        return OverrideChecker(
            schema_class=self.job.schema,
            schema=self.schema,
            presets=self.presets,
            multirun=self.arguments.multirun,
            shown=bool(self.arguments.hydra),
            aliases=self.job.aliases,
            given=self._as_typed(),
        )

    def _as_typed(self) -> dict[str, str]:
        """NAME -> value of what the presets and the arguments set, as text; names of other tools, too."""
        typed = {name.lstrip("+"): value for name, equals, value in (one.partition("=") for one in self.arguments.overrides) if equals}
        presets: dict[str, Any] = {}
        for group, name in typed.items():
            if group in self.presets.groups:
                presets |= self.presets.sets(group, name)
        return {name: str(value) for name, value in presets.items()} | {name.replace("-", "_").lower(): v for name, v in typed.items()}

    def _exclusive_faults(self) -> list[str]:
        """Settings that were given both, of which one takes the place of the other."""
        names = [argument.partition("=")[0].lstrip("+") for argument in self.arguments.overrides]
        return [
            f"{one} and {other} are given both: one sets the other. Give one."
            for one, other in self.job.exclusive
            if {one, other} <= {*names}
        ]

    def _swept_faults(self) -> list[str]:
        """A section's record beside its preset: Hydra's sweepers take one value a name, and would drop the preset without a word."""
        found = []
        for name in self.schema.sections if self.arguments.multirun else ():
            if {name, f"{name}={{"} <= self._last.keys():
                (preset, _), (record, literal) = (self.given[self._last[key]] for key in (name, f"{name}={{"))
                inside = " ".join(f"{one}=..." for one in sorted(self._sets(literal)))
                found.append(f"{preset} and {record}: a sweep takes one of them. Give what is in the record by its own name: {inside}.")
        return found

    def with_what_the_plan_finds(self, error: Faults) -> Faults:
        """The faults of settings, and with them what a plan without those settings finds: the base, the data, the files.

        Where a setting could not be read or is missing there is no plan to ask: what it would say might be of that alone.
        """
        names = {fault.partition(" ")[0] for fault in error.faults}
        if not names <= self.schema.settings.keys():
            return error
        sound = [override for override in self.overrides if parse(override).key_or_group not in names]
        if names & self.job.sources and not self.job.sources & {parse(override).key_or_group for override in sound}:
            return error
        try:
            self.job.plan(self.request_of(sound))
        except Faults as more:
            return Faults(f"loraloom {self.job.name} was not started:", dict.fromkeys([*error.faults, *more.faults]))
        except LoomError as one:
            return Faults(f"loraloom {self.job.name} was not started:", [*error.faults, str(one)])
        return error

    def _out_of_range(self, overrides: Sequence[str]) -> list[str]:
        """What is out of range in arguments that each can be read, so that it is reported with those that cannot."""
        if self.arguments.multirun:
            return []
        try:
            self.request_of(overrides)
        except Faults as error:
            return list(error.faults)
        except LoomError:  # reported when the arguments can be read
            return []
        return []

    @cached_property
    def defaults(self) -> Any:
        """The config with nothing given, unchecked: what --help shows."""
        with understandable():
            return compose(self.job.name, self.job.schema, self.presets.search_path())


def leaf(config: object, name: str) -> Any:
    """The value of a dotted name in nested dataclasses."""
    for part in name.split("."):
        config = getattr(config, part)
    return config
