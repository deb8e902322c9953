"""Metadata as other programs write it: A1111's text, ComfyUI's graphs."""

import copy
import json
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

A1111 = """a (red:1.2) cat, <lora:ink:0.6>\\(sitting\\)
on a mat
Negative prompt: blurry, low
quality
Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 965400086, Size: 512x768, Model hash: 6ce0161689, \
Model: v1-5-pruned, VAE hash: 735e4c3a44, VAE: vae-ft.safetensors, Denoising strength: 0.5, Clip skip: 2, \
ADetailer model: face_yolov8n.pt, Hires upscale: 2, Hires upscaler: Latent, ControlNet 0: "Module: canny, \
Model: control_v11p_sd15_canny [d14c016b], Weight: 0.8, Resize Mode: Crop and Resize, Processor Res: 512, Threshold A: 100, \
Guidance Start: 0, Guidance End: 0.9, Pixel Perfect: False, Control Mode: Balanced", Lora hashes: "ink: 123456789abc", \
TI hashes: "bad: abcdefabcdef", Version: v1.10.1"""

GRAPH: dict[str, Any] = {
    "3": {
        "class_type": "KSampler",
        "inputs": {
            "seed": ["20", 0],
            "steps": 20,
            "cfg": 8.0,
            "sampler_name": "dpmpp_2m",
            "scheduler": "karras",
            "denoise": 1.0,
            "model": ["11", 0],
            "positive": ["6", 0],
            "negative": ["7", 0],
            "latent_image": ["5", 0],
        },
    },
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "SD\\sd15.safetensors"}},
    "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 512, "height": 640, "batch_size": 1}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": ["21", 0], "clip": ["12", 0]}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "blurry", "clip": ["12", 0]}},
    "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["13", 0]}},
    "9": {"class_type": "SaveImage", "inputs": {"filename_prefix": "x", "images": ["8", 0]}},
    "10": {
        "class_type": "LoraLoader",
        "inputs": {"lora_name": "ink.safetensors", "strength_model": 0.7, "strength_clip": 0.5, "model": ["4", 0], "clip": ["4", 1]},
    },
    "11": {"class_type": "LoraLoaderModelOnly", "inputs": {"lora_name": "hat.safetensors", "strength_model": 0.4, "model": ["10", 0]}},
    "12": {"class_type": "CLIPSetLastLayer", "inputs": {"stop_at_clip_layer": -2, "clip": ["10", 1]}},
    "13": {"class_type": "VAELoader", "inputs": {"vae_name": "vae-ft.safetensors"}},
    "20": {"class_type": "PrimitiveInt", "inputs": {"value": 77}},
    "21": {"class_type": "StringConcatenate", "inputs": {"string_a": "a cat", "string_b": ["22", 0], "delimiter": ", "}},
    "22": {"class_type": "PrimitiveString", "inputs": {"value": "embedding:bad sitting"}},
}


def graph(**changes: dict[str, Any] | None) -> dict[str, Any]:
    """GRAPH with these inputs of its nodes changed; None takes a node away, one with a class_type is new."""
    made = copy.deepcopy(GRAPH)
    for name, change in changes.items():
        node = name.removeprefix("n")
        if change is None:
            del made[node]
        elif "class_type" in change:
            made[node] = change
        else:
            made[node]["inputs"] |= change
    return made


def png(path: Path, **texts: str) -> Path:
    """A PNG with these texts."""
    info = PngInfo()
    for name, text in texts.items():
        info.add_itxt(name, text)
    Image.new("RGB", (8, 8), (200, 30, 30)).save(path, pnginfo=info)
    return path


def comfy_png(path: Path, nodes: dict[str, Any]) -> Path:
    return png(path, prompt=json.dumps(nodes))


def flow_graph() -> dict[str, Any]:
    """A graph of FLUX.1: a custom sampler of parts, models in single files."""
    nodes = graph(n3=None, n4=None, n10=None, n11=None, n12=None, n7=None) | {
        "30": {
            "class_type": "SamplerCustomAdvanced",
            "inputs": {"noise": ["31", 0], "guider": ["32", 0], "sampler": ["33", 0], "sigmas": ["34", 0], "latent_image": ["5", 0]},
        },
        "31": {"class_type": "RandomNoise", "inputs": {"noise_seed": 5}},
        "32": {"class_type": "BasicGuider", "inputs": {"model": ["35", 0], "conditioning": ["36", 0]}},
        "33": {"class_type": "KSamplerSelect", "inputs": {"sampler_name": "euler"}},
        "34": {"class_type": "BasicScheduler", "inputs": {"scheduler": "simple", "steps": 4, "denoise": 1.0, "model": ["35", 0]}},
        "35": {"class_type": "UNETLoader", "inputs": {"unet_name": "flux1-dev.safetensors", "weight_dtype": "fp8_e4m3fn"}},
        "36": {"class_type": "FluxGuidance", "inputs": {"guidance": 3.5, "conditioning": ["6", 0]}},
        "37": {"class_type": "DualCLIPLoader", "inputs": {"clip_name1": "t5.safetensors", "clip_name2": "clip_l.safetensors"}},
    }
    nodes["6"]["inputs"]["clip"] = ["37", 0]
    nodes["8"]["inputs"]["samples"] = ["30", 0]
    return nodes
