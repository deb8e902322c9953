"""The presets in conf/: which groups a job offers, what they hold, and what each is for."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from loraloom.data_files import conf_dir
from loraloom.hydra.literal import quote
from registry.errors import BadFile
from registry.plain_values import from_yaml
from registry.typed_values import shown


@dataclass(frozen=True)
class Presets:
    """The groups that a job's YAML lists among its defaults; `extra` is a folder of the user's own presets."""

    job: str
    extra: Path | None = None

    @staticmethod
    def home() -> Path:
        """The folder that travels with loraloom."""
        return conf_dir()

    def search_path(self) -> list[str]:
        """The override that makes Hydra look into the user's folder too."""
        return [] if self.extra is None else [f"hydra.searchpath=[{quote(f'file://{self.extra}')}]"]

    @cached_property
    def chosen(self) -> dict[str, str | None]:
        """Group -> the preset that is taken when none is named."""
        import yaml

        entries = (yaml.safe_load((self.home() / f"{self.job}.yaml").read_text(encoding="utf-8")) or {}).get("defaults", [])
        pairs = [pair for entry in entries if isinstance(entry, dict) for pair in entry.items()]
        return {name: option for name, option in pairs if not name.startswith("override ")}

    @property
    def folders(self) -> list[Path]:
        """Where presets are looked for, ours first."""
        return [self.home(), *([self.extra] if self.extra else [])]

    @cached_property
    def groups(self) -> dict[str, dict[str, Path]]:
        """Group -> its presets by name, each with its file; the user's own groups after the job's."""
        names = [*self.chosen, *self.user_groups]
        return {group: {path.stem: path for folder in self.folders for path in sorted((folder / group).glob("*.yaml"))} for group in names}

    @cached_property
    def user_groups(self) -> tuple[str, ...]:
        """Groups of the user's folder that the job's defaults do not list: Hydra adds such a one with `+group=option`."""
        if self.extra is None:
            return ()
        found = {path.parent.relative_to(self.extra).as_posix() for path in self.extra.rglob("*.yaml")} - {"."}
        return tuple(sorted(group for group in found if group not in self.chosen and group.partition("/")[0] != "hydra"))

    def sets(self, group: str, options: Any) -> dict[str, Any]:
        """The dotted settings that these presets of a group set; ??? is one that the user must give."""
        values: dict[str, Any] = {}
        for option in options if isinstance(options, list) else [options]:
            if option is not None and str(option) in self.groups[group]:
                values |= _values(self.groups[group][str(option)], group)
        return values

    def take_value(self, group: str, value: str) -> None:
        """Let a group that has the name of a setting take a value of the setting too: tracker=wandb+tensorboard."""
        from hydra.core.config_store import ConfigStore

        ConfigStore.instance().store(group=group, name=value, node={group: value}, package="_global_")

    def meaning(self, group: str, option: str) -> str:
        """The comment that a preset begins with."""
        lines = self.groups[group][option].read_text(encoding="utf-8").splitlines()
        comments = [line.removeprefix("#").strip() for line in lines if line.startswith("#") and "@package" not in line]
        return comments[0] if comments else ""


def leaves(value: Any, name: str) -> dict[str, Any]:
    """Dotted name -> value of nested dicts, below this name."""
    if not isinstance(value, dict):
        return {name: value}
    return {leaf: inner for key, one in value.items() for leaf, inner in leaves(one, f"{name}.{key}" if name else str(key)).items()}


def _values(path: Path, group: str) -> dict[str, Any]:
    """What a preset sets; first what the presets beside it set that its defaults list names. Raises BadFile."""
    try:
        text = path.read_text(encoding="utf-8")
        values = from_yaml(text) or {}
    except (OSError, ValueError) as error:
        raise BadFile(path, "unreadable", f"is a preset, and cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise BadFile(path, "unreadable", f"is a preset, and holds {shown(values)}; NAME: VALUE lines were expected.")
    defaults = values.pop("defaults", None) or []
    shared = [entry for entry in defaults if isinstance(entry, str) and entry != "_self_"] if isinstance(defaults, list) else []
    found: dict[str, Any] = {}
    for entry in shared:
        if (beside := path.parent / f"{entry}.yaml").is_file():
            found |= _values(beside, group)
    return found | leaves(values, "" if "@package _global_" in text else group.replace("/", "."))
