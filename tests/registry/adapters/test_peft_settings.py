"""peft's config: values are checked where they are read, and names of modules are never run as regular expressions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from registry.adapters.peft_settings import declared_alpha, declared_rank, start_of, unread_of, warnings_of
from registry.adapters.reader import read_adapter
from registry.errors import BadFile

MODULE = "down_blocks.0.attn1.to_q"


def folder(path: Path, **config: Any) -> Path:
    """A peft folder of one module, with this config."""
    path.mkdir(exist_ok=True)
    name = f"base_model.model.{MODULE}"
    save_file({f"{name}.lora_A.weight": torch.ones(2, 6), f"{name}.lora_B.weight": torch.ones(8, 2)}, path / "adapter_model.safetensors")
    (path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 4, **config}))
    return path


@pytest.mark.parametrize(
    ("pattern", "alpha"),
    [
        ("to_q", 6.0),
        ("attn1.to_q", 6.0),
        ("attn1.to_q$", 6.0),
        (MODULE, 6.0),
        (r"^down_blocks\.0\.attn1\.to_q", 6.0),
        ("o_q", 4.0),  # not a whole part of the name
        ("^to_q", 4.0),
        ("attn2.to_q", 4.0),
    ],
)
def test_names_are_compared_as_names(pattern: str, alpha: float, tmp_path: Path) -> None:
    from peft.utils.other import get_pattern_key

    (module,) = read_adapter(folder(tmp_path / "x", alpha_pattern={pattern: 6})).modules
    assert module.alpha == alpha == (6.0 if get_pattern_key([pattern], MODULE) == pattern else 4.0)


@pytest.mark.parametrize("pattern", ["to_[qk]", ".*to_q", "to_q|to_k", "(to_q)", "to_q+", "", "to q"])
@pytest.mark.parametrize("field", ["alpha_pattern", "rank_pattern"])
def test_a_regular_expression_is_refused_and_not_run(field: str, pattern: str, tmp_path: Path) -> None:
    with pytest.raises(BadFile, match=rf"in {field} is a regular expression"):
        read_adapter(folder(tmp_path / "x", **{field: {pattern: 2}}))


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"lora_alpha": "4"}, 'lora_alpha is "4", where a number was expected'),
        ({"lora_alpha": float("nan")}, "lora_alpha is NaN, where a number"),
        ({"lora_alpha": 10**400}, "lora_alpha is 1000"),
        ({"r": 2.5}, "r is 2.5, where a whole number"),
        ({"use_rslora": "false"}, 'use_rslora is "false", where true or false'),
        ({"alpha_pattern": [1]}, r"alpha_pattern is \[1\], where module names"),
        ({"alpha_pattern": {"to_q": "x"}}, 'alpha_pattern of to_q is "x"'),
        ({"rank_pattern": {"to_q": -1}}, "rank_pattern of to_q is -1"),
        ({"num_cayley_neumann_terms": 10**9}, "num_cayley_neumann_terms is 1000000000, where a whole number from 1 to 64"),
        ({"init_lora_weights": {"a": 1}}, "init_lora_weights is"),
    ],
)
def test_values_that_a_config_cannot_have_are_refused(config: dict[str, Any], reason: str, tmp_path: Path) -> None:
    with pytest.raises(BadFile, match=reason):
        read_adapter(folder(tmp_path / "x", **config))


def test_every_component_of_a_header_is_checked(tmp_path: Path) -> None:
    """Two components have fields of one name."""
    settings = {"unet.r": 2, "unet.lora_alpha": "x", "text_encoder.r": 2, "text_encoder.lora_alpha": 4}
    name = f"unet.{MODULE}"
    tensors = {f"{name}.lora_A.weight": torch.ones(2, 6), f"{name}.lora_B.weight": torch.ones(8, 2)}
    save_file(tensors, tmp_path / "a.safetensors", metadata={"lora_adapter_metadata": json.dumps(settings)})
    with pytest.raises(BadFile, match='lora_alpha is "x", where a number was expected'):
        read_adapter(tmp_path / "a.safetensors")


def test_a_start_in_any_component_is_warned_of_once() -> None:
    plain = {"text_encoder.init_lora_weights": True, "text_encoder_2.init_lora_weights": "pissa", "unet.init_lora_weights": "pissa"}
    for packed in (plain, dict(reversed(plain.items()))):
        assert [code for code, _ in warnings_of(packed)] == ["starts-in-base"]


def test_all_faults_of_a_config_come_at_once(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match=r"r is null|r is \"x\".*lora_alpha is \[\].*; and 1 more"):
        read_adapter(folder(tmp_path / "x", r="x", lora_alpha=[], use_rslora=1, alpha=()))


def test_settings_decide_alpha_rank_and_start() -> None:
    settings = {"r": 4, "lora_alpha": 8, "alpha": 3, "rank_pattern": {"a": 2}, "alpha_pattern": {"b": 5}}
    assert (declared_alpha(settings, "lora", "x.a"), declared_alpha(settings, "lora", "x.b")) == (8.0, 5.0)
    assert (declared_alpha(settings, "loha", "x"), declared_alpha(settings, "oft", "x")) == (3.0, None)
    assert (declared_rank(settings, "x.a"), declared_rank(settings, "x.b")) == (2, 4)
    found = [start_of({"init_lora_weights": start}) for start in ("pissa", "olora", True, "gaussian", None)]
    assert found == [
        "pissa",
        "olora",
        "",
        "",
        "",
    ]


@pytest.mark.parametrize("start", ["pissa_niter_4", "loftq", "corda", "lora_ga", "of another year"])
def test_starts_that_cannot_be_computed_again_are_named(start: str) -> None:
    assert f"init_lora_weights {start!r}" in str(unread_of({"init_lora_weights": start}))


@pytest.mark.parametrize("start", [True, False, None, "gaussian", "eva", "orthogonal", "mica", "pissa", "olora"])
def test_starts_that_leave_the_base_or_follow_from_it_are_read(start: object) -> None:
    assert unread_of({"init_lora_weights": start}) is None
