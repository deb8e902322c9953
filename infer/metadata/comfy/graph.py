"""A graph of ComfyUI: nodes with values and links, followed within bounds. Graphs of strangers may be cyclic, huge or of other types."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

MOST_NODES = 5_000
DEEPEST = 200  # links that are followed one behind the other
LONGEST = 100_000  # characters of a text that nodes join
VALUES = ("value", "string", "text", "int", "float", "number", "seed", "Value", "STRING", "INT", "FLOAT", "noise_seed")
BETWEEN = ("delimiter", "separator", "clean_whitespace")
SWITCH = "ComfySwitchNode"  # its `switch` says which of `on_true` and `on_false` it hands on


@dataclass(frozen=True)
class Link:
    """What an input takes: an output of a node."""

    node: str
    slot: int


@dataclass(frozen=True)
class Node:
    """One node: its class, and its inputs, each a value or a Link."""

    id: str
    kind: str
    inputs: Mapping[str, Any] = field(repr=False)

    @property
    def label(self) -> str:
        return f"{self.kind} {self.id}"

    def links(self) -> Iterator[tuple[str, Link]]:
        """The inputs that are linked, by name."""
        return ((name, one) for name, one in self.inputs.items() if isinstance(one, Link))

    def values(self) -> dict[str, Any]:
        """The inputs that are values, by name."""
        return {name: one for name, one in self.inputs.items() if not isinstance(one, Link)}


@dataclass(frozen=True)
class Graph:
    """The nodes by id."""

    nodes: Mapping[str, Node]

    def source(self, node: Node, name: str) -> Node | None:
        """The node that an input comes from, seen through reroutes; None where it is not linked, or to nothing."""
        link = node.inputs.get(name)
        for _ in range(DEEPEST):
            if not isinstance(link, Link):
                return None
            found = self.nodes.get(link.node)
            if found is not None and found.kind == SWITCH and isinstance(found.inputs.get(self.switched(found)), Link):
                link = found.inputs[self.switched(found)]
                continue
            if found is None or not found.kind.startswith("Reroute"):
                return found
            link = next((one for _, one in found.links()), None)
        return None

    def switched(self, node: Node) -> str:
        """The input that a switch hands on: where its `switch` cannot be read, the one that is not on."""
        given = node.inputs.get("switch")
        for _ in range(DEEPEST):
            if not isinstance(given, Link):
                break
            found = self.nodes.get(given.node)
            given = next((found.inputs[name] for name in VALUES if name in found.inputs), None) if found is not None else None
        return "on_true" if given is True else "on_false"

    def value(self, node: Node, name: str) -> Any:
        """The value of an input, also of one that is linked to a node that holds or joins values; None where there is none."""
        return self._value(node, name, {})

    def _value(self, node: Node, name: str, known: dict[tuple[str, str], Any]) -> Any:
        """`known` has what was asked before, of an input that is being read None: a cycle has no value, and no input is read twice."""
        given = node.inputs.get(name)
        if not isinstance(given, Link):
            return given
        if (node.id, name) in known or len(known) > DEEPEST:
            return known.get((node.id, name))
        known[node.id, name] = None
        found = self.source(node, name)
        if found is not None:
            known[node.id, name] = self._held(found, known)
        return known[node.id, name]

    def _held(self, node: Node, known: dict[tuple[str, str], Any]) -> Any:
        """The value that a node holds or joins."""
        if any(word in node.kind.lower() for word in ("concat", "join")):
            between = next((node.inputs[name] for name in BETWEEN[:2] if isinstance(node.inputs.get(name), str)), "")
            values = [self._value(node, name, known) for name in node.inputs if name not in BETWEEN]
            whole = between.join(text for text in values if isinstance(text, str) and text)
            return whole if 0 < len(whole) <= LONGEST else None
        if node.kind == SWITCH:
            return self._value(node, self.switched(node), known)
        names = [one for one in VALUES if one in node.inputs] or [*node.inputs][:1]
        return self._value(node, names[0], known) if len(names) == 1 else None


def api_graph(value: Any) -> Graph | None:
    """The graph of an API prompt, {id: {class_type, inputs}}; None of anything else."""
    if not isinstance(value, Mapping) or len(value) > MOST_NODES:
        return None
    nodes: dict[str, Node] = {}
    for name, one in value.items():
        if not isinstance(one, Mapping) or not isinstance(one.get("class_type"), str):
            continue
        inputs = one.get("inputs")
        kept = {str(key): _input(given) for key, given in inputs.items()} if isinstance(inputs, Mapping) else {}
        nodes[str(name)] = Node(str(name), one["class_type"], kept)
    return Graph(nodes) if nodes else None


def _input(value: Any) -> Any:
    if isinstance(value, list) and len(value) == 2 and isinstance(value[0], str | int) and type(value[1]) is int:
        return Link(str(value[0]), value[1])
    return value
