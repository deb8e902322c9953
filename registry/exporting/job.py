"""An export as a job: every model's path in the tool's folder is planned, then linked, converted or copied. Nothing is overwritten."""

from __future__ import annotations

import os
import re
import shutil
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.adapters.reader import read_adapter
from registry.converting.job import ConvertPlan, ConvertRequest, plan_convert, run_convert
from registry.converting.respelling import is_pefts
from registry.detect.header_metadata import read_json_value
from registry.errors import BadFile, Faults, JobFailed, LoomError, Refused
from registry.exporting.layouts import LAYOUTS, ToolLayout
from registry.files.unfinished import only_writer
from registry.files.write_failure import make_folder
from registry.formats.atomic_file import proven_file, sync_folder
from registry.formats.model_folder import folder_files
from registry.formats.safetensors_header import read_header
from registry.printable import shell_line
from registry.progress import Report, Tick, silent
from registry.record import Record

if TYPE_CHECKING:
    from registry.store import Store

DENOISERS = ("unet", "transformer", "prior")
UNSAFE = re.compile(r"[^\w.+-]+")  # every system and tool takes what is left
RESERVED = re.compile(r"^(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)  # names that Windows keeps for devices
DIGITS = 10  # of a hash, behind a name that is taken
LONGEST = 200  # bytes of a name; systems take 255 with what is put behind it


@dataclass(frozen=True, kw_only=True)
class ExportItem:
    """One model: where it goes, and how: link, convert, or already there."""

    record: Record
    target: Path
    how: str
    conversion: ConvertPlan | None = None
    notes: tuple[str, ...] = ()

    def to_json(self, how: str | None = None) -> dict[str, Any]:
        """Plain values with stable keys."""
        return {
            "name": self.record.name,
            "kind": self.record.kind,
            "family": self.record.family,
            "source": self.record.path,
            "target": str(self.target),
            "how": how or self.how,
            "notes": list(self.notes),
        }


@dataclass(frozen=True, kw_only=True)
class ExportPlan:
    """An export that can be run."""

    layout: str
    folder: Path
    items: tuple[ExportItem, ...]

    def to_json(self, done: Mapping[Path, str] | None = None) -> dict[str, Any]:
        """Plain values with stable keys; `done` has how each was made."""
        items = [item.to_json((done or {}).get(item.target)) for item in self.items]
        return {"layout": self.layout, "folder": str(self.folder), "items": items}


def plan_export(references: Sequence[str], store: Store, folder: Path, *, layout: str) -> ExportPlan:
    """Everything checked, nothing written. Raises Faults with all that cannot be exported."""
    tool = LAYOUTS[layout]
    root = folder.parent if folder.name == "models" and layout == "comfyui" else folder  # its models folder was named
    faults: list[str] = []
    items: list[ExportItem] = []
    taken: dict[Path, Record] = {}
    if folder.exists() and not folder.is_dir():
        faults.append(f"{folder} is a file; the tool's folder was expected.")
    for record in _records(references, store, faults):
        try:
            item = _item(record, tool, root, store, taken)
        except LoomError as error:
            faults.append(f"{record.name}: {error}")
            continue
        taken[item.target] = record
        items.append(item)
    if not references:
        faults.append("no model was named. Give names, paths or hashes.")
    if faults:
        raise Faults("Nothing was exported:", faults)
    return ExportPlan(layout=layout, folder=folder, items=tuple(items))


def _records(references: Sequence[str], store: Store, faults: list[str]) -> list[Record]:
    """The referenced Records, each once."""
    found: dict[str, Record] = {}
    for reference in references:
        try:
            for record in store.expand(reference):
                found.setdefault(str(record.path), record)
        except LoomError as error:
            faults.append(str(error))
    return list(found.values())


def _item(record: Record, tool: ToolLayout, root: Path, store: Store, taken: Mapping[Path, Record]) -> ExportItem:
    """One model's target and how it gets there. Raises Refused for what the tool does not read in any form."""
    source = Path(str(record.path))
    if not source.exists():
        raise Refused(f"its file {source} is not there.")
    if record.dialect == "gguf" and not tool.gguf:
        raise Refused(f"{tool.title} does not read GGUF files.")
    place = tool.place(record.kind, denoiser_alone=_is_denoiser_alone(record))
    if place is None:
        raise Refused(f"is of kind {record.kind}, for which {tool.title} has no folder.")
    form = _form(record, source, tool)
    ending = source.suffix if source.is_file() else ""
    target, there = _free_place(root / place, record, ending if form is None else ".safetensors", store, taken, converted=form is not None)
    if form is None:
        return ExportItem(record=record, target=target, how="already there" if there else "link")
    if there:
        return ExportItem(record=record, target=target, how="already there")
    if record.family is None and record.candidates:
        way = ("set", record.name) if record.id else ("add", source)
        say = shell_line("loraloom", "registry", *way, "--family")
        raise Refused(f"may be for {' or '.join(record.candidates)}; nothing in it decides. Say which one: {say} FAMILY")
    request = ConvertRequest(reference=record.id or str(source), target=form, output=target, register=False)
    conversion = plan_convert(request, store)
    own = tool.place(record.kind, denoiser_alone=_holds_denoiser_alone(conversion))
    if own != place:  # a folder's transformer is a file of another kind
        target, there = _free_place(root / str(own), record, ".safetensors", store, taken, converted=True)
        if there:
            return ExportItem(record=record, target=target, how="already there")
        conversion = plan_convert(replace(request, output=target), store)
    note = f"converted to {form}: it is of a form ({record.dialect or 'not known'}) that is not read by {tool.title}"
    return ExportItem(record=record, target=target, how="convert", conversion=conversion, notes=(note, *conversion.notes))


def _form(record: Record, source: Path, tool: ToolLayout) -> str | None:
    """The form that it must be converted to; None: it is read as it is."""
    if record.kind == "adapter":
        read = tool.reads(record.dialect) and not (record.dialect == "lycoris" and any(map(is_pefts, read_adapter(source).modules)))
        return None if read else tool.adapter
    if record.kind == "checkpoint" and source.is_dir():
        return tool.checkpoint
    return None


def _is_denoiser_alone(record: Record) -> bool:
    """Whether a single file holds a denoiser and nothing else."""
    return bool(record.components) and all(component in DENOISERS for component in record.components)


def _holds_denoiser_alone(conversion: ConvertPlan) -> bool:
    components = conversion.conversion.facts.get("components")
    return bool(components) and all(component in DENOISERS for component in components or [])


# --- names


def safe_file_name(name: str) -> str:
    """A name that every system and tool takes."""
    plain = UNSAFE.sub("_", unicodedata.normalize("NFC", name)).strip("._") or "model"
    plain = f"_{plain}" if RESERVED.match(plain) else plain
    return plain.encode()[:LONGEST].decode(errors="ignore")


def _free_place(
    folder: Path, record: Record, ending: str, store: Store, taken: Mapping[Path, Record], *, converted: bool
) -> tuple[Path, bool]:
    """(a free path, whether this model is there already)."""
    name = safe_file_name(record.name)
    for stem in (name, f"{name}-{str(store.sha256(record))[:DIGITS]}"):
        target = folder / f"{stem}{ending}"
        if target in taken:
            continue
        if not target.exists() and not target.is_symlink():
            return target, False
        if _was_made_of(record, target, store) if converted else _is_same(record, target, store):
            return target, True
    raise Refused(f"{target} is there and is something else. Remove it, or export to another folder.")


def _was_made_of(record: Record, target: Path, store: Store) -> bool:
    """Whether a file's header names this model as the source it was converted from."""
    try:
        parents = read_json_value(read_header(target).metadata.get("loraloom.parents"))
    except BadFile:
        return False
    made = parents if isinstance(parents, list) else []
    return any(
        isinstance(parent, dict) and parent.get("role") == "source" and parent.get("sha256") == store.sha256(record) for parent in made
    )


def _is_same(record: Record, target: Path, store: Store) -> bool:
    source = Path(str(record.path))
    if target.is_dir() != source.is_dir():
        return False
    if target.samefile(source):
        return True
    try:
        return store.sha256(store.find(str(target))) == store.sha256(record)
    except LoomError:
        return False


# --- doing it


def run_export(plan: ExportPlan, store: Store, *, report: Report = silent) -> dict[Path, str]:
    """Make what was planned; how each was made. Raises JobFailed; what was made before stays."""
    done: dict[Path, str] = {}
    for number, item in enumerate(plan.items, 1):
        report(Tick("export", number, len(plan.items), item.target.name))
        if item.how == "already there":
            done[item.target] = item.how
        elif item.conversion is not None:
            run_convert(item.conversion, store, report=silent)
            done[item.target] = "converted"
        else:
            done[item.target] = place(Path(str(item.record.path)), item.target)
    return done


def place(source: Path, target: Path) -> str:
    """Put a file or the files of a folder there: hard links, else symbolic ones, else copies. Never over what is there."""
    with only_writer(target):
        if not source.is_dir():
            return _place_file(source, target)
        ways: list[str] = []
        for file in folder_files(source):
            there = target / file.relative_to(source)
            make_folder(there.parent)
            ways.append(_place_file(file, there))
        return max(ways, key=ORDER.index, default="hard link")


ORDER = ("hard link", "symbolic link", "copy")


def _place_file(source: Path, target: Path) -> str:
    real = source.resolve()
    for conversion, make in (("hard link", os.link), ("symbolic link", os.symlink)):
        try:
            make(real, target)
        except FileExistsError as error:
            raise JobFailed(f"{target} came to be while it was exported; it was left as it is. Export again.") from error
        except (OSError, RuntimeError):  # another disk, or a system without such links
            continue
        sync_folder(target.parent)
        return conversion
    _copy(real, target)
    return "copy"


def _copy(source: Path, target: Path) -> None:
    with proven_file(target) as temporary:
        shutil.copyfile(source, temporary)
