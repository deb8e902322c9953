"""Small model files made by hand: keys and shapes of real ones, bytes from a counter."""

import hashlib
import json
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from registry.formats.atomic_file import RawTensor, write_raw
from registry.formats.safetensors_header import DTYPE_BITS
from registry.record import Hashes

Shapes = Mapping[str, tuple[int, ...]]


def filled(dtype: str, shape: tuple[int, ...], seed: str = "") -> RawTensor:
    """A tensor whose bytes depend on its seed alone."""
    size = DTYPE_BITS[dtype] // 8
    for length in shape:
        size *= length
    return RawTensor(dtype, shape, hashlib.shake_128(seed.encode()).digest(size))


def model(path: Path, shapes: Shapes, *, dtype: str = "F16", metadata: Mapping[str, str] | None = None, seed: str = "") -> Hashes:
    """A file with these tensors; gives its hashes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_raw(path, {name: filled(dtype, shape, name + seed) for name, shape in shapes.items()}, metadata=metadata or {})


def scalar(value: float) -> RawTensor:
    """A float32 of no axes: an alpha."""
    return RawTensor("F32", (), struct.pack("<f", value))


def lora(
    path: Path,
    modules: Mapping[str, tuple[int, int]],
    *,
    rank: int = 4,
    alpha: float | None = None,
    dialect: str = "diffusers",
    component: str = "unet",
    seed: str = "",
    metadata: Mapping[str, str] | None = None,
) -> Hashes:
    """A LoRA over modules {dotted name: (in, out)}; the bytes are the same in every dialect."""
    tensors: dict[str, RawTensor] = {}
    for module, (into, out) in modules.items():
        down, up = filled("F32", (rank, into), f"{module} down {seed}"), filled("F32", (out, rank), f"{module} up {seed}")
        if dialect == "kohya":
            name = f"{'lora_unet' if component in ('unet', 'transformer') else 'lora_te'}_{module.replace('.', '_')}"
            tensors |= {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}
            if alpha is not None:
                tensors[f"{name}.alpha"] = scalar(alpha)
        else:
            name = f"base_model.model.{module}" if dialect == "peft" else f"{component}.{module}"
            tensors |= {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}
    reported = dict(metadata or {})
    if alpha is not None and dialect != "kohya":
        reported["lora_adapter_metadata"] = json.dumps({f"{component}.lora_alpha": alpha, f"{component}.r": rank})
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_raw(path, tensors, metadata=reported)


def sd1_attention(width: int = 768, *, channels: int = 320, blocks: Iterable[int] = (0, 1)) -> dict[str, tuple[int, int]]:
    """Cross-attention modules of an SD 1.x UNet, {name: (in, out)}."""
    modules: dict[str, tuple[int, int]] = {}
    for block in blocks:
        place = f"down_blocks.0.attentions.{block}.transformer_blocks.0.attn2"
        modules |= {f"{place}.to_q": (channels, channels), f"{place}.to_k": (width, channels), f"{place}.to_v": (width, channels)}
    return modules


def raw_file(header: Any, data: bytes = b"", *, length: int | None = None) -> bytes:
    """The bytes of a safetensors file with any header, right or wrong."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def diffusers_folder(folder: Path, *, width: int = 128, channels: int = 48, prediction: str = "v_prediction", seed: str = "") -> Path:
    """A diffusers folder of Stable Diffusion's classes with a few of its tensors."""
    place = "down_blocks.0.attentions.0.transformer_blocks.0"
    unet = {
        "conv_in.weight": (channels, 4, 3, 3),
        "down_blocks.0.resnets.0.conv1.weight": (channels, channels, 3, 3),
        f"{place}.attn1.to_q.weight": (channels, channels),
        f"{place}.attn2.to_q.weight": (channels, channels),
        f"{place}.attn2.to_k.weight": (channels, width),
        f"{place}.attn2.to_v.weight": (channels, width),
        f"{place}.attn2.to_out.0.weight": (channels, channels),
    }
    text = {"text_model.encoder.layers.0.self_attn.q_proj.weight": (width, width)}
    model(folder / "unet" / "diffusion_pytorch_model.safetensors", unet, seed=seed)
    model(folder / "text_encoder" / "model.safetensors", text, seed=seed)
    classes = {
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
    }
    configs = {
        "model_index.json": {"_class_name": "StableDiffusionPipeline", "safety_checker": [None, None], **classes},
        "unet/config.json": {
            "_class_name": "UNet2DConditionModel",
            "cross_attention_dim": width,
            "in_channels": 4,
            "addition_embed_type": None,
        },
        "text_encoder/config.json": {"architectures": ["CLIPTextModel"], "hidden_size": width},
        "scheduler/scheduler_config.json": {"_class_name": "DDIMScheduler", "prediction_type": prediction},
    }
    for name, value in configs.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(value))
    return folder
