"""A finished run in the registry: data set, run and adapter with their lineage."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.errors import Ambiguous, NotFound, Refused
from registry.files.locks import held
from registry.record import Record
from train.config import to_plain
from train.data.dataset import triggers_of
from train.loop.prepare import Work
from train.output.embeddings import Embedding
from train.output.header import terms_of
from train.output.inputs import ADAPTERS
from train.plan.defaults import safe_name
from train.plan.plan import Plan

if TYPE_CHECKING:
    from registry.store import Store

log = logging.getLogger(__name__)


def register(work: Work, path: Path | None, embeddings: Sequence[Embedding], store: Store) -> tuple[str | None, list[dict[str, Any]]]:
    """Register dataset, run, adapter and embeddings with their lineage; gives the adapter's registered name and the embeddings' rows.

    `path` None: the run has no adapter.
    """
    plan, name = work.plan, str(work.plan.config.name)
    config = to_plain(plan.config)
    base = {"role": "base", "ref": plan.base.name, "sha256": work.inputs["base"]["sha256"]}
    used = [work.inputs[key] for key in ADAPTERS if key in work.inputs]
    trained_with = [{"role": "adapter", "ref": each["name"], "sha256": each["sha256"]} for each in used]
    made_of = [base] if plan.drawn else [base, {"role": "dataset", "ref": _dataset_name(plan, store), "sha256": plan.dataset.sha256}]
    with held(store.home / "registering"):  # run and adapter of a name belong together, also when two trainings of it end at once
        before = _named(store, name)
        store.add_run(work.folder, name=name, parents=[*made_of, *trained_with], recipe=config)
        common: dict[str, Any] = {
            "licence": terms_of(plan).licence,
            "family": plan.base.family.name,
            "parents": [*made_of, *trained_with, {"role": "run", "ref": str(work.folder), "sha256": None}],
            "recipe": config,
        }
        rows = [_embedding(one, name, common, store) for one in embeddings]
        if path is None:
            return None, rows
        record = store.add(path, name=name, kind="adapter", triggers=triggers_of(plan.train, plan.config.data), **common)
        if before is not None and before.id != record.id:
            work.out(f"the name {name} was {before.path}'s until now: that adapter is {store.find(before.id, fresh=False).name}")
    log.info("registered %s, sha256 %s", record.name, record.hashes.sha256)
    return record.name, rows


def _embedding(one: Embedding, run: str, common: Mapping[str, Any], store: Store) -> dict[str, Any]:
    """Register an embedding; the row of result.json."""
    record = store.add(one.path, name=f"{run}-{one.token.file_name}", kind="embedding", triggers=(one.token.token,), **common)
    return {"name": record.name, "token": one.token.token, "vectors": one.token.vectors, "file": str(one.path)}


def _named(store: Store, name: str) -> Record | None:
    """The adapter that has the name so far."""
    try:
        return store.find(name, kind="adapter", fresh=False)
    except (NotFound, Ambiguous, Refused):
        return None


def _dataset_name(plan: Plan, store: Store) -> str:
    """The set's name in the index; a set that is not on this disk is only named."""
    place = Path(plan.dataset.path)
    if not place.exists():
        return plan.dataset.path
    held_out = sum(1 for sample in plan.heldout if sample not in plan.dataset.samples)
    metadata = {"pictures": len(plan.dataset.samples), "heldout_pictures": held_out}
    return store.add_dataset(place, name=safe_name(place.stem), sha256=plan.dataset.sha256, metadata=metadata).name
