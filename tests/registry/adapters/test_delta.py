"""What each algorithm changes, held against its definition written another way."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from registry.adapters.delta import bias_delta, decomposed, delta
from registry.adapters.reader import Module, read_adapter
from registry.errors import Refused
from tests.registry.adapters.made_adapters import CONV, NAMES, QUERY, TEXT, delta_by_hand, lora, random
from tests.registry.merging.models import written

NAME = NAMES[QUERY][0]
W = random(1, 8, 6)


def one(path: Path, tensors: dict[str, Tensor]) -> Module:
    """The one module of an adapter with these tensors."""
    (module,) = read_adapter(written(path / "adapter.safetensors", {f"{NAME}.{role}": tensor for role, tensor in tensors.items()})).modules
    return module


def close(found: Tensor, wanted: Tensor) -> bool:
    """fp32 products of a few factors near 1."""
    return torch.allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_lora_by_hand(tmp_path: Path) -> None:
    down, up = torch.tensor([[1.0, 2.0, 0.0, 0.0, 0.0, 0.0]]), torch.zeros(8, 1)
    up[3] = 5.0
    found = delta(one(tmp_path, {"lora_down.weight": down, "lora_up.weight": up, "alpha": torch.tensor(0.5)}))
    wanted = torch.zeros(8, 6)
    wanted[3, 0], wanted[3, 1] = 2.5, 5.0
    assert found.equal(wanted)


@pytest.mark.parametrize("spelling", ["kohya", "diffusers"])
@pytest.mark.parametrize("alpha", [None, 1.0, 3.0])
def test_lora_of_layers_convolutions_and_text_encoders(spelling: str, alpha: float | None, tmp_path: Path) -> None:
    path = lora(tmp_path / "a.safetensors", spelling=spelling, alpha=alpha)
    found = {module.place: module for module in read_adapter(path).modules}
    assert len(found) == 3
    for module, place in (
        (QUERY, ("denoiser", "down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q")),
        (CONV, ("denoiser", "down_blocks_0_resnets_0_conv1")),
        (TEXT, ("text_encoder", "encoder_layers_0_mlp_fc1")),
    ):
        assert close(delta(found[place]), delta_by_hand(path, module))


def test_a_tucker_core_stands_between_the_factors(tmp_path: Path) -> None:
    up, mid, down = random(1, 8, 2, 1, 1), random(2, 2, 2, 3, 3), random(3, 2, 4, 1, 1)
    found = delta(one(tmp_path, {"lora_up.weight": up, "lora_mid.weight": mid, "lora_down.weight": down, "alpha": torch.tensor(2.0)}))
    wanted = torch.nn.functional.conv2d(  # the three layers in a row on a one-hot image are the kernel, mirrored
        torch.nn.functional.conv2d(torch.nn.functional.conv2d(_one_hots(4), down), mid, padding=2), up
    )
    assert close(found, wanted.flip(-1, -2).transpose(0, 1))


def _one_hots(channels: int) -> Tensor:
    return torch.eye(channels)[:, :, None, None]


def test_alpha_of_diffusers_lies_in_the_metadata(tmp_path: Path) -> None:
    reported = '{"unet.r": 2, "unet.lora_alpha": 6, "unet.alpha_pattern": {"conv1": 1}}'
    path = lora(tmp_path / "a.safetensors", spelling="diffusers", alpha=None, modules=(QUERY, CONV), lora_adapter_metadata=reported)
    scales = {module.place[1]: module.scale(2) for module in read_adapter(path).modules}
    assert sorted(scales.values()) == [0.5, 3.0] and scales["down_blocks_0_resnets_0_conv1"] == 0.5


def test_rank_stabilised_scales_divide_by_the_root(tmp_path: Path) -> None:
    reported = '{"unet.r": 4, "unet.lora_alpha": 6, "unet.use_rslora": true}'
    path = lora(tmp_path / "a.safetensors", spelling="diffusers", alpha=None, rank=4, modules=(QUERY,), lora_adapter_metadata=reported)
    assert read_adapter(path).modules[0].scale(4) == 3.0


def test_loha_is_a_product_of_two_products(tmp_path: Path) -> None:
    a1, b1, a2, b2 = random(1, 8, 2), random(2, 2, 6), random(3, 8, 2), random(4, 2, 6)
    module = one(tmp_path, {"hada_w1_a": a1, "hada_w1_b": b1, "hada_w2_a": a2, "hada_w2_b": b2, "alpha": torch.tensor(1.0)})
    wanted = torch.zeros(8, 6)
    for r in range(2):
        for s in range(2):
            wanted += torch.outer(a1[:, r] * a2[:, s], b1[r] * b2[s])
    assert close(delta(module), wanted / 2)


def test_lokr_scales_only_where_a_factor_is_a_product(tmp_path: Path) -> None:
    w1, w2, w2_a, w2_b = random(1, 2, 3), random(2, 4, 2), random(3, 4, 1), random(4, 1, 2)

    def blocks(second: Tensor) -> Tensor:
        return torch.cat([torch.cat([value * second for value in row], dim=1) for row in w1])

    (tmp_path / "b").mkdir()
    whole = one(tmp_path, {"lokr_w1": w1, "lokr_w2": w2, "alpha": torch.tensor(16.0)})
    assert close(delta(whole), blocks(w2))
    product = one(tmp_path / "b", {"lokr_w1": w1, "lokr_w2_a": w2_a, "lokr_w2_b": w2_b, "alpha": torch.tensor(0.5)})
    assert close(delta(product), blocks(w2_a @ w2_b) / 2)


def test_glora_takes_the_base_along(tmp_path: Path) -> None:
    a1, a2, b1, b2 = random(1, 6, 2), random(2, 2, 6), random(3, 8, 2), random(4, 2, 6)
    module = one(tmp_path, {"a1.weight": a1, "a2.weight": a2, "b1.weight": b1, "b2.weight": b2, "alpha": torch.tensor(1.0)})
    assert close(delta(module, W), (W @ a1 @ a2 + b1 @ b2) / 2)
    with pytest.raises(Refused, match="not known without a base"):
        delta(module)


def test_full_differences_and_norms(tmp_path: Path) -> None:
    change, bias = random(1, 8, 6), random(2, 8)
    module = one(tmp_path, {"diff": change, "diff_b": bias})
    found = bias_delta(module)
    assert delta(module).equal(change) and found is not None and found.equal(bias)


def test_oft_rotates_the_rows_and_keeps_their_lengths(tmp_path: Path) -> None:
    module = one(tmp_path, {"oft_blocks": random(1, 2, 4, 4)})
    turned = W + delta(module, W)
    for block in (slice(0, 4), slice(4, 8)):
        assert close(turned[block].T @ turned[block], W[block].T @ W[block])  # a rotation of the rows keeps their Gram matrix
    assert not close(turned, W) and close(delta(module, W, weight=0.0), torch.zeros_like(W))


def test_oft_of_one_angle_by_hand(tmp_path: Path) -> None:
    t = 0.5  # Q = [[0, t], [-t, 0]], R = (I + Q)(I - Q)^-1 turns by 2 atan t
    blocks = torch.zeros(4, 2, 2)
    blocks[:, 0, 1] = t
    cosine, sine = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
    rotation = torch.tensor([[cosine, sine], [-sine, cosine]])
    wanted = torch.cat([rotation.T @ W[2 * k : 2 * k + 2] for k in range(4)])
    assert close(W + delta(one(tmp_path, {"oft_blocks": blocks}), W), wanted)


def test_boft_is_a_rotation_too(tmp_path: Path) -> None:
    module = one(tmp_path, {"oft_blocks": random(1, 3, 4, 2, 2)})
    assert module.algorithm == "boft"
    turned = W + delta(module, W)
    assert close(turned.T @ turned, W.T @ W) and not close(turned, W)
    assert close(delta(one(tmp_path, {"oft_blocks": torch.zeros(3, 4, 2, 2)}), W), torch.zeros_like(W))


def test_ia3_scales_rows_or_columns(tmp_path: Path) -> None:
    rows = one(tmp_path, {"weight": torch.arange(8.0), "on_input": torch.tensor(0)})
    assert close(delta(rows, W, weight=0.5), W * torch.arange(8.0)[:, None] / 2)
    columns = one(tmp_path, {"weight": torch.arange(6.0), "on_input": torch.tensor(1)})
    assert close(delta(columns, W), W * torch.arange(6.0))


def test_dora_by_hand_on_rows_and_columns() -> None:
    base, change = torch.tensor([[3.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.0, 4.0], [0.0, 0.0]])
    rows = base + decomposed(torch.tensor([10.0, 2.0]), base, change, on_out=True, weight=1.0)
    assert rows.equal(torch.tensor([[6.0, 8.0], [0.0, 2.0]]))  # the rows (3, 4) and (0, 1) made 10 and 2 long
    columns = base + decomposed(torch.tensor([6.0, 17.0**0.5]), base, change, on_out=False, weight=1.0)
    assert close(columns, torch.tensor([[6.0, 4.0], [0.0, 1.0]]))
    assert decomposed(torch.tensor([10.0, 2.0]), base, change, on_out=True, weight=0.5).equal((rows - base) / 2)


def test_dora_with_the_weights_own_lengths_is_the_base(tmp_path: Path) -> None:
    factors = {"lora_down.weight": torch.zeros(2, 6), "lora_up.weight": random(2, 8, 2)}
    on_columns = one(tmp_path, factors | {"dora_scale": W.norm(dim=0)[None]})
    assert close(delta(on_columns, W), torch.zeros_like(W))
    on_rows = one(tmp_path, factors | {"dora_scale": W.norm(dim=1)[:, None]})
    assert close(delta(on_rows, W), torch.zeros_like(W))


@pytest.mark.slow
def test_dora_is_what_peft_merges(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict

    model = torch.nn.Sequential(torch.nn.Linear(6, 8))
    base = model.get_parameter("0.weight").detach().clone()
    wrapped = get_peft_model(model, LoraConfig(r=2, lora_alpha=4, target_modules=["0"], use_dora=True))
    with torch.no_grad():
        for n, (name, weight) in enumerate(wrapped.named_parameters()):
            if "lora_B" in name or "magnitude" in name:
                weight.copy_(random(n, *weight.shape).abs())
    state = {name.replace("base_model.model.0", "unet.a.b"): value for name, value in get_peft_model_state_dict(wrapped).items()}
    path = written(tmp_path / "dora.safetensors", state, lora_adapter_metadata='{"unet.r": 2, "unet.lora_alpha": 4}')
    (module,) = read_adapter(path).modules
    merged = wrapped.merge_and_unload().get_parameter("0.weight").detach()
    assert close(base + delta(module, base), merged)
