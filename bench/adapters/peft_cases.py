"""Every tuner and every variant of LoRA in peft, on the layers of a tiny UNet, saved by peft and merged by it.

Left out are methods that no layer of an image model carries: prompts, prefixes, routers of several adapters, adapters of LLaMA's attention.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from bench.adapters.case import ATTENTION, CONVOLUTIONS, Made, output, unet

RANK: dict[str, Any] = {"r": 4, "lora_alpha": 8, "target_modules": list(ATTENTION)}
Settings = Mapping[str, Any]
BLOCKS = {"target_modules_bd_a": ["to_out"], "target_modules_bd_b": ["to_q", "to_k", "to_v"], "nblocks": 2}
LORA: dict[str, Settings] = {
    "LoRA": {},
    "LoRA of convolutions": {"target_modules": [*ATTENTION, *CONVOLUTIONS]},
    "rsLoRA": {"use_rslora": True},
    "rank and alpha patterns": {"rank_pattern": {"to_k": 2}, "alpha_pattern": {"to_q": 3}},
    "DoRA": {"use_dora": True},
    "lora_bias": {"lora_bias": True, "target_modules": ["to_out.0"]},
    "init gaussian": {"init_lora_weights": "gaussian"},
    "init orthogonal": {"init_lora_weights": "orthogonal"},
    "init mica": {"init_lora_weights": "mica"},
    "init pissa": {"init_lora_weights": "pissa"},
    "init olora": {"init_lora_weights": "olora"},
    "init pissa_niter_4": {"init_lora_weights": "pissa_niter_4"},
    "init loftq": {"init_lora_weights": "loftq", "loftq_config": "LoftQConfig"},
    "init corda": {"init_lora_weights": "corda", "corda_config": "CordaConfig"},
    "init lora_ga": {"init_lora_weights": "lora_ga", "lora_ga_config": "LoraGAConfig"},
    "VeLoRA": {"velora_config": "VeloraConfig"},
    "KaSA": {"kasa_config": "KasaConfig"},
    "BD-LoRA": {"use_bdlora": ("BdLoraConfig", BLOCKS)},
    "MonteCLoRA": {"monteclora_config": "MontecloraConfig"},
    "aLoRA": {"alora_invocation_tokens": [1]},
    "modules_to_save": {"modules_to_save": ["conv_in"]},
    'bias="lora_only"': {"bias": "lora_only"},
    'bias="all"': {"bias": "all"},
}
TARGETS: dict[str, Any] = {"target_modules": list(ATTENTION)}
TUNERS: dict[str, tuple[str, Settings]] = {
    "AdaLoRA": ("AdaLoraConfig", {"init_r": 4, "target_r": 4, "total_step": 100, "lora_alpha": 8}),
    "LoHa": ("LoHaConfig", {"r": 4, "alpha": 8}),
    "LoKr": ("LoKrConfig", {"r": 2, "alpha": 8}),
    "OFT": ("OFTConfig", {"oft_block_size": 4}),
    "BOFT": ("BOFTConfig", {"boft_block_size": 4}),
    "IA3": ("IA3Config", {"feedforward_modules": []}),
    "GLoRA": ("GloraConfig", {}),
    "VeRA": ("VeraConfig", {"r": 4, "target_modules": ["attn1.to_q", "attn1.to_v"]}),
    "PVeRA": ("PveraConfig", {"r": 4, "target_modules": ["attn1.to_q", "attn1.to_v"]}),
    "RandLoRA": ("RandLoraConfig", {"r": 4, "target_modules": ["attn1.to_q", "attn1.to_v"]}),
    "VB-LoRA": ("VBLoRAConfig", {"r": 4, "num_vectors": 8, "vector_length": 4}),
    "UniLoRA": ("UniLoraConfig", {}),
    "TinyLoRA": ("TinyLoraConfig", {}),
    "HRA": ("HRAConfig", {"r": 4}),
    "HiRA": ("HiraConfig", {"r": 4}),
    "MiSS": ("MissConfig", {"r": 4}),
    "DeLoRA": ("DeloraConfig", {"r": 4}),
    "GraLoRA": ("GraloraConfig", {"r": 4, "gralora_k": 2}),
    "C3A": ("C3AConfig", {"block_size": 4}),
    "FourierFT": ("FourierFTConfig", {"n_frequency": 16}),
    "WaveFT": ("WaveFTConfig", {"n_frequency": 16}),
    "SHiRA": ("ShiraConfig", {"r": 2}),
    "RoAd": ("RoadConfig", {"group_size": 8}),
    "FRoD": ("FrodConfig", {"target_modules": ["mid_block.attentions.0.transformer_blocks.0.attn1.to_q"]}),
    "PSOFT": ("PsoftConfig", {"r": 4}),
    "DEFT": ("DeftConfig", {}),
    "PEANuT": ("PeanutConfig", {}),
    "Lily": ("LilyConfig", {"r": 4}),
    "OSF": ("OSFConfig", {}),
    "BEFT": ("BeftConfig", {"target_modules": ["to_out.0"]}),
    "AdaMSS": ("AdamssConfig", {}),
    "Shadow": ("ShadowConfig", {}),
    "Supertuning": ("SupertuningConfig", {"sparsity": 0.5}),
    "LN tuning": ("LNTuningConfig", {"target_modules": ["norm1", "norm2"]}),
}


def cases() -> dict[str, Callable[[Path, Path], Made]]:
    """Title -> function that makes the file in a folder, with the base at a place."""
    found: dict[str, Callable[[Path, Path], Made]] = {}
    for title, settings in LORA.items():
        found[title] = _making("LoraConfig", {**RANK, **settings})
    for title, (kind, settings) in TUNERS.items():
        found[title] = _making(kind, {**TARGETS, **settings})
    return found


def _making(kind: str, settings: Settings) -> Callable[[Path, Path], Made]:
    return lambda place, folder: make(kind, settings, place, folder)


def make(kind: str, settings: Settings, place: Path, folder: Path) -> Made:
    """A trained adapter, which is its start moved by noise, as peft saves it."""
    import peft
    from peft.tuners.lora import config as inner

    model = unet(place)
    values = {name: _value(inner, value) for name, value in settings.items()}
    torch.manual_seed(0)
    config = getattr(peft, kind)(**values)
    _prepare(model, config)
    wrapped = peft.get_peft_model(model, config)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=draw))
    wrapped.save_pretrained(str(folder))
    file = folder / "adapter_model.safetensors"
    try:
        return Made(file, wrapped.merge_and_unload().state_dict())
    except Exception as error:  # whatever peft raises is what the table shows
        return Made(file, None, f"peft does not merge it ({type(error).__name__})")


def _value(inner: Any, value: Any) -> Any:
    """A setting; one that is a configuration itself is given as its class, or as (class, its settings)."""
    name, own = value if isinstance(value, tuple) else (value, {})
    return getattr(inner, name)(**own) if str(name).endswith("Config") else value


def _prepare(model: Any, config: Any) -> None:
    """What starts from data need: one pass over some."""
    start = getattr(config, "init_lora_weights", None)
    if start == "corda":
        from peft.tuners.lora.corda import preprocess_corda

        config.corda_config.corda_method = "kpm"
        preprocess_corda(model, config, run_model=lambda: output(model))
    elif start == "lora_ga":
        from peft.tuners.lora.loraga import preprocess_loraga

        def step() -> None:
            draw = torch.Generator().manual_seed(3)
            given = torch.randn(1, 4, 8, 8, generator=draw), torch.tensor([500]), torch.randn(1, 7, 32, generator=draw)
            model(*given).sample.square().mean().backward()

        preprocess_loraga(model, config, step)
