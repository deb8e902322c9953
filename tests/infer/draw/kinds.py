"""Small adapters of every kind, in the names of kohya and LyCORIS, for layers of any shape."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file

if TYPE_CHECKING:
    from torch import Tensor

R = 2  # rank
SIZE = 4  # of a rotation's blocks


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 0.4


def ones(*shape: int) -> tuple[int, ...]:
    """The kernel of a convolution of the same rank that does nothing to its neighbours."""
    return (1,) * (len(shape) - 2)


def _lora(s: int, o: int, i: int, *k: int) -> dict[str, Tensor]:
    return {"lora_down.weight": random(s, R, i, *k), "lora_up.weight": random(s + 1, o, R, *ones(o, i, *k)), "alpha": torch.tensor(1.0)}


def _tucker(s: int, o: int, i: int, *k: int) -> dict[str, Tensor]:
    if not k:
        return _lora(s, o, i)
    flat = _lora(s, o, i, *ones(o, i, *k))
    return flat | {"lora_mid.weight": random(s + 2, R, R, *k)}


def _loha(s: int, o: int, i: int, *k: int) -> dict[str, Tensor]:
    flat = i * int(torch.Size(k).numel())
    sides = [{f"hada_w{n}_a": random(s + n, o, R), f"hada_w{n}_b": random(s + n + 2, R, flat)} for n in (1, 2)]
    return sides[0] | sides[1] | {"alpha": torch.tensor(2.0)}


def _lokr(s: int, o: int, i: int, *k: int) -> dict[str, Tensor]:
    flat = i // 2 * int(torch.Size(k).numel())
    return {
        "lokr_w1": random(s, 2, 2),
        "lokr_w2_a": random(s + 1, o // 2, R),
        "lokr_w2_b": random(s + 2, R, flat),
        "alpha": torch.tensor(1.0),
    }


def _lokr_whole(s: int, o: int, i: int, *k: int) -> dict[str, Tensor]:
    return {"lokr_w1": random(s, 2, 2), "lokr_w2": random(s + 1, o // 2, i // 2, *k)}


def _glora(s: int, o: int, i: int, *k: int) -> dict[str, Tensor]:
    one = ones(o, i, *k)
    shapes = {"a1": (i, R, *one), "a2": (R, i, *one), "b1": (o, R, *one), "b2": (R, i, *k)}
    return {f"{name}.weight": random(s + n, *shape) for n, (name, shape) in enumerate(shapes.items())} | {"alpha": torch.tensor(1.0)}


def _oft(s: int, o: int, _i: int, *_k: int) -> dict[str, Tensor]:
    return {"oft_blocks": random(s, o // SIZE, SIZE, SIZE), "alpha": torch.tensor(0.0)}


def _boft(s: int, o: int, _i: int, *_k: int) -> dict[str, Tensor]:
    return {"oft_blocks": random(s, 2, o // SIZE, SIZE, SIZE), "alpha": torch.tensor(0.0)}


def _ia3(s: int, o: int, i: int, *k: int) -> dict[str, Tensor]:
    return {"weight": random(s, i) if not k else random(s, 1, i, *ones(o, i, *k)), "on_input": torch.tensor(True)}


def _full(s: int, o: int, i: int, *k: int) -> dict[str, Tensor]:
    return {"diff": random(s, o, i, *k)}


def _dora_rows(s: int, o: int, i: int, *k: int) -> dict[str, Tensor]:
    """kohya's and LyCORIS's `wd_on_out`: a number for each row."""
    return _lora(s, o, i, *k) | {"dora_scale": random(s + 5, o, 1, *ones(o, i, *k)).abs() + 0.5}


def _dora_columns(s: int, o: int, i: int, *k: int) -> dict[str, Tensor]:
    """OneTrainer's and LyCORIS's: a number for each column."""
    return _lora(s, o, i, *k) | {"dora_scale": random(s + 5, 1, i, *ones(o, i, *k)).abs() + 0.5}


def _lokr_dora(s: int, o: int, i: int, *k: int) -> dict[str, Tensor]:
    return _lokr(s, o, i, *k) | {"dora_scale": random(s + 5, o, 1, *ones(o, i, *k)).abs() + 0.5}


KINDS: Mapping[str, Callable[..., dict[str, Tensor]]] = {
    "locon-tucker": _tucker,
    "loha": _loha,
    "lokr": _lokr,
    "lokr-whole": _lokr_whole,
    "glora": _glora,
    "oft": _oft,
    "boft": _boft,
    "ia3": _ia3,
    "full": _full,
    "dora-rows": _dora_rows,
    "dora-columns": _dora_columns,
    "lokr-dora": _lokr_dora,
}
QUERY = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
CONV = "lora_unet_down_blocks_0_resnets_0_conv1"
NORM = "lora_unet_down_blocks_0_resnets_0_norm1"
TEXT = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"


def write_kind(kind: str, shapes: Mapping[str, tuple[int, ...]], path: Path, *, seed: int = 0) -> Path:
    """An adapter of this kind on every layer of two or more axes; `bias` and `norm` are a change of biases, of norms."""
    values: dict[str, Tensor] = {}
    for number, (name, shape) in enumerate(shapes.items()):
        s = seed * 1000 + number * 10
        if kind == "norm" and len(shape) == 1:
            own = {"w_norm": random(s, *shape), "b_norm": random(s + 1, *shape)}
        elif kind == "bias" and len(shape) == 4:
            own = {"diff": random(s, *shape), "diff_b": random(s + 1, shape[0])}
        else:
            own = KINDS[kind](s, *shape) if kind in KINDS and len(shape) > 1 else {}
        values |= {f"{name}.{ending}": value.contiguous() for ending, value in own.items()}
    save_file(values, path)
    return path
