"""Subgraphs of a workflow, expanded: the nodes of all levels in one, their links under numbers of their own.

A node whose type is the id of one of `definitions.subgraphs` stands for its nodes. Inside, links come from node -10, whose outputs are the
inputs of the outer node, and lead to node -20, whose inputs are its outputs. An inner widget that the outer node shows has its value there
(`widgets_values`, in the order of the inputs that have widgets) or stays where it is (`properties.proxyWidgets`). Older pages have group
nodes instead (infer.metadata.comfy.group_nodes). (ComfyUI_frontend, the workflow JSON of version 1; ids as ComfyUI writes them: 34:32.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from infer.metadata.comfy.graph import MOST_NODES

INPUT, OUTPUT = "-10", "-20"
DEEPEST = 20  # subgraphs in subgraphs
MUTED, BYPASSED = 2, 4  # of a node's mode

Origin = tuple[str, int]  # (node, output)


@dataclass(frozen=True)
class Value:
    """What an input has without a link."""

    value: Any


@dataclass
class Flat:
    """The nodes of all levels by id, the links by number, and the values that outer nodes give their inner ones."""

    nodes: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    links: dict[int, Origin] = field(default_factory=dict)
    given: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Definition:
    """A subgraph: its nodes and links, and the names of its inputs and outputs in their order."""

    nodes: Mapping[str, Mapping[str, Any]]
    links: Mapping[int, Origin]
    inputs: tuple[str, ...]
    outputs: Mapping[int, Origin]  # place of an output -> where it comes from inside
    shown: tuple[str, ...] = ()  # the inputs that have a widget inside
    in_one_row: bool = False  # the outer node has all widgets' values, one node's behind the other's


@dataclass
class _Level:
    """The nodes of the workflow, or those of a subgraph in the place of an outer node."""

    nodes: Mapping[str, Mapping[str, Any]]
    links: Mapping[int, Origin]
    prefix: str = ""
    outer: tuple[_Level, Mapping[str, Any], Definition] | None = None  # what it stands in, and for which node
    inner: dict[str, _Level] = field(default_factory=dict)  # by the outer node


def flattened(workflow: Mapping[str, Any], definitions: Mapping[str, Definition]) -> Flat:
    """The nodes of a workflow. What is nested too deep, or too much, stays as it is."""
    levels = [_Level(nodes_of(workflow.get("nodes")), links_of(workflow.get("links")))]
    count = len(levels[0].nodes)
    for level in levels:  # which grows meanwhile
        for name, node in level.nodes.items():
            definition = definitions.get(node["type"])
            if definition is None or node.get("mode") in (MUTED, BYPASSED) or level.prefix.count(":") >= DEEPEST:
                continue
            count += len(definition.nodes)
            if count > MOST_NODES:
                break
            nodes = with_values(node, definition) if definition.in_one_row else definition.nodes
            inner = _Level(nodes, definition.links, f"{level.prefix}{name}:", (level, node, definition))
            level.inner[name] = inner
            levels.append(inner)
    flat = Flat()
    for level in levels:
        for name, node in level.nodes.items():
            if name not in level.inner:
                _put(flat, level, name, node)
    return flat


def _put(flat: Flat, level: _Level, name: str, node: Mapping[str, Any]) -> None:
    """One node with its links under numbers of the flat graph."""
    given: dict[str, Any] = {}
    rows: list[Mapping[str, Any]] = []
    for one in slots_of(node):
        origin = _origin(level, one.get("link"))
        if isinstance(origin, Value):
            given[str(one.get("name"))] = origin.value
        elif origin is not None:
            flat.links[len(flat.links)] = origin
        rows.append({**one, "link": len(flat.links) - 1 if isinstance(origin, tuple) else None})
    flat.nodes[level.prefix + name] = {**node, "inputs": rows}
    flat.given[level.prefix + name] = given


def _origin(level: _Level, number: Any) -> Origin | Value | None:
    """What a link comes from in the flat graph, or the value that an outer node has in its place; None where the widget keeps its own."""
    link = level.links.get(number) if type(number) is int else None
    value: Value | None = None
    for _ in range(2 * DEEPEST * DEEPEST):
        if link is None:
            return value
        name, slot = link
        if name == INPUT and level.outer is not None:
            outer, node, definition = level.outer
            key = definition.inputs[slot] if 0 <= slot < len(definition.inputs) else None
            shown = shown_values(node, definition)
            value = Value(shown[key]) if key in shown else value
            numbers = [one.get("link") for one in slots_of(node) if one.get("name") == key]
            level, link = outer, outer.links.get(numbers[0]) if numbers and type(numbers[0]) is int else None
        elif name in level.inner:
            level = level.inner[name]
            link = level.outer[2].outputs.get(slot) if level.outer is not None else None
        else:
            return (level.prefix + name, slot) if name in level.nodes else value
    return None


def shown_values(node: Mapping[str, Any], definition: Definition) -> dict[str, Any]:
    """The values of the widgets that an outer node shows itself."""
    values = node.get("widgets_values")
    if isinstance(values, Mapping):
        return {str(name): value for name, value in values.items()}
    if not isinstance(values, list) or len(values) != len(definition.shown):
        return {}
    return {name: value for name, value in zip(definition.shown, values, strict=True) if value is not None}


def with_values(node: Mapping[str, Any], definition: Definition) -> Mapping[str, Mapping[str, Any]]:
    """The inner nodes with their widgets' values, where the outer node has as many as they have."""
    values = node.get("widgets_values")
    counts = {name: len(_rows(one.get("widgets_values"))) for name, one in definition.nodes.items()}
    if not isinstance(values, list) or len(values) != sum(counts.values()):
        return definition.nodes
    found, start = {}, 0
    for name, one in definition.nodes.items():
        found[name] = {**one, "widgets_values": values[start : start + counts[name]]} if counts[name] else one
        start += counts[name]
    return found


def subgraphs_of(workflow: Mapping[str, Any]) -> dict[str, Definition]:
    """The subgraphs of a workflow by id, those that hold others too: all stand in one list."""
    given = workflow.get("definitions")
    rows = given.get("subgraphs") if isinstance(given, Mapping) else None
    found: dict[str, Definition] = {}
    for one in rows if isinstance(rows, list) else ():
        if isinstance(one, Mapping) and isinstance(one.get("id"), str):
            found[one["id"]] = _definition(one)
    return found


def _definition(given: Mapping[str, Any]) -> Definition:
    nodes, links = nodes_of(given.get("nodes")), links_of(given.get("links"))
    inputs = tuple(str(one.get("name")) if isinstance(one, Mapping) else "" for one in _rows(given.get("inputs")))
    return Definition(
        nodes=nodes,
        links=links,
        inputs=inputs,
        outputs={place: links[number] for number, place in _to_output(given.get("links")) if number in links},
        shown=tuple(name for place, name in enumerate(inputs) if _has_widget(place, nodes, links)),
    )


def _has_widget(place: int, nodes: Mapping[str, Mapping[str, Any]], links: Mapping[int, Origin]) -> bool:
    """Whether an input of a subgraph leads to a widget."""
    for node in nodes.values():
        for one in slots_of(node):
            number = one.get("link")
            if type(number) is int and links.get(number) == (INPUT, place) and isinstance(one.get("widget"), Mapping):
                return True
    return False


def _to_output(links: Any) -> Iterator[tuple[int, int]]:
    """(number of a link, place of the output that it leads to)."""
    for one in _rows(links):
        if isinstance(one, list) and len(one) >= 5:
            number, target, slot = one[0], one[3], one[4]
        elif isinstance(one, Mapping):
            number, target, slot = one.get("id"), one.get("target_id"), one.get("target_slot")
        else:
            continue
        if str(target) == OUTPUT and type(number) is int and type(slot) is int:
            yield number, slot


def links_of(given: Any) -> dict[int, Origin]:
    """Number of a link -> (node, output): [number, node, output, to node, input, type], or an object."""
    found: dict[int, Origin] = {}
    for one in _rows(given):
        if isinstance(one, list) and len(one) >= 3:
            number, node, slot = one[:3]
        elif isinstance(one, Mapping):
            number, node, slot = one.get("id"), one.get("origin_id"), one.get("origin_slot")
        else:
            continue
        if type(number) is int and isinstance(node, int | str) and type(slot) is int:
            found[number] = (str(node), slot)
    return found


def slots_of(node: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The inputs of a node as the page lists them."""
    return [one for one in _rows(node.get("inputs")) if isinstance(one, Mapping)]


def nodes_of(given: Any) -> dict[str, Mapping[str, Any]]:
    """The nodes of a list by id."""
    return {
        str(one["id"]): one
        for one in _rows(given)[:MOST_NODES]
        if isinstance(one, Mapping) and isinstance(one.get("type"), str) and isinstance(one.get("id"), int | str)
    }


def _rows(given: Any) -> list[Any]:
    return given if isinstance(given, list) else []
