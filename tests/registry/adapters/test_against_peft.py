"""Every algorithm that peft trains, saved by peft and merged by it: our change of each weight and bias is the same."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import save_file

from registry.adapters.combine import plan_combine, run_combine
from registry.adapters.delta import bias_delta, delta
from registry.adapters.fuse import plan_fuse
from registry.adapters.reader import Adapter, read_adapter
from registry.adapters.shape_check import misshape
from registry.adapters.understood import adapter_faults
from registry.errors import BadFile, Faults, Refused
from registry.merging.reproduce import reproduce
from registry.references import Weighted
from registry.store import Store

if TYPE_CHECKING:
    from torch import Tensor

LAYERS = ("lin", "square", "conv", "square_conv", "one")
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "lora": ("LoraConfig", {"r": 4, "lora_alpha": 2}),
    "rank-stabilised": ("LoraConfig", {"r": 4, "lora_alpha": 2, "use_rslora": True}),
    "dora": ("LoraConfig", {"r": 4, "lora_alpha": 2, "use_dora": True}),
    "lora with biases": ("LoraConfig", {"r": 4, "lora_alpha": 2, "lora_bias": True}),
    "patterns": ("LoraConfig", {"r": 4, "lora_alpha": 2, "rank_pattern": {"lin": 2}, "alpha_pattern": {"lin": 8, "conv$": 3}}),
    "an embedding": ("LoraConfig", {"r": 4, "lora_alpha": 2, "target_modules": ["words"]}),
    "pissa": ("LoraConfig", {"r": 4, "lora_alpha": 2, "init_lora_weights": "pissa", "target_modules": ["lin", "square"]}),
    "olora": ("LoraConfig", {"r": 4, "lora_alpha": 2, "init_lora_weights": "olora", "target_modules": ["lin", "square"]}),
    "pissa, rank-stabilised": (
        "LoraConfig",
        {"r": 4, "lora_alpha": 2, "init_lora_weights": "pissa", "use_rslora": True, "target_modules": ["lin", "square"]},
    ),
    "pissa with dora": (
        "LoraConfig",
        {"r": 4, "lora_alpha": 2, "init_lora_weights": "pissa", "use_dora": True, "target_modules": ["lin", "square"]},
    ),
    "velora": ("LoraConfig", {"r": 4, "lora_alpha": 2, "velora_config": {"num_groups": 4}, "target_modules": ["lin", "square"]}),
    "orthogonal": ("LoraConfig", {"r": 4, "lora_alpha": 2, "init_lora_weights": "orthogonal", "target_modules": ["lin", "square"]}),
    "mica": ("LoraConfig", {"r": 4, "lora_alpha": 2, "init_lora_weights": "mica", "target_modules": ["lin", "square"]}),
    "adalora": ("AdaLoraConfig", {"init_r": 4, "target_r": 2, "total_step": 9, "lora_alpha": 2, "target_modules": ["lin", "square"]}),
    "loha": ("LoHaConfig", {"r": 4, "alpha": 2}),
    "loha, Tucker": ("LoHaConfig", {"r": 4, "alpha": 2, "use_effective_conv2d": True}),
    "lokr": ("LoKrConfig", {"r": 1, "alpha": 2, "decompose_factor": 4}),
    "lokr, both decomposed": ("LoKrConfig", {"r": 1, "alpha": 2, "decompose_factor": 4, "decompose_both": True}),
    "lokr, Tucker": ("LoKrConfig", {"r": 1, "alpha": 2, "decompose_factor": 4, "use_effective_conv2d": True}),
    "lokr, both whole": ("LoKrConfig", {"r": 100, "alpha": 50, "decompose_factor": 4}),
    "oft": ("OFTConfig", {"oft_block_size": 4, "target_modules": ["lin", "square", "conv", "one"]}),
    "oft, three terms": ("OFTConfig", {"oft_block_size": 4, "num_cayley_neumann_terms": 3, "target_modules": ["lin"]}),
    "oft, exact": ("OFTConfig", {"oft_block_size": 4, "use_cayley_neumann": False, "target_modules": ["lin", "square", "conv", "one"]}),
    "oft, shared": ("OFTConfig", {"oft_block_size": 4, "use_cayley_neumann": False, "block_share": True, "target_modules": ["lin"]}),
    "boft": ("BOFTConfig", {"boft_block_size": 4, "target_modules": ["lin", "square", "conv", "square_conv"]}),
    "ia3 of outputs": ("IA3Config", {"feedforward_modules": [], "target_modules": list(LAYERS[:4])}),
    "ia3 of inputs": ("IA3Config", {"feedforward_modules": list(LAYERS[:4]), "target_modules": list(LAYERS[:4])}),
}


def net() -> torch.nn.Module:
    """Layers whose two widths differ, and such whose widths are alike, where a shape tells nothing."""
    torch.manual_seed(0)
    layers = {
        "lin": torch.nn.Linear(12, 16),
        "square": torch.nn.Linear(16, 16),
        "conv": torch.nn.Conv2d(8, 16, 3),
        "square_conv": torch.nn.Conv2d(8, 8, 3),
        "one": torch.nn.Conv2d(8, 16, 1),
        "words": torch.nn.Embedding(10, 8),
    }
    return torch.nn.ModuleDict(layers)


def trained(case: str, folder: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(the weights before, those that peft merges); the adapter lies in the folder as peft saves it."""
    import peft

    name, settings = CASES[case]
    base = net()
    before = {key: value.detach().clone() for key, value in base.state_dict().items()}
    wrapped = peft.get_peft_model(base, getattr(peft, name)(**{"target_modules": list(LAYERS), **settings}))
    with torch.no_grad():
        for seed, parameter in enumerate(wrapped.parameters()):
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed)))
    wrapped.save_pretrained(folder)
    return before, wrapped.merge_and_unload().state_dict()


def in_diffusers_form(folder: Path) -> Path:
    """The same adapter as diffusers saves one: settings in the header, names by component."""
    from safetensors.torch import load_file, save_file

    config = json.loads((folder / "adapter_config.json").read_text())
    tensors = {name.replace("base_model.model.", "unet."): value for name, value in load_file(folder / "adapter_model.safetensors").items()}
    path = folder / "pytorch_lora_weights.safetensors"
    save_file(tensors, path, metadata={"lora_adapter_metadata": json.dumps({f"unet.{key}": value for key, value in config.items()})})
    return path


@pytest.mark.parametrize("case", CASES)
def test_the_change_is_what_peft_merges(case: str, tmp_path: Path) -> None:
    before, merged = trained(case, tmp_path)
    for adapter in (read_adapter(tmp_path), read_adapter(in_diffusers_form(tmp_path))):
        assert adapter.modules and not adapter.left
        for module in adapter.modules:
            name = module.place[1]
            weight, bias = before[f"{name}.weight"], before.get(f"{name}.bias")
            assert misshape(module, tuple(weight.shape)) is None
            assert not merged[f"{name}.weight"].equal(weight)
            assert close(weight + delta(module, weight).reshape(weight.shape), merged[f"{name}.weight"]), name
            if bias is not None:
                change = bias_delta(module, bias)
                assert close(bias + (change if change is not None else 0), merged[f"{name}.bias"]), name


def close(found: Tensor, wanted: Tensor) -> bool:
    """fp32 sums of products of some ten factors below 1."""
    return torch.allclose(found, wanted, rtol=1e-5, atol=1e-6)


def only(adapter: Adapter) -> Any:
    (module,) = adapter.modules
    return module


UNREAD: dict[str, tuple[dict[str, Any], str]] = {
    "pissa_niter": ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights 'pissa_niter_4'.* Merge it with peft"),
    "kasa": ({"kasa_config": "KasaConfig"}, "trained as KaSA.* Merge it with peft"),
    "modules_to_save": ({"modules_to_save": ["one"]}, r"2 of its tensors .*one\.bias, .*one\.weight.* Merge it with peft"),
    "bias": ({"bias": "lora_only"}, r"has tensors that are not understood here: base_layer\.bias\. So is 1 more module"),
}


@pytest.mark.parametrize("case", UNREAD)
def test_what_would_be_read_in_part_is_refused_by_name(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from peft.tuners.lora.config import KasaConfig

    settings, reason = UNREAD[case]
    if "kasa_config" in settings:
        settings = {"kasa_config": KasaConfig()}
    monkeypatch.setitem(CASES, case, ("LoraConfig", {"r": 4, "target_modules": ["lin", "square"], **settings}))
    before, _ = trained(case, tmp_path / "saved")
    (fault,) = adapter_faults(read_adapter(tmp_path / "saved"))
    assert re.search(reason, fault)
    store, base = Store(tmp_path / "home"), tmp_path / "base.safetensors"
    save_file(before, base)
    with pytest.raises(Faults, match=reason):
        plan_fuse(str(base), [Weighted(str(tmp_path / "saved"))], store, tmp_path / "out.safetensors", coverage=0.0)
    with pytest.raises(Faults, match=reason):
        plan_combine([Weighted(str(tmp_path / "saved"))], store, tmp_path / "out.safetensors")


def test_methods_of_peft_that_are_not_read_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CASES, "vera", ("VeraConfig", {"r": 4, "target_modules": ["lin"]}))
    monkeypatch.setitem(CASES, "every bias", ("LoraConfig", {"r": 4, "bias": "all", "target_modules": ["lin"]}))
    trained("vera", tmp_path / "vera")
    with pytest.raises(BadFile, match="was written by peft's VERA; of peft's methods LORA, ADALORA"):
        read_adapter(tmp_path / "vera")
    trained("every bias", tmp_path / "biases")
    with pytest.raises(BadFile, match="was saved by peft with bias='all'"):
        read_adapter(tmp_path / "biases")


def test_adalora_divides_by_the_rank_it_began_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of its four singular values two are saved; peft loads them with the scale of all four."""
    import peft

    mask = {"lin.lora_E": [True, False, True, False]}
    settings = {"init_r": 4, "target_r": 2, "total_step": 9, "lora_alpha": 3, "target_modules": ["lin"], "rank_pattern": mask}
    monkeypatch.setitem(CASES, "cut", ("AdaLoraConfig", settings))
    before, _ = trained("cut", tmp_path)
    merged = peft.PeftModel.from_pretrained(net(), tmp_path).merge_and_unload().state_dict()
    module = only(read_adapter(tmp_path))
    assert module.rank == 2 and close(before["lin.weight"] + delta(module), merged["lin.weight"])


def test_adalora_without_its_config_is_refused(tmp_path: Path) -> None:
    trained("adalora", tmp_path)
    (tmp_path / "adapter_config.json").unlink()
    (fault,) = adapter_faults(read_adapter(tmp_path))
    assert "is AdaLoRA, and the adapter_config.json" in fault and "So is 1 more module" in fault


def test_oft_without_its_config_is_refused(tmp_path: Path) -> None:
    """Which transform it was trained with, and so its weights, stand nowhere else."""
    trained("oft, three terms", tmp_path)
    (tmp_path / "adapter_config.json").unlink()
    module = only(read_adapter(tmp_path))
    with pytest.raises(Refused, match=r"is peft's oft, and the adapter_config\.json"):
        delta(module, torch.zeros(16, 12))
    assert "adapter_config.json" in str(misshape(module, (16, 12)))


@pytest.mark.slow
def test_what_does_not_fit_is_seen_from_the_header(tmp_path: Path) -> None:
    for case in CASES:
        folder = tmp_path / case
        trained(case, folder)
        assert all(misshape(module, (22, 14)) for module in read_adapter(folder).modules), case


def test_a_folder_that_peft_saved_is_named_as_it_is(tmp_path: Path) -> None:
    """Its alpha lies in the config beside the weights, and must not be lost where nothing else is to be done."""
    trained("lora", tmp_path / "saved")
    store = Store(tmp_path / "home")
    done = run_combine(plan_combine([Weighted(str(tmp_path / "saved"))], store, tmp_path / "sum.safetensors"), store)
    wanted = {module.place: delta(module) for module in read_adapter(tmp_path / "saved").modules}
    found = {module.place: delta(module) for module in read_adapter(done.output).modules}
    assert found.keys() == wanted.keys() and all(close(found[place], change) for place, change in wanted.items())
    (tmp_path / "scratch").mkdir()
    assert reproduce("sum", store, tmp_path / "scratch").same
