"""An edit as it is asked for, by the command line or by a page: which of the kinds it is, its plan, and the command that says it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from registry.errors import NotFound, Refused
from registry.home import expanded
from registry.progress import Report, silent
from train.data.editing import journal
from train.data.editing.additions import plan_additions
from train.data.editing.captions import plan_captions, plan_operations
from train.data.editing.changes import keep
from train.data.editing.edit_plan import Choice, EditPlan
from train.data.editing.entries import EditableSet, read_entries
from train.data.editing.heldout import plan_heldout
from train.data.editing.masks import plan_masks, plan_unmasked
from train.data.editing.operations import Operation, words_of
from train.settings.data import DataConfig

LARGEST_MASK = 256 << 20  # bytes of a file that is to be a mask


@dataclass(frozen=True, kw_only=True)
class EditRequest:
    """One edit of the set at `path`: operations on the chosen captions, or one of the others."""

    path: str
    operations: Sequence[Operation] = ()
    choice: Choice = field(default_factory=Choice)
    captions: Mapping[str, str] = field(default_factory=dict)  # whole ones, by image
    hold_out: Sequence[str] = ()
    train: Sequence[str] = ()
    masks: Mapping[str, str] = field(default_factory=dict)  # files, by image
    unmask: Sequence[str] = ()
    add: Sequence[str] = ()
    lines: bool = False  # each line of a text file is a caption of its own
    image_column: str | None = None
    caption_column: str | None = None

    @property
    def folder(self) -> Path:
        return expanded(self.path).absolute()

    @property
    def config(self) -> DataConfig:
        """The set's settings as training has them."""
        captions = "lines" if self.lines else "whole"
        return DataConfig(path=self.path, captions=captions, image_column=self.image_column, caption_column=self.caption_column)

    def words(self) -> list[str]:
        """The command, behind `loraloom`."""
        found = ["data", "edit", self.path, *words_of(self.operations)]
        for name, text in self.captions.items():
            found += ["--set-caption", _file(name), f" {text}" if text.startswith("-") else text]
        for name, mask in self.masks.items():
            found += ["--set-mask", _file(name), _file(mask)]
        found += ["--only", self.choice.only] if self.choice.only is not None else []
        for tag in self.choice.tagged:
            found += ["--tagged", f" {tag}" if tag.startswith("-") else tag]
        lists = {"--files": self.choice.files, "--hold-out": self.hold_out, "--train": self.train}
        for option, names in {**lists, "--remove-mask": self.unmask, "--add-image": self.add}.items():
            found += [option, *map(_file, names)] if names else []
        found += ["--lines"] * self.lines
        found += ["--image-column", self.image_column] if self.image_column is not None else []
        return found + (["--caption-column", self.caption_column] if self.caption_column is not None else [])

    def check(self) -> None:
        """Raise Refused unless it is exactly one kind of edit, of a set that is named."""
        if not self.path:
            raise Refused("The set is an empty text. Give its folder; . is this one.")
        kinds = (self.operations, self.captions, self.hold_out, self.train, self.masks, self.unmask, self.add)
        if sum(map(bool, kinds)) != 1:
            many = "several kinds at once" if any(kinds) else "nothing"
            raise Refused(
                f"This would edit {many}. Give operations on captions (--replace, --add, --remove, --rename, --dedupe, --sort), or one of"
                " --set-caption, --hold-out, --train, --set-mask, --remove-mask, --add-image."
            )
        if not self.operations and self.choice != Choice():
            raise Refused("--only, --tagged and --files choose the images of operations on captions; other edits take names of images.")

    def plan(self, *, known: EditableSet | None = None) -> EditPlan:
        """What it would change; nothing is changed. Raises Refused, Faults, OSError. `known`: the set, where it was just read."""
        self.check()
        if self.add:
            return plan_additions(self.folder, self.add)
        found = known if known is not None and known.config == self.config else read_entries(self.config)
        if self.operations:
            return plan_operations(found, self.operations, self.choice)
        if self.captions:
            return plan_captions(found, self.captions)
        if self.masks:
            return plan_masks(found, {name: _mask_bytes(file) for name, file in self.masks.items()})
        if self.unmask:
            return plan_unmasked(found, self.unmask)
        return plan_heldout(found, self.hold_out or self.train, hold_out=bool(self.hold_out))

    def make(self, *, report: Report = silent) -> tuple[EditPlan, journal.Made | None]:
        """Plan it and make it; None: there was nothing to change. Raises as `plan` before anything is changed."""
        self.check()
        if not self.folder.is_dir():
            raise Refused(f"{self.path}: there is no such folder. An edit changes a folder of images on this machine.")
        if journal.interrupted(self.folder):
            with journal.editing(self.folder):  # after a process that is at it now
                journal.check_finished(self.folder)
        plan = self.plan()
        if not plan.changes:
            return plan, None
        with journal.editing(self.folder):
            plan = self.plan()  # as it is now that nobody else edits
            if not plan.changes:
                return plan, None
            for content in plan.contents:
                keep(self.folder, content)
            return plan, journal.make(self.folder, plan.changes, words=self.words(), images=plan.images, report=report)


def _file(name: str) -> str:
    """A name as a word that no option is taken for."""
    return f"./{name}" if name.startswith("-") else name


def _mask_bytes(given: str) -> bytes:
    path = expanded(given)
    if not path.is_file():
        raise NotFound(f"--set-mask {given}: there is no such file.")
    if path.stat().st_size > LARGEST_MASK:
        raise Refused(f"--set-mask {given}: is larger than {LARGEST_MASK >> 20} MiB. Save it as a grey PNG.")
    return path.read_bytes()
