"""Validates one KEY=VALUE and suggests the nearest valid key or value; each alone, so that all faults are reported together."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from loraloom.hydra.aliases import Aliases, Given, alias_answer
from loraloom.hydra.bridge import parse
from loraloom.hydra.literal import rightly_quoted, unclear_list
from loraloom.hydra.plugins import choice_fault
from loraloom.hydra.points import sweep_values
from loraloom.hydra.presets import Presets, leaves
from loraloom.hydra.settings import Schema, Setting
from registry.home import expanded
from registry.names import suggest

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override


PLUGINS = ("hydra/launcher", "hydra/sweeper")
IN_SWEEPS = ("hydra.sweeper", "hydra.launcher", *PLUGINS)
OUT = "runs make their own folders. Give out=DIR, and name=NAME where the job has one"
NOT_OURS = {  # Hydra's settings that cannot act, and why
    "hydra.run": OUT,
    "hydra.sweep": OUT,
    "hydra.output_subdir": "the run folder has its config.yaml already",
    "hydra.job.chdir": "paths are relative to where loraloom is started, and runs make their own folders. Give out=DIR",
    "hydra.mode": "--multirun (-m) is how loraloom sweeps",
    "hydra.help": "--help is loraloom's own page",
}


@dataclass(frozen=True, kw_only=True)
class OverrideChecker:
    """Knows a job's settings and presets. `multirun`: several values are a sweep. `shown`: Hydra prints a config and runs nothing."""

    schema_class: type
    schema: Schema
    presets: Presets
    multirun: bool
    shown: bool
    aliases: Aliases = field(default_factory=dict)
    given: Given = field(default_factory=dict)  # the whole command line, for aliases whose value depends on another

    def fault(self, raw: str, argument: str) -> str | None:
        """What is wrong with one argument (as typed, and with its text quoted), or None."""
        if "=" not in raw and not raw.startswith("~"):
            return f"{raw!r} is no setting. Expected KEY=VALUE; --help lists them."
        from hydra.errors import HydraException

        try:
            override = parse(argument)
        except HydraException:
            return self._grammar_fault(raw)
        name = override.key_or_group
        if name.partition(".")[0].partition("/")[0] == "hydra":
            return self._hydra_fault(raw, override)
        if name in self.presets.groups and not isinstance(override.value(), dict):
            return self._preset_fault(raw, override)
        if name not in self.schema.settings and name not in self.schema.sections:
            return self._unknown(raw, name)
        if override.is_delete():
            return f"{raw}: a setting cannot be taken away. Give it another value."
        if override.is_sweep_override() and not self.multirun:
            return self._comma_fault(raw, name)
        setting = self.schema.settings.get(name)
        if setting is not None and setting.prose and not override.is_sweep_override() and (meant := unclear_list(raw)):
            return f"{raw}: a comma may be inside a text or between two; put each text in quotes. Did you mean {' or '.join(meant)}?"
        values = sweep_values(override, {}) if override.is_sweep_override() else [override.value()]
        if not values:
            return f"{raw}: this gives no value. glob(...) chooses among presets, range(...) ends before its second number."
        return next((found for value in values if (found := self._value_fault(raw, name, value))), None)

    def _unknown(self, raw: str, name: str) -> str:
        """What to say of a name that is no setting: ours, where another tool has it, else the nearest."""
        known = alias_answer(self.aliases, name, raw.partition("=")[2], self.given)
        if known is not None:
            return f"{raw}: {known}"
        return f"{raw}: there is no setting {name!r}. {self.schema.nearest(name, groups=self.presets.groups)}"

    def _hydra_fault(self, raw: str, override: "Override") -> str | None:
        """What is wrong with a setting of Hydra itself: one that cannot act, or a plug-in that is not there."""
        name = override.key_or_group
        if not self.shown:
            why = next((words for key, words in NOT_OURS.items() if name == key or name.startswith(f"{key}.")), None)
            if why is not None:
                return f"{raw}: this setting of Hydra cannot act here: {why}."
            if not self.multirun and name.startswith(IN_SWEEPS):
                return f"{raw}: launchers and sweepers act only with --multirun."
        if name in PLUGINS and not override.is_sweep_override() and not override.is_delete():
            return choice_fault(name, str(override.value()), self.presets.folders)
        return None

    def _grammar_fault(self, raw: str) -> str:
        """What to say of an argument that Hydra's grammar cannot read."""
        key = raw.partition("=")[0]
        name = key.lstrip("+~")
        if name not in self.schema.settings and name not in self.schema.sections and name not in self.presets.groups:
            return self._unknown(raw, name)
        setting = self.schema.settings.get(name)
        if setting is not None and setting.is_plain:
            return f"{raw}: expected {setting.expected}."
        return f"{raw}: the value cannot be read; put texts with such characters in quotes. Did you mean {rightly_quoted(raw)}?"

    def _comma_fault(self, raw: str, name: str) -> str:
        """What to say of several values where there is one run."""
        setting = self.schema.settings.get(name)
        key, _, value = raw.partition("=")
        if (known := alias_answer(self.aliases, name, value, self.given)) is not None:
            return f"{raw}: {known}"
        more = "" if setting is None or setting.is_plain else f" A list is {rightly_quoted(f'{key}=[{value}]')}."
        return f"{raw}: several values make a sweep, which --multirun runs.{more}"

    def _preset_fault(self, raw: str, override: "Override") -> str | None:
        """What is wrong with the choice of a preset."""
        group = override.key_or_group
        if override.is_delete():
            return None
        if override.is_sweep_override() and not self.multirun:
            return f"{raw}: several presets make a sweep, which --multirun runs."
        chosen = sweep_values(override, self.presets.groups) if override.is_sweep_override() else [override.value()]
        if not chosen:
            return f"{raw}: fits no preset of {group}. There are: {', '.join(sorted(self.presets.groups[group]))}."
        for one in chosen:
            for name in one if isinstance(one, list) else [one]:
                if name is not None and group not in self.schema.settings and str(name) not in self.presets.groups[group]:
                    return f"{raw}: there is no preset {str(name)!r} of {group}. {self._presets_like(str(name), group)}"
        return None

    def _presets_like(self, name: str, group: str) -> str:
        known = self.presets.groups[group]
        places = (f"{group}.path",) if expanded(name).exists() else ()
        setting = next((self.schema.settings[one] for one in (*places, f"{group}.name") if one in self.schema.settings), None)
        return suggest(name, known, whole=True) + (f" A value of the setting itself is given as {setting.name}={name}." if setting else "")

    def _value_fault(self, raw: str, name: str, value: Any) -> str | None:
        """Whether the schema takes the value, alone; for a dict of a section, each of its values."""
        inside = leaves(value, name) if name in self.schema.sections else {name: value}
        if name in self.schema.sections and not isinstance(value, dict):
            return f"{raw}: {self._section(name, value)}"
        for one, its in inside.items():
            if one not in self.schema.settings:
                return f"{raw}: there is no setting {one!r}. {self.schema.nearest(one)}"
            if not self._takes(one, its):
                return f"{raw}: {f'{one}: ' if one != name else ''}{_expected(self.schema.settings[one], its)}"
        return None

    @cached_property
    def _structured(self) -> Any:
        """The schema with its types, to try values on: each is taken or not whatever was tried before it."""
        from omegaconf import OmegaConf

        return OmegaConf.structured(self.schema_class)

    def _takes(self, name: str, value: Any) -> bool:
        from omegaconf import OmegaConf
        from omegaconf.errors import OmegaConfBaseException

        try:
            OmegaConf.update(self._structured, name, value, merge=False)  # a record would go into the one tried before
        except (OmegaConfBaseException, OverflowError):  # the latter of a whole number that no float holds
            return False
        return True

    def _section(self, name: str, value: Any) -> str:
        """What to say of a section that was given one value."""
        if f"{name}.name" in self.schema.settings:
            return f"{name} is a section. Did you mean {name}.name={value}?"
        inside = [one for one in self.schema.settings if one.startswith(f"{name}.")]
        return f"{name} is a section; set one of its values: {', '.join(inside)}."


def _expected(setting: Setting, value: Any) -> str:
    """'expected a whole number', with the nearest value where one can be seen."""
    words = f"expected {setting.expected}."
    if setting.kinds == (int,) and isinstance(value, float) and value.is_integer() and abs(value) < 2**53:  # no float above is exact
        words += f" Did you mean {int(value)}?"
    members = [name for kind in setting.kinds for name in getattr(kind, "__members__", ())]
    return f"{words} {suggest(str(value), members)}" if members and "Did" in suggest(str(value), members) else words
