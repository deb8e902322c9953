"""Group nodes of older pages as subgraphs: `workflow/NAME` or `workflow>NAME`, whose nodes are in `extra.groupNodes[NAME]`.

Their nodes have no ids, and links are [from node, output, to node, input, ...] by their places. The outer node's inputs are those inner
ones that have no link inside, in the order of the nodes; one whose name is taken has the title or type of its node before it. Its outputs
are the inner ones without a link inside, and those in `external`. (ComfyUI_frontend 1.2, src/extensions/core/groupNode.ts.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from infer.metadata.comfy.graph import MOST_NODES
from infer.metadata.comfy.subgraphs import INPUT, Definition, Origin, slots_of

PREFIXES = ("workflow/", "workflow>")


def group_nodes_of(workflow: Mapping[str, Any]) -> dict[str, Definition]:
    """The group nodes of a workflow by the type of the nodes that stand for them."""
    extra = workflow.get("extra")
    given = extra.get("groupNodes") if isinstance(extra, Mapping) else None
    found: dict[str, Definition] = {}
    for name, one in given.items() if isinstance(given, Mapping) else ():
        if isinstance(one, Mapping) and isinstance(one.get("nodes"), list):
            found |= dict.fromkeys((f"{prefix}{name}" for prefix in PREFIXES), _definition(one))
    return found


def _definition(given: Mapping[str, Any]) -> Definition:
    nodes = [one for one in given["nodes"][:MOST_NODES] if isinstance(one, Mapping) and isinstance(one.get("type"), str)]
    inside = dict(_inside(given.get("links")))
    external = {(one[0], one[1]) for one in _pairs(given.get("external"), 2)}
    used = set(inside.values())
    links: dict[int, Origin] = {}
    inputs: list[str] = []
    placed: dict[str, Mapping[str, Any]] = {}
    for place, node in enumerate(nodes):
        rows = []
        for slot, one in enumerate(slots_of(node)):
            number = len(links)
            if (place, slot) in inside:
                source, output = inside[place, slot]
                links[number] = (str(source), output)
            else:
                links[number] = (INPUT, len(inputs))
                inputs.append(_free_name(node, str(one.get("name")), inputs))
            rows.append({**one, "link": number})
        placed[str(place)] = {**node, "inputs": rows}
    outputs = [
        (str(place), slot)
        for place, node in enumerate(nodes)
        for slot in range(len(node["outputs"]) if isinstance(node.get("outputs"), list) else 0)
        if (place, slot) not in used or (place, slot) in external
    ]
    return Definition(nodes=placed, links=links, inputs=tuple(inputs), outputs=dict(enumerate(outputs)), in_one_row=True)


def _free_name(node: Mapping[str, Any], name: str, taken: list[str]) -> str:
    if name not in taken:
        return name
    longer = f"{node.get('title') or node['type']} {name}"
    if longer not in taken:
        return longer
    return f"{node.get('title') or node['type']} {taken.count(longer) + 1} {name}"


def _inside(links: Any) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """((to node, input), (from node, output)) of each link inside, by the nodes' places."""
    for source, output, target, slot in _pairs(links, 4):
        yield (target, slot), (source, output)


def _pairs(rows: Any, count: int) -> Iterator[tuple[int, ...]]:
    for one in rows if isinstance(rows, list) else ():
        if isinstance(one, list) and len(one) >= count and all(type(value) is int for value in one[:count]):
            yield tuple(one[:count])
