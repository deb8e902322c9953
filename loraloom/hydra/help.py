"""`loraloom train --help`: our settings with their defaults and meanings, and the presets, not Hydra's page."""

import shutil
import textwrap
from typing import TYPE_CHECKING, Any

from loraloom import console

if TYPE_CHECKING:
    from loraloom.hydra.composer import Composer
    from loraloom.hydra.job import Job

SWITCHES = """\
  --help          this page; with --json as JSON
  --multirun      run every combination of the comma-separated values: lora.rank=4,8,16 seed=1,2
  --cfg job       print the config that would be used
  --config-dir D  look for presets in the folder D too: D/experiment/mine.yaml is experiment=mine
  --info [WHAT]   how the config comes about: all, config, defaults, defaults-tree, plugins, searchpath
  --shell-completion install=bash   print the shell's completion script (zsh, fish): eval "$(...)"
  --hydra-help    Hydra's own page: its groups (hydra/launcher, hydra/sweeper) and settings
  --json          a dry run answers as JSON
  --debug         an error shows its traceback
"""
QUOTING = """\
Texts are taken as typed; put the whole argument in single quotes for the shell: 'prompt=a cat, in (a red) hat!'
In lists each text is quoted: 'axes.prompt=["a cat, sitting","a dog!"]'
"""


def show_help(job: "Job[Any]", composer: "Composer", *, as_json: bool) -> None:
    """Print the page of a job."""
    rows = settings_of(composer)
    if as_json:
        presets = {
            group: {name: composer.presets.meaning(group, name) for name in names} for group, names in composer.presets.groups.items()
        }
        console.answer_json({"settings": rows, "presets": presets})
        return
    width = min(shutil.get_terminal_size((110, 20)).columns, 140)
    parts = [f"usage: loraloom {job.name} KEY=VALUE ...\n\n{job.help}", f"settings:\n{_settings_text(rows, width)}"]
    if composer.presets.groups:
        parts.append(f"presets (GROUP=NAME), * is taken when none is named:\n{_presets_text(composer, width)}")
    parts.append(f"switches:\n{SWITCHES}\n{QUOTING}")
    if job.examples:
        parts.append("examples:\n" + "\n".join(f"  {example}" for example in job.examples))
    console.answer_lines("\n\n".join(part.strip("\n") for part in parts))


def settings_of(composer: "Composer") -> list[dict[str, Any]]:
    """Each setting as name, default (as composed from conf/), type in words, meaning, choices, and whether no others go."""
    from omegaconf import OmegaConf

    plain = OmegaConf.to_container(composer.defaults, enum_to_str=True)
    rows = []
    for setting in composer.schema.settings.values():
        value: Any = plain
        for part in setting.name.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        row = {"name": setting.name, "default": value, "type": setting.expected, "help": setting.help}
        rows.append(row | {"choices": list(setting.choices), "closed": setting.closed})
    return rows


def _settings_text(rows: list[dict[str, Any]], width: int) -> str:
    named = max(len(row["name"]) for row in rows)
    shown = [(row["name"], _spell(row["default"]), row["help"]) for row in rows]
    given = min(14, max(len(default) for _, default, _ in shown))
    lines = []
    for name, default, help in shown:
        head = f"  {name.ljust(named)}  {default.ljust(given)}  "
        lines.append(
            textwrap.fill(help or "-", width, initial_indent=head, subsequent_indent=" " * (named + given + 6), break_long_words=False)
        )
    return "\n".join(lines)


def _presets_text(composer: "Composer", width: int) -> str:
    presets = composer.presets
    pairs = [(f"{group}={name}", group, name) for group, names in presets.groups.items() for name in names]
    named = max((len(text) for text, _, _ in pairs), default=0)
    lines = []
    for text, group, name in pairs:
        mark = "*" if presets.chosen.get(group) == name else " "
        head = f"  {text.ljust(named)} {mark} "
        lines.append(textwrap.fill(presets.meaning(group, name) or "-", width, initial_indent=head, subsequent_indent=" " * (named + 5)))
    return "\n".join(lines)


def _spell(value: Any) -> str:
    if value is None:
        return "null"
    if value == "":
        return '""'
    if isinstance(value, bool):
        return str(value).lower()
    return f"[{','.join(map(str, value))}]" if isinstance(value, list) else str(value)
