"""A transformer whose layers are bitsandbytes' own, saved by its state dict: its outputs, and ours of the same folder.

Then a weight of ours in nf4-dq, dequantised by bitsandbytes.

    python -m pip install bitsandbytes==0.50.2
    python -m bench.quantised.against_bitsandbytes

diffusers quantises on a GPU alone; the layers themselves run on the CPU. Widths are whole blocks of 64: bitsandbytes' kernel for the CPU is
wrong on others (findings/bitsandbytes_cpu_4bit_rows_that_are_no_whole_blocks.sh).
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import bitsandbytes as bnb
import diffusers
import torch
from safetensors.torch import save_file

from registry.formats.diffusers_folder import load_module
from registry.quantised.codings import CODINGS, NF4_BLOCK, NF4_LEVELS
from registry.quantised.double import BLOCK, LEVELS
from registry.quantised.skeleton import stored_titles

SIZES: dict[str, Any] = {
    "num_layers": 2,
    "num_single_layers": 2,
    "num_attention_heads": 2,
    "attention_head_dim": 64,
    "axes_dims_rope": [16, 24, 24],
    "joint_attention_dim": 64,
    "pooled_projection_dim": 64,
    "in_channels": 64,
    "guidance_embeds": True,
}


def inputs() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    return {
        "hidden_states": torch.randn(1, 16, 64, generator=generator),
        "encoder_hidden_states": torch.randn(1, 8, 64, generator=generator),
        "pooled_projections": torch.randn(1, 64, generator=generator),
        "timestep": torch.tensor([0.5]),
        "guidance": torch.tensor([3.5]),
        "img_ids": torch.zeros(16, 3),
        "txt_ids": torch.zeros(8, 3),
        "return_dict": False,
    }


def with_four_bits(model: Any, kind: str, *, nested: bool) -> Any:
    """The model with bitsandbytes' layers in place of its linear ones."""
    for name, layer in list(model.named_modules()):
        if type(layer) is torch.nn.Linear:
            new = bnb.nn.Linear4bit(
                layer.in_features,
                layer.out_features,
                bias=layer.bias is not None,
                compute_dtype=torch.float32,
                compress_statistics=nested,
                quant_type=kind,
            )
            new.weight = bnb.nn.Params4bit(layer.weight.data, requires_grad=False, quant_type=kind, compress_statistics=nested)
            new.bias = layer.bias
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, new.to("cpu"))
    return model


def double_quantised() -> None:
    """Our codes and scales of nf4-dq, given to bitsandbytes: its weight of them, and how many codes of the scales are its own."""
    weight, coding = torch.randn(512, 640, generator=torch.Generator().manual_seed(0)) * 0.03, CODINGS["nf4-dq"]
    codes, scales, largest, offset = coding.quantise(weight)
    nested = bnb.functional.QuantState(absmax=largest, blocksize=BLOCK, code=torch.tensor(LEVELS), dtype=torch.float32)
    levels = torch.tensor(NF4_LEVELS)
    own = {"blocksize": NF4_BLOCK, "code": levels, "quant_type": "nf4", "dtype": torch.float32}
    state = bnb.functional.QuantState(absmax=scales, shape=weight.shape, offset=offset[0], state2=nested, **own)
    made, ours = bnb.functional.dequantize_4bit(codes[:, None], state), coding.make((codes, scales, largest, offset), (512, 640))
    packed, theirs = bnb.functional.quantize_4bit(weight, quant_type="nf4", blocksize=NF4_BLOCK, compress_statistics=True)
    same = codes.equal(packed.flatten()), largest.equal(theirs.state2.absmax), float(offset) == float(theirs.offset)
    print(f"nf4-dq: bitsandbytes' weight of our codes differs by {float((made - ours).abs().max())};")
    print(f"codes, nested scales and offset are its own: {same};")
    lost, its = (float((one - weight).norm() / weight.norm()) for one in (ours, bnb.functional.dequantize_4bit(packed, theirs)))
    other = int((scales != theirs.absmax).sum())
    print(f"{other} of {len(scales)} scales have another code (its kernel for the CPU takes a neighbour of the nearest);")
    print(f"weight error {lost:.5%}, bitsandbytes' {its:.5%}")


def main() -> None:
    double_quantised()
    with tempfile.TemporaryDirectory() as scratch, torch.no_grad():
        for kind, nested in (("nf4", False), ("nf4", True), ("fp4", False), ("fp4", True)):
            torch.manual_seed(0)
            plain = diffusers.FluxTransformer2DModel(**SIZES).eval()
            whole = plain(**inputs())[0]
            folder = Path(scratch, f"{kind}{nested}")
            plain.save_config(folder)
            other = with_four_bits(plain, kind, nested=nested)
            state = {name: tensor for name, tensor in other.state_dict().items() if isinstance(tensor, torch.Tensor)}
            save_file(state, folder / "diffusion_pytorch_model.safetensors")
            ours = load_module(diffusers.FluxTransformer2DModel, folder, dtype=torch.float32).eval()
            found, expected = ours(**inputs())[0], other(**inputs())[0]
            apart, lost = (float((one - expected).abs().max() / expected.abs().max()) for one in (found, whole))
            print(f"{stored_titles(ours)}: largest difference {apart:.1e} of the largest output; quantising changed {lost:.1e}")


if __name__ == "__main__":
    main()
