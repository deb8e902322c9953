"""What ComfyUI, A1111 and sd-scripts make of a layer's weight by a file's tensors, by the behaviour of their loaders."""

import torch
from torch import Tensor


def comfyui_weight(state: dict[str, Tensor], name: str, weight: Tensor) -> Tensor:
    """The weight after comfy/weight_adapter's rules: lora, lokr, loha, oft and dora_scale."""
    own = {key.removeprefix(f"{name}."): tensor for key, tensor in state.items() if key.startswith(f"{name}.")}
    alpha = float(own["alpha"]) if "alpha" in own else None
    if "oft_blocks" in own:
        return turned(own["oft_blocks"], weight, longest=alpha or None)
    if "lora_up.weight" in own:
        up, down = own["lora_up.weight"].flatten(1), own["lora_down.weight"].flatten(1)
        change = (up @ down).reshape(weight.shape) * (1.0 if alpha is None else alpha / len(down))
    elif "hada_w1_a" in own:
        rank = len(own["hada_w1_b"])
        product = (own["hada_w1_a"] @ own["hada_w1_b"]) * (own["hada_w2_a"] @ own["hada_w2_b"])
        change = product.reshape(weight.shape) * (1.0 if alpha is None else alpha / rank)
    else:
        change = kronecker(own, alpha).reshape(weight.shape)
    if "dora_scale" not in own:
        return weight + change
    merged = weight + change
    rows = merged.flatten(1).norm(dim=1).reshape(-1, *[1] * (weight.ndim - 1))  # since ComfyUI 0.3, of the changed weight, by row
    scale = own["dora_scale"].reshape(-1, *[1] * (weight.ndim - 1))
    decomposed: Tensor = merged * scale / rows
    return decomposed


def sd_scripts_weight(state: dict[str, Tensor], name: str, weight: Tensor) -> Tensor:
    """The same by sd-scripts and A1111, whose OFT bounds the blocks by alpha times the rows, also by an alpha of 0."""
    own = {key.removeprefix(f"{name}."): tensor for key, tensor in state.items() if key.startswith(f"{name}.")}
    if "oft_blocks" not in own:
        return comfyui_weight(state, name, weight)
    return turned(own["oft_blocks"], weight, longest=float(own["alpha"]) * len(weight))


def kronecker(own: dict[str, Tensor], alpha: float | None) -> Tensor:
    """w1 (x) w2 with alpha / rank, where either is a product; the second's rank counts."""
    rank = None
    if (one := own.get("lokr_w1")) is None:
        rank, one = len(own["lokr_w1_b"]), own["lokr_w1_a"] @ own["lokr_w1_b"]
    if (two := own.get("lokr_w2")) is None:
        rank, two = len(own["lokr_w2_b"]), own["lokr_w2_a"] @ own["lokr_w2_b"]
    if two.ndim == 4:
        one = one[:, :, None, None]
    return torch.kron(one, two) * (1.0 if alpha is None or rank is None else alpha / rank)


def turned(blocks: Tensor, weight: Tensor, *, longest: float | None) -> Tensor:
    """Rows turned by (I + Q)(I - Q)^-1, Q shortened to `longest`."""
    skew = blocks - blocks.transpose(1, 2)
    length = float(skew.norm())
    if longest is not None and length > longest:
        skew = skew * (longest / length)
    unit = torch.eye(skew.shape[-1])
    turn = (unit + skew) @ torch.linalg.inv(unit - skew)
    rows = weight.reshape(len(blocks), blocks.shape[1], -1)
    return torch.einsum("knm,kni->kmi", turn, rows).reshape(weight.shape)
