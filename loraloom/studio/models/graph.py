"""The lineage of a model as the nodes and lines of a graph: ancestors in levels above it, what was made from it below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from registry.index.lineage import Lineage, Node

CHILDREN = 40  # that are drawn; the rest is a number


@dataclass(frozen=True)
class GraphNode:
    """One model; `level` is 0 for the one that is asked for, negative above. Without an id it is not registered."""

    key: str
    id: str | None
    name: str
    kind: str | None
    family: str | None
    licence: str | None
    level: int


@dataclass(frozen=True)
class Line:
    """From a model to what was made from it; `role` is what it was for that."""

    above: str
    below: str
    role: str


@dataclass(frozen=True, kw_only=True)
class Graph:
    """The nodes, each once, and their lines. `more` children are not among them."""

    nodes: Sequence[GraphNode]
    lines: Sequence[Line]
    more: int
    inherited: str | None  # the licence that follows from its sources
    unknown: Sequence[str]  # sources whose licence is not known

    def to_json(self) -> dict[str, Any]:
        """Plain values for a page."""
        return asdict(self)


def graph_of(lineage: Lineage) -> Graph:
    """The graph of a lineage. A model that is an ancestor in several ways is drawn once, on its highest level."""
    nodes: dict[str, GraphNode] = {}
    lines: dict[Line, None] = {}
    _add(lineage.root, 0, nodes, lines)
    root = _key(lineage.root)
    for child in lineage.children[:CHILDREN]:
        nodes.setdefault(child.id, GraphNode(child.id, child.id, child.name, child.kind, child.family, None, 1))
        lines[Line(root, child.id, child.role)] = None
    terms = lineage.inherited()
    more = max(0, len(lineage.children) - CHILDREN)
    return Graph(nodes=list(nodes.values()), lines=list(lines), more=more, inherited=terms.licence, unknown=list(terms.unknown))


def _key(node: Node) -> str:
    return node.id or f"not registered: {node.name} {node.sha256 or ''}"


def _add(node: Node, level: int, nodes: dict[str, GraphNode], lines: dict[Line, None]) -> None:
    key = _key(node)
    if key not in nodes or nodes[key].level > level:
        nodes[key] = GraphNode(key, node.id, node.name, node.kind, node.family, node.licence, level)
    for parent in node.parents:
        lines[Line(_key(parent), key, str(parent.role))] = None
        _add(parent, level - 1, nodes, lines)
