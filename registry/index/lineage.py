"""Lineage: a tree of parents to the roots, with a named hole for each that is not registered."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import PurePath
from typing import Any

from registry.detect.licences import Terms, inherited
from registry.printable import as_lines
from registry.record import Record

Resolve = Callable[[Mapping[str, Any]], Record | None]


@dataclass(frozen=True)
class Node:
    """One record of a lineage, or a hole. `role` is its role for the child; None for the first."""

    role: str | None
    name: str
    kind: str | None
    family: str | None
    sha256: str | None
    id: str | None  # None: a hole
    licence: str | None = None
    parents: tuple[Node, ...] = ()

    @property
    def missing(self) -> bool:
        return self.id is None

    def to_json(self) -> dict[str, Any]:
        """Plain values with stable keys."""
        return {
            "role": self.role,
            "name": self.name,
            "kind": self.kind,
            "family": self.family,
            "sha256": self.sha256,
            "id": self.id,
            "licence": self.licence,
            "missing": self.missing,
            "parents": [parent.to_json() for parent in self.parents],
        }


@dataclass(frozen=True)
class Child:
    """A record that names this one among its parents; `role` is what this one is for it."""

    role: str
    name: str
    kind: str
    family: str | None
    id: str


@dataclass(frozen=True)
class Lineage:
    """The ancestors of a record, and the models derived from it."""

    root: Node
    children: tuple[Child, ...]

    @property
    def derived(self) -> tuple[str, ...]:
        """Names of the models derived from it."""
        return tuple(sorted({child.name for child in self.children}))

    def to_json(self) -> dict[str, Any]:
        """Plain values with stable keys."""
        terms = self.inherited()
        return {
            **self.root.to_json(),
            "inherited_licence": terms.licence,
            "licence_unknown": list(terms.unknown),
            "licences": dict(terms.sources),
            "derived": list(self.derived),
            "children": [asdict(child) for child in self.children],
        }

    def inherited(self) -> Terms:
        """The licence that follows from those of all its sources; a run is no source."""
        return inherited(_sources(self.root))

    def to_text(self) -> str:
        """An indented tree, as text."""
        lines = list(_text(self.root, "", ""))
        terms = self.inherited()
        if terms.licence:
            lines.append(f"licence that follows from its sources: {terms.licence}")
        if terms.unknown:
            lines.append(f"licence not known: {', '.join(terms.unknown)}")
        if self.derived:
            lines.append(f"made from it: {', '.join(self.derived)}")
        return as_lines(lines)

    def to_dot(self) -> str:
        """The graph in Graphviz's language; holes are dashed."""
        nodes: dict[str, str] = {}
        edges: dict[str, None] = {}
        _dot(self.root, nodes, edges)
        return as_lines(["digraph lineage {", "  rankdir=BT;", "  node [shape=box];", *nodes.values(), *edges, "}"])


def trace(record: Record, resolve: Resolve, having: Sequence[Record], called: Callable[[str], Sequence[Record]]) -> Lineage:
    """The Lineage of a record; `resolve` finds the record of a parent entry. `having` are records that may have it as a parent.

    Where a parent is known by a title or file name alone, `called` gives the records that may be called so.
    """
    titled = cache(lambda name: _by_title(called(name)).get(name, []))

    def find(parent: Mapping[str, Any]) -> Record | None:
        found = resolve(parent)
        if found is not None or parent.get("sha256") or not parent.get("ref"):
            return found
        several = titled(_bare(str(parent["ref"])))
        return several[0] if len(several) == 1 else None

    mine = words_of(record)
    children = []
    for other in having:
        meant = (one for one in other.parents if other.id != record.id and _may_mean(one, mine) and _means(one, record, find))
        if (parent := next(meant, None)) is not None:
            children.append(Child(str(parent.get("role") or "source"), other.name, other.kind, other.family, other.id))
    return Lineage(_node(record, None, find, frozenset()), tuple(sorted(children, key=lambda one: (one.name, one.id))))


def _bare(name: str) -> str:
    """A title or file name without the suffix, as other tools write it into derived models."""
    return PurePath(name).stem if PurePath(name).suffix in ENDINGS else name


ENDINGS = (".safetensors", ".sft", ".ckpt", ".pt", ".gguf")


def _by_title(everything: Sequence[Record]) -> dict[str, list[Record]]:
    """Models by title, file name and name, as ModelSpec's `merged_from` and sd-scripts' `ss_sd_model_name` use them."""
    found: dict[str, list[Record]] = {}
    for record in everything:
        if record.kind in ("dataset", "run"):
            continue
        for title in {record.name, record.metadata.get("modelspec.title"), _bare(PurePath(record.path or "").name)}:
            if title:
                found.setdefault(str(title), []).append(record)
    return found


def words_of(record: Record) -> set[str]:
    """Everything that a parent entry may name a record by: hashes, names, paths."""
    hashes = (record.hashes.sha256, record.hashes.tensors_sha256, record.hashes.content_sha256)
    files = [PurePath(entry.path) for entry in record.files[:1]] + [PurePath(record.path or "")]
    names = [record.name, record.id, record.path, record.metadata.get("modelspec.title"), *record.aliases]
    names += [f"{record.name}@{alias}" for alias in record.aliases] + [word for file in files for word in (file.name, file.stem)]
    return {str(word) for word in (*hashes, *names) if word}


def _may_mean(parent: Mapping[str, Any], words: set[str]) -> bool:
    """A cheap test before a parent is resolved: each resolution queries the index."""
    ref = str(parent.get("ref") or "")
    return parent.get("sha256") in words or ref in words or _bare(ref) in words or PurePath(ref).name in words


def _means(parent: Mapping[str, Any], record: Record, find: Resolve) -> bool:
    if parent.get("sha256") and parent["sha256"] == record.hashes.sha256:
        return True
    found = find(parent)
    return found is not None and found.id == record.id


def _node(record: Record, role: str | None, resolve: Resolve, above: frozenset[str]) -> Node:
    parents = []
    for parent in record.parents:
        found = resolve(parent)
        parent_role = str(parent.get("role") or "source")
        if found is None or found.id in above or found.id == record.id:
            digest = parent.get("sha256")
            name = parent.get("ref") or (f"sha256:{digest[:12]}" if digest else "unnamed")
            parents.append(Node(parent_role, str(name), None, None, digest, None))
        else:
            parents.append(_node(found, parent_role, resolve, above | {record.id}))
    return Node(role, record.name, record.kind, record.family, record.hashes.sha256, record.id, record.licence, tuple(parents))


def _sources(node: Node) -> dict[tuple[str, str | None], None]:
    """(name, licence) of a node's ancestors, up to the nearest with a licence of its own on each branch."""
    found: dict[tuple[str, str | None], None] = {}
    for parent in node.parents:
        if parent.licence or (parent.kind != "run" and parent.role != "run" and not parent.parents):
            found[parent.name, parent.licence] = None
        else:
            found |= _sources(parent)
    return found


def _text(node: Node, lead: str, indent: str) -> Iterator[str]:
    what = "not registered" if node.missing else " ".join(word for word in (node.kind, node.family) if word)
    role = f"{node.role}: " if node.role else ""
    digest = f"  sha256:{node.sha256[:12]}" if node.sha256 else ""
    yield f"{lead}{role}{node.name} ({what}){digest}"
    for number, parent in enumerate(node.parents):
        last = number == len(node.parents) - 1
        yield from _text(parent, indent + ("└── " if last else "├── "), indent + ("    " if last else "│   "))


def _dot(node: Node, nodes: dict[str, str], edges: dict[str, None]) -> str:
    key = json.dumps(node.id or f"hole {node.name}")
    label = json.dumps(f"{node.name}\n{node.kind or 'not registered'}", ensure_ascii=False)
    nodes[key] = f"  {key} [label={label}{', style=dashed' if node.missing else ''}];"
    for parent in node.parents:
        edges[f"  {_dot(parent, nodes, edges)} -> {key} [label={json.dumps(parent.role)}];"] = None
    return key


__all__ = ["Child", "Lineage", "Node", "trace", "words_of"]
