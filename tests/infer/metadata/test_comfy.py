"""ComfyUI's graphs, followed from the image back to the sampler, its model, its prompts and its latents."""

import json
from typing import Any

import pytest

from infer.metadata.comfy.read import read
from infer.metadata.result import ControlName, ImageMetadata, LoraName, ModelName, SecondPass
from tests.infer.metadata.images import GRAPH, flow_graph, graph


def found(nodes: Any, source: str = "prompt") -> ImageMetadata:
    one = read(json.loads(json.dumps(nodes)), source=source)
    assert one is not None
    return one


def unread(one: ImageMetadata) -> dict[str, str]:
    return {each.name: each.value for each in one.unread}


def test_every_setting_of_a_graph() -> None:
    one = found(GRAPH)
    assert (one.prompt, one.negative, one.dialect) == ("a cat, bad sitting", "blurry", "comfy")
    assert (one.seed, one.steps, one.sampler, one.schedule, one.guidance) == (77, 20, "dpmpp_2m", "karras", 8.0)
    assert (one.width, one.height, one.clip_skip, one.strength, one.noise) == (512, 640, 2, None, "CPU")
    assert one.model == ModelName(name="SD\\sd15.safetensors") and one.vae == ModelName(name="vae-ft.safetensors")
    assert one.loras == (
        LoraName(name="ink.safetensors", weight=0.7, text_weight=0.5),
        LoraName(name="hat.safetensors", weight=0.4, text_weight=0.0),
    )
    assert one.embeddings == (ModelName(name="bad"),) and one.unread == () and one.controls == () and one.hires == {}


def test_a_custom_sampler_of_a_flow_model() -> None:
    nodes = flow_graph()
    one = found(nodes)
    assert (one.seed, one.steps, one.sampler, one.schedule) == (5, 4, "euler", "simple")
    assert (one.guidance, one.distilled, one.model) == (1.0, 3.5, ModelName(name="flux1-dev.safetensors"))
    assert unread(one) == {"UNETLoader 35 weight_dtype": "fp8_e4m3fn", "text encoder": "clip_l.safetensors"}
    assert {each.value for each in one.unread} >= {"t5.safetensors", "clip_l.safetensors"}


def two_samplers(*between: dict[str, Any], **changes: Any) -> ImageMetadata:
    """GRAPH with a second sampler behind these nodes, each behind the one before."""
    nodes = graph(n8={"samples": ["40", 0]})
    source = "3"
    for number, node in enumerate(between, 41):
        inputs = {name: [source, 0] if value == "FIRST" else value for name, value in node["inputs"].items()}
        nodes[str(number)], source = {**node, "inputs": inputs}, str(number)
    nodes["40"] = {
        "class_type": "KSampler",
        "inputs": {**GRAPH["3"]["inputs"], "denoise": 0.5, "steps": 8, "latent_image": [source, 0]} | changes,
    }
    return found(nodes)


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def test_a_second_pass_over_enlarged_latents() -> None:
    one = two_samplers(node("LatentUpscaleBy", upscale_method="nearest-exact", scale_by=1.5, samples="FIRST"))
    assert (one.steps, one.strength, one.width, one.hires, one.unread) == (20, None, 512, {}, ())
    assert one.second == SecondPass(scale=1.5, upscaler="latent_nearest_exact", steps=8, strength=0.5)
    upscale = node("LatentUpscale", upscale_method="bilinear", width=1024, height=0, crop="disabled", samples="FIRST")
    one = two_samplers(upscale, steps=20, seed=9, cfg=5.0, scheduler="normal")
    own: dict[str, Any] = {"seed": 9, "guidance": 5.0, "sampler": "dpmpp_2m", "schedule": "normal", "strength": 0.5}
    assert one.second == SecondPass(width=1024, height=0, upscaler="latent", **own)
    one = two_samplers(node("LatentUpscaleBy", upscale_method="bicubic", scale_by=1.3, samples="FIRST"))
    assert one.second is not None and (one.second.width, one.second.height) == (664, 832)  # ComfyUI rounds 83.2 and 104 cells


def test_a_second_pass_over_an_enlarged_image() -> None:
    decode, encode = node("VAEDecode", samples="FIRST", vae=["4", 2]), node("VAEEncode", pixels="FIRST", vae=["4", 2])
    one = two_samplers(decode, node("ImageScaleBy", upscale_method="lanczos", scale_by=2.0, image="FIRST"), encode)
    assert one.second == SecondPass(scale=2.0, upscaler="lanczos", steps=8, strength=0.5) and one.unread == ()
    model = node("ImageUpscaleWithModel", upscale_model=["60", 0], image="FIRST")
    one = two_samplers(decode, model, node("ImageScaleBy", upscale_method="lanczos", scale_by=0.5, image="FIRST"), encode)
    assert one.second is None and list(one.hires) == ["KSampler 40"] and "ImageUpscaleWithModel 42" in unread(one)


def test_what_a_second_pass_does_otherwise_is_reported() -> None:
    upscale = node("LatentUpscaleBy", upscale_method="bislerp", scale_by=2.0, samples="FIRST")
    one = two_samplers(upscale, positive=["7", 0])
    assert (one.steps, one.second, list(one.hires)) == (20, None, ["KSampler 40"])
    assert unread(one)["KSampler 40 positive"] == "CLIPTextEncode 7" and unread(one)["LatentUpscaleBy 41 upscale_method"] == "bislerp"
    assert json.loads(unread(one)["LatentUpscaleBy 41"]) == {"upscale_method": "bislerp", "scale_by": 2.0}


def test_an_image_that_is_redrawn_and_a_controlnet() -> None:
    nodes = graph(n3={"denoise": 0.6, "latent_image": ["50", 0], "positive": ["53", 0], "negative": ["53", 1]}) | {
        "50": {"class_type": "VAEEncode", "inputs": {"pixels": ["51", 0], "vae": ["4", 2]}},
        "51": {"class_type": "LoadImage", "inputs": {"image": "photo.png"}},
        "52": {"class_type": "ControlNetLoader", "inputs": {"control_net_name": "canny.safetensors"}},
        "53": {
            "class_type": "ControlNetApplyAdvanced",
            "inputs": {
                "strength": 0.8,
                "start_percent": 0.0,
                "end_percent": 0.9,
                "positive": ["6", 0],
                "negative": ["7", 0],
                "control_net": ["52", 0],
                "image": ["54", 0],
            },
        },
        "54": {"class_type": "Canny", "inputs": {"low_threshold": 0.4, "image": ["51", 0]}},
    }
    one = found(nodes)
    assert (one.init, one.strength, one.negative) == ("photo.png", 0.6, "blurry")
    assert one.controls == (ControlName(name="canny.safetensors", scale=0.8, end=0.9, module="Canny", image="photo.png"),)


def test_what_is_not_drawn_with_here_is_reported() -> None:
    nodes = graph(n3={"model": ["60", 0]}, n5={"batch_size": 4}) | {
        "60": {"class_type": "FreeU_V2", "inputs": {"b1": 1.3, "model": ["61", 0]}},
        "61": {
            "class_type": "Power Lora Loader (rgthree)",
            "inputs": {
                "lora_1": {"on": True, "lora": "x/ink.safetensors", "strength": 0.9},
                "lora_2": {"on": False, "lora": "no.safetensors", "strength": 1},
                "model": ["4", 0],
                "clip": ["4", 1],
            },
        },
    }
    one = found(nodes)
    assert LoraName(name="x/ink.safetensors", weight=0.9, text_weight=0.0) in one.loras
    assert not any(lora.name == "no.safetensors" for lora in one.loras)
    assert unread(one) == {"FreeU_V2 60": '{"b1": 1.3}', "EmptyLatentImage 5 batch_size": "4"}


def workflow() -> dict[str, Any]:
    """A graph as the page holds it, with a muted and a bypassed node."""

    def node(number: int, kind: str, values: list[Any], *inputs: tuple[str, str, int], out: str = "X", mode: int = 0) -> dict[str, Any]:
        slots = [{"name": name, "type": of, "link": link} for name, of, link in inputs]
        return {
            "id": number,
            "type": kind,
            "mode": mode,
            "inputs": slots,
            "outputs": [{"type": one} for one in out.split()],
            "widgets_values": values,
        }

    return {
        "nodes": [
            node(4, "CheckpointLoaderSimple", ["sd15.safetensors"], out="MODEL CLIP VAE"),
            node(10, "LoraLoader", ["ink.safetensors", 0.7, 0.5], ("model", "MODEL", 1), ("clip", "CLIP", 2), out="MODEL CLIP", mode=4),
            node(6, "CLIPTextEncode", ["a cat"], ("clip", "CLIP", 3), out="CONDITIONING"),
            node(7, "CLIPTextEncode", ["blurry"], ("clip", "CLIP", 3), out="CONDITIONING"),
            node(5, "EmptyLatentImage", [512, 640, 1], out="LATENT"),
            node(
                3,
                "KSampler",
                [123, "randomize", 20, 8, "euler_ancestral", "normal", 1],
                ("model", "MODEL", 4),
                ("positive", "CONDITIONING", 5),
                ("negative", "CONDITIONING", 6),
                ("latent_image", "LATENT", 7),
                out="LATENT",
            ),
            node(14, "Reroute", [], ("", "LATENT", 8), out="LATENT"),
            node(8, "VAEDecode", [], ("samples", "LATENT", 9), ("vae", "VAE", 10), out="IMAGE"),
            node(9, "SaveImage", ["x"], ("images", "IMAGE", 11)),
            node(19, "SaveImage", ["y"], ("images", "IMAGE", 11), mode=2),
        ],
        "links": [
            [1, 4, 0, 10, 0, "MODEL"],
            [2, 4, 1, 10, 1, "CLIP"],
            [3, 10, 1, 6, 0, "CLIP"],
            [4, 10, 0, 3, 0, "MODEL"],
            [5, 6, 0, 3, 1, "CONDITIONING"],
            [6, 7, 0, 3, 2, "CONDITIONING"],
            [7, 5, 0, 3, 3, "LATENT"],
            [8, 3, 0, 14, 0, "LATENT"],
            [9, 14, 0, 8, 0, "LATENT"],
            [10, 4, 2, 8, 1, "VAE"],
            [11, 8, 0, 9, 0, "IMAGE"],
        ],
    }


def test_the_graph_of_the_page() -> None:
    one = found(workflow(), "workflow")
    assert (one.prompt, one.negative, one.seed, one.steps) == ("a cat", "blurry", 123, 20)
    assert (one.sampler, one.schedule, one.guidance, one.width, one.height) == ("euler_ancestral", "normal", 8.0, 512, 640)
    assert one.model == ModelName(name="sd15.safetensors") and one.loras == () and one.unread == ()  # the LoRA is bypassed


@pytest.mark.parametrize(
    "value", [None, [], {}, {"1": 2}, {"nodes": 3}, {"nodes": []}, {"1": {"class_type": "SaveImage", "inputs": 3}}, "text", {"nodes": [{}]}]
)
def test_other_values_are_none(value: object) -> None:
    assert read(value, source="prompt") is None
