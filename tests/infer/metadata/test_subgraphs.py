"""Subgraphs and group nodes of a workflow are read as the nodes that they stand for."""

from __future__ import annotations

import copy
import json
from time import process_time
from typing import Any

import pytest

from infer.metadata.comfy.read import read
from infer.metadata.comfy.ui import ui_graph
from infer.metadata.result import ImageMetadata, ModelName, SecondPass

SAMPLER = {"model": 1, "positive": 2, "negative": 3, "latent_image": None, "SEED": 5}
DRAW, PROMPT = "8a3e2c10-0000-4000-8000-000000000001", "8a3e2c10-0000-4000-8000-000000000002"


def found(workflow: Any) -> ImageMetadata:
    one = read(json.loads(json.dumps(workflow)), source="workflow")
    assert one is not None
    return one


def node(number: int, kind: str, inputs: dict[str, int | None], values: list[Any] | None = None, **more: Any) -> dict[str, Any]:
    """A node of a page: its inputs with the numbers of their links; one in capitals has a widget."""
    slots = [
        {"name": name.lower(), "type": "*", "link": link, **({"widget": {"name": name.lower()}} if name.isupper() else {})}
        for name, link in inputs.items()
    ]
    return {"id": number, "type": kind, "mode": 0, "inputs": slots, "widgets_values": values or [], **more}


def link(number: int, source: int, slot: int, target: int, place: int) -> dict[str, Any]:
    keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot")
    return dict(zip(keys, (number, source, slot, target, place), strict=True)) | {"type": "*"}


def subgraph(name: str, inputs: list[str], nodes: list[dict[str, Any]], links: list[dict[str, Any]]) -> dict[str, Any]:
    names = [{"name": one, "type": "*"} for one in inputs]
    return {"id": name, "inputs": names, "outputs": [{"name": "out", "type": "*"}], "nodes": nodes, "links": links}


def page() -> dict[str, Any]:
    """A sampler, its latents and its decoder in a subgraph, whose prompts are subgraphs inside it."""
    draw = subgraph(
        DRAW,
        ["model", "clip", "text", "seed", "vae"],
        [
            node(1, "KSampler", SAMPLER | {"latent_image": 4}, [1, "fixed", 9, 6.5, "euler", "normal", 1]),
            node(2, "EmptyLatentImage", {}, [512, 768, 1]),
            node(3, PROMPT, {"clip": 6, "TEXT": 7}),
            node(4, PROMPT, {"clip": 8, "TEXT": None}, ["blurry"]),
            node(5, "VAEDecode", {"samples": 9, "vae": 10}),
        ],
        [
            link(1, -10, 0, 1, 0), link(2, 3, 0, 1, 1), link(3, 4, 0, 1, 2), link(4, 2, 0, 1, 3), link(5, -10, 3, 1, 4),
            link(6, -10, 1, 3, 0), link(7, -10, 2, 3, 1), link(8, -10, 1, 4, 0), link(9, 1, 0, 5, 0), link(10, -10, 4, 5, 1),
            link(11, 5, 0, -20, 0),
        ],
    )  # fmt: skip
    prompt = subgraph(
        PROMPT,
        ["clip", "text"],
        [node(1, "CLIPTextEncode", {"clip": 1, "TEXT": 2}, ["of the definition"])],
        [link(1, -10, 0, 1, 0), link(2, -10, 1, 1, 1), link(3, 1, 0, -20, 0)],
    )
    return {
        "nodes": [
            node(9, "SaveImage", {"images": 3}, ["x"]),  # before what it shows
            node(20, DRAW, {"model": 1, "clip": 2, "TEXT": None, "SEED": 4, "vae": 5}, ["a cat", 77]),
            node(4, "CheckpointLoaderSimple", {}, ["sd15.safetensors"]),
            node(21, "PrimitiveNode", {}, [18446744073709551615, "fixed"]),
        ],
        "links": [[1, 4, 0, 20, 0, "M"], [2, 4, 1, 20, 1, "C"], [3, 20, 0, 9, 0, "I"], [4, 21, 0, 20, 3, "N"], [5, 4, 2, 20, 4, "V"]],
        "definitions": {"subgraphs": [draw, prompt]},
    }  # fmt: skip


def test_a_subgraph_with_subgraphs_in_it() -> None:
    one = found(page())
    assert (one.prompt, one.negative, one.seed, one.steps) == ("a cat", "blurry", 2**64 - 1, 9)
    assert (one.sampler, one.schedule, one.guidance, one.width, one.height) == ("euler", "normal", 6.5, 512, 768)
    assert one.model == ModelName(name="sd15.safetensors") and one.unread == ()
    graph = ui_graph(page())
    assert graph is not None and {"20:1", "20:3:1", "20:4:1"} <= graph.nodes.keys() and "20" not in graph.nodes


def test_a_value_that_the_outer_node_does_not_have_is_that_of_the_inner_one() -> None:
    given = page()
    given["nodes"][1] |= {"widgets_values": [], "properties": {"proxyWidgets": [["3", "text"], ["1", "seed"]]}}
    given["nodes"][1]["inputs"][3]["link"] = None
    one = found(given)
    assert (one.prompt, one.negative, one.seed) == ("of the definition", "blurry", 1)


def test_one_subgraph_at_two_places_has_its_own_values_at_each() -> None:
    given = page()
    one = found(given)
    assert one.prompt != one.negative
    given["definitions"]["subgraphs"][0]["nodes"][3]["widgets_values"] = ["dark"]
    assert found(given).negative == "dark" and found(given).prompt == "a cat"


def test_a_subgraph_that_is_bypassed_hands_its_input_on() -> None:
    given = page()
    lora = "8a3e2c10-0000-4000-8000-000000000003"
    inside = [node(1, "LoraLoaderModelOnly", {"model": 1}, ["ink.safetensors", 0.5])]
    given["definitions"]["subgraphs"].append(subgraph(lora, ["model"], inside, [link(1, -10, 0, 1, 0), link(2, 1, 0, -20, 0)]))
    between = node(30, lora, {"model": 1}, outputs=[{"name": "out", "type": "*"}])
    given["nodes"].append(between)
    given["links"] += [[6, 30, 0, 20, 0, "MODEL"]]
    given["nodes"][1]["inputs"][0]["link"] = 6
    assert [lora.name for lora in found(given).loras] == ["ink.safetensors"]
    between["mode"] = 4
    assert found(given).loras == () and found(given).model == ModelName(name="sd15.safetensors")


def test_a_second_pass_in_a_subgraph_and_a_switch() -> None:
    given = page()
    draw = given["definitions"]["subgraphs"][0]
    draw["nodes"] += [
        node(6, "LatentUpscaleBy", {"samples": 20}, ["nearest-exact", 1.5]),
        node(7, "KSampler", SAMPLER | {"latent_image": 21}, [1, "fixed", 5, 6.5, "euler", "normal", 0.4]),
        node(8, "ComfySwitchNode", {"on_false": 22, "on_true": 23}, [True], widgets_values_named={"switch": True}),
    ]  # fmt: skip
    draw["links"] += [link(20, 1, 0, 6, 0), link(21, 6, 0, 7, 3), link(22, 1, 0, 8, 0), link(23, 7, 0, 8, 1), link(24, 8, 0, 5, 0)]
    draw["nodes"][4]["inputs"][0]["link"] = 24
    assert found(given).second == SecondPass(scale=1.5, upscaler="latent_nearest_exact", steps=5, strength=0.4)
    draw["nodes"][-1]["widgets_values_named"]["switch"] = False
    assert found(given).second is None and found(given).steps == 9


def test_a_group_node_of_an_older_page() -> None:
    inside = [
        node(0, "CheckpointLoaderSimple", {}, ["of the definition"], outputs=[{}, {}, {}]),
        node(0, "CLIPTextEncode", {"clip": 1}, ["x"], outputs=[{}], title="Prompt"),
        node(0, "CLIPTextEncode", {"clip": 1}, ["y"], outputs=[{}], title="Negative"),
        node(
            0, "KSampler", {"model": 1, "positive": 1, "negative": 1, "latent_image": None}, [1, "fixed", 2, 3, "e", "n", 1], outputs=[{}]
        ),
        node(0, "VAEDecode", {"samples": 1, "vae": None}, outputs=[{}]),
    ]
    for each in inside:
        del each["id"]
    links = [[0, 0, 3, 0], [0, 1, 1, 0], [0, 1, 2, 0], [1, 0, 3, 1], [2, 0, 3, 2], [3, 0, 4, 0]]
    group = {"nodes": inside, "links": links, "external": [[0, 2, "VAE"]]}
    values = ["tiny.safetensors", "a cat", "blurry", 5, "fixed", 4, 7, "euler_ancestral", "karras", 1]
    for kind in ("workflow/drawing", "workflow>drawing"):
        given: dict[str, Any] = {
            "nodes": [
                node(1, kind, {"latent_image": 1, "vae": 2}, values),
                node(2, "EmptyLatentImage", {}, [64, 96, 1]),
                node(3, "VAELoader", {}, ["soft.safetensors"]),
                node(4, "SaveImage", {"images": 3}),
            ],
            "links": [[1, 2, 0, 1, 0, "*"], [2, 3, 0, 1, 1, "*"], [3, 1, 1, 4, 0, "*"]],  # outputs: the VAE, and the image
            "extra": {"groupNodes": {"drawing": group}},
        }
        one = found(given)
        assert (one.prompt, one.negative, one.seed, one.steps, one.sampler) == ("a cat", "blurry", 5, 4, "euler_ancestral")
        assert (one.width, one.height, one.model) == (64, 96, ModelName(name="tiny.safetensors"))
        assert one.vae == ModelName(name="soft.safetensors") and one.unread == ()
        given["nodes"][0]["widgets_values"] = values[:-1]
        assert found(given).prompt == "x"  # not as many as the nodes have: theirs


def test_subgraphs_of_themselves_and_of_many_others_end() -> None:
    given = page()
    given["definitions"]["subgraphs"][1]["nodes"].append(node(2, DRAW, {"model": None}))
    began = process_time()
    assert ui_graph(given) is not None and read(given, source="workflow") is not None
    many = page()
    for each in many["definitions"]["subgraphs"]:
        each["nodes"] += [node(50 + number, DRAW if each["id"] == PROMPT else PROMPT, {"clip": None}) for number in range(40)]
    graph = ui_graph(many)
    assert graph is not None and len(graph.nodes) <= 5_000 and process_time() - began < 20


@pytest.mark.parametrize(
    "broken",
    [
        {"definitions": 3},
        {"definitions": {"subgraphs": [3, {"id": DRAW}]}},
        {"definitions": {"subgraphs": [{"id": DRAW, "nodes": [{}], "links": [[1]]}]}},
        {"extra": {"groupNodes": {"x": {"nodes": [3, {"type": "y"}], "links": [[1], "x"], "external": 4}}}},
        {"links": [[1, -10, 0, 20, 0]]},
    ],
)
def test_what_is_garbled_is_read_as_far_as_it_goes(broken: dict[str, Any]) -> None:
    given = copy.deepcopy(page()) | broken
    assert ui_graph(given) is not None
    read(given, source="workflow")
