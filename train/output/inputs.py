"""inputs.json of a run folder: base and data by their hashes, checked and extended by every resume."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.errors import Faults, Refused
from registry.formats.atomic_file import write_json, write_text
from registry.typed_values import is_of
from train.adapters.start import named
from train.config import to_yaml
from train.data.texts.variants import is_drawn
from train.output import folder
from train.plan.plan import Plan

if TYPE_CHECKING:
    from registry.store import Store

WHEN = "%Y-%m-%dT%H:%M:%SZ"
PLACES = ("base", "base_config", "adapter.training", "lora.start", "data.path", "heldout.path")  # settings that may be paths
HASHED = tuple(name for name in PLACES if name != "base_config")  # what lies there is held to the hashes that the run began with
ADAPTERS = {"training_adapter": "training adapter", "start_adapter": "adapter that is continued"}


def inputs_of(made: Plan, store: Store) -> dict[str, Any]:
    """Base and data by their hashes, as inputs.json holds them."""

    def rows(samples: Any, prompts: Any) -> list[dict[str, Any]]:
        return [
            {"file": sample.name, "sha256": sample.sha256, "prompt": prompt}
            | ({"mask": sample.mask.sha256} if sample.mask else {})
            | ({"rejected": sample.rejected.sha256} if sample.rejected else {})
            | ({"captions": list(sample.captions)} if is_drawn(sample, made.config.data) else {})
            for sample, prompt in zip(samples, prompts, strict=True)
        ]

    return {
        "base": {
            "name": made.base.name,
            "family": made.base.family.name,
            "path": str(made.base.path),
            "sha256": store.sha256(made.base.record),
        },
        **({} if made.training is None else {"training_adapter": named(made.training, store)}),
        **({} if made.start is None else {"start_adapter": named(made.start, store)}),
        "dataset": {"path": made.dataset.path, "sha256": made.dataset.sha256, "files": rows(made.train, made.prompts)},
        "heldout": rows(made.heldout, made.heldout_prompts),
        "resumes": [],
    }


def started_now() -> str:
    """The time a run starts at, in UTC; that of SOURCE_DATE_EPOCH (seconds since 1970) where it is set, for the same bytes on any day."""
    given = os.environ.get("SOURCE_DATE_EPOCH")
    try:
        return time.strftime(WHEN, time.gmtime(None if given is None else int(given)))
    except (ValueError, OverflowError, OSError):
        raise Refused(f"SOURCE_DATE_EPOCH={given} is not a number of seconds since 1970. Unset it, or give one.") from None


def started_day(inputs: Mapping[str, Any]) -> str:
    """The day on which a run started, 2026-11-28, the same in every file that it writes; empty for runs that did not record it."""
    return str(inputs.get("started", "")).partition("T")[0]


def check_inputs(place: Path, made: Plan, store: Store) -> None:
    """Check that base and data are those that the run started with. Raises Faults with what differs."""
    before, now = folder.read_json_if_there(place / folder.INPUTS), inputs_of(made, store)
    if before is None:
        raise Refused(f"{place} has no {folder.INPUTS}: it is not a complete run folder.")
    if not is_sound(before):
        raise Refused(f"{place / folder.INPUTS} does not hold a run's inputs. Was it edited? Start a new run.")
    faults = []
    if before["base"]["sha256"] != now["base"]["sha256"]:
        faults.append(
            f"the base {made.base.path} is another one (sha256 {now['base']['sha256'][:12]}, was {before['base']['sha256'][:12]})"
        )
    for key, what in ADAPTERS.items():
        was_used, is_used = (of.get(key) or {} for of in (before, now))
        if was_used.get("sha256") != is_used.get("sha256"):
            faults.append(
                f"the {what} {is_used.get('path')} is another one"
                f" (sha256 {str(is_used.get('sha256'))[:12]}, was {str(was_used.get('sha256'))[:12]})"
            )
    for part, old, new in (("", before["dataset"]["files"], now["dataset"]["files"]), ("held out: ", before["heldout"], now["heldout"])):
        was, is_now = (
            {row["file"]: (row["sha256"], row["prompt"], row.get("captions"), row.get("mask"), row.get("rejected")) for row in rows}
            for rows in (old, new)
        )
        faults += [f"{part}{name} is gone" for name in was.keys() - is_now.keys()]
        faults += [f"{part}{name} is new" for name in is_now.keys() - was.keys()]
        faults += [f"{part}{name} has another image, caption or mask" for name in was.keys() & is_now.keys() if was[name] != is_now[name]]
    if faults:
        raise Faults(
            f"{place} was started with other inputs. Restore them, give where they are now (base=, data.path=, ...), or start a new run:",
            sorted(faults),
        )


def is_sound(inputs: Mapping[str, Any]) -> bool:
    """Whether this is what inputs.json holds, as far as it is read."""
    base, dataset = inputs.get("base"), inputs.get("dataset")
    rows = (dataset.get("files") if isinstance(dataset, dict) else None, inputs.get("heldout"))
    texts = all(
        isinstance(part, list)
        and all(isinstance(row, dict) and all(isinstance(row.get(key), str) for key in ("file", "sha256", "prompt")) for row in part)
        for part in rows
    )
    resumes = inputs.get("resumes")
    rows_of_resumes = isinstance(resumes, list) and all(
        isinstance(row, dict) and is_of(row.get("step"), int) and isinstance(row.get("changes"), dict) for row in resumes
    )
    adapters = all(isinstance(inputs.get(key, {}), dict) for key in ADAPTERS)
    return adapters and texts and rows_of_resumes and isinstance(base, dict) and isinstance(base.get("sha256"), str)


def record_resume(place: Path, made: Plan, *, step: int, changes: Mapping[str, Any]) -> None:
    """Record the resume in inputs.json, with where base, data and adapters are now, and changed settings in config.yaml."""
    inputs = folder.read_json_if_there(place / folder.INPUTS)
    assert inputs is not None
    inputs["base"]["path"], inputs["dataset"]["path"] = str(made.base.path), made.dataset.path
    for key, adapter in zip(ADAPTERS, (made.training, made.start), strict=True):
        if adapter is not None:
            inputs[key]["path"] = str(adapter.path)
    inputs["resumes"].append({"step": step, "at": time.strftime(WHEN, time.gmtime()), "changes": dict(changes)})
    write_json(place / folder.INPUTS, inputs)
    if changes:
        write_text(place / folder.CONFIG, to_yaml(replace(made.config, dry_run=False, resume=None)))
