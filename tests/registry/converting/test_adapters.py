"""Adapters between dialects: the same products, the same tensors back, the same bytes twice; what has no form is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from registry.adapters.inspect import diff_adapters
from registry.adapters.reader import read_adapter
from registry.converting.job import ConvertRequest, plan_convert, run_convert
from registry.detect.inspect import inspect
from registry.errors import Refused
from registry.families import FAMILIES
from registry.index import rows
from registry.store import Store
from tests import tiny, tiny_families

if TYPE_CHECKING:
    from torch import Tensor

NAMED = [name for name in (*tiny.FAMILIES_HERE, *tiny_families.NAMES) if name in FAMILIES and FAMILIES[name].adapter_names is not None]
Q = "transformer_blocks.0.attn.to_q"
SDXL_Q = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"


def convert(store: Store, source: Path, output: Path, to: str, **wish: Any) -> dict[str, Any]:
    """The result of a conversion."""
    return dict(run_convert(plan_convert(ConvertRequest(reference=str(source), output=output, target=to, **wish), store), store).result)


def metadata_of(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as file:
        return dict(file.metadata())


def plain(name: str) -> str:
    return name.replace("text_encoder.text_model.", "text_encoder.").replace("text_encoder_2.text_model.", "text_encoder_2.")


def written(path: Path, modules: dict[str, tuple[int, int]], metadata: dict[str, str] | None = None, *, rank: int = 2) -> Path:
    """A diffusers adapter over modules {name with its component: (in, out)}."""
    draw = torch.Generator().manual_seed(len(modules))
    tensors: dict[str, Tensor] = {}
    for module, (into, out) in modules.items():
        tensors[f"{module}.lora_A.weight"] = torch.randn(rank, into, generator=draw)
        tensors[f"{module}.lora_B.weight"] = torch.randn(out, rank, generator=draw)
    save_file(tensors, path, metadata=metadata)
    return path


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A LoRA of each family, made by diffusers and peft themselves, alpha half its rank, on the text encoders too."""
    folder = tmp_path_factory.mktemp("adapters")
    return {
        family: tiny.tiny_adapter(tiny.shared_folder(family), folder / f"{family}.safetensors", family=family, alpha=2, text_encoder=True)
        for family in NAMED
    }


@pytest.mark.slow
@pytest.mark.parametrize("family", NAMED)
def test_every_family_goes_to_kohya_and_back(family: str, adapters: dict[str, Path], store: Store, tmp_path: Path) -> None:
    there = convert(store, adapters[family], tmp_path / "kohya.safetensors", "kohya", family=family)
    assert all(name.startswith(("lora_unet_", "lora_te")) for name in load_file(there["file"]))
    assert inspect(there["file"]).family == family  # by its header, as any other tool's scan would
    back = convert(store, Path(there["file"]), tmp_path / "back.safetensors", "diffusers", family=family)
    mine, its = load_file(adapters[family]), load_file(back["file"])
    assert {plain(name) for name in mine} == {plain(name) for name in its}
    (mine, its) = ({plain(name): tensor for name, tensor in found.items()} for found in (mine, its))
    for down in (name for name in its if "lora_A" in name):  # alpha 2 of rank 4 is in one of both factors
        up = down.replace("lora_A", "lora_B")
        pairs = [(its[name], mine[name] * scale) for name, scale in ((down, 0.5), (up, 1.0), (down, 1.0), (up, 0.5))]
        assert all(torch.equal(*pair) for pair in pairs[:2]) or all(torch.equal(*pair) for pair in pairs[2:]), down
    again = convert(store, Path(there["file"]), tmp_path / "again.safetensors", "diffusers", family=family)
    assert back["content_sha256"] == again["content_sha256"]


@pytest.mark.slow
@pytest.mark.parametrize("family", NAMED)
def test_a_model_takes_both_forms_for_the_same_adapter(family: str, adapters: dict[str, Path], store: Store, tmp_path: Path) -> None:
    there = convert(store, adapters[family], tmp_path / "kohya.safetensors", "kohya", family=family)
    known, parts = tiny.tiny_parts(family)
    (one, facts), (other, its) = (known.lora_state(path, parts) for path in (adapters[family], Path(there["file"])))
    assert {plain(name) for name in one} <= {plain(name) for name in other}
    rest = [tensor for name, tensor in other.items() if name not in one and name.startswith(known.denoiser) and "lora_B" in name]
    assert not any(bool(tensor.any()) for tensor in rest)  # of modules that are fused with adapted ones: nothing is changed
    for module in {name.partition(".lora_")[0] for name in one if name.startswith(f"{known.denoiser}.")}:
        products = [
            state[f"{module}.lora_B.weight"] @ state[f"{module}.lora_A.weight"] * scale_of(found["metadata"], module, state)
            for state, found in ((one, facts), (other, its))
        ]
        assert torch.allclose(products[0], products[1], rtol=1e-6, atol=1e-7), module  # sums of the same numbers and zeros


def scale_of(settings: dict[str, Any], module: str, state: dict[str, Tensor]) -> float:
    component, _, name = module.partition(".")
    patterns = settings.get(f"{component}.alpha_pattern") or {}
    alpha = next(
        (value for pattern, value in patterns.items() if pattern.replace("\\", "") == f"^{name}"), settings[f"{component}.lora_alpha"]
    )
    return float(alpha) / len(state[f"{module}.lora_A.weight"])


def test_the_same_input_gives_the_same_bytes(adapters: dict[str, Path], store: Store, tmp_path: Path) -> None:
    for to in ("kohya", "peft", "diffusers"):
        settings = {"modelspec.architecture": "stable-diffusion-xl-v1-base/lora"}
        source = written(tmp_path / "one.safetensors", {f"unet.{SDXL_Q}": (640, 640)}, settings)
        for turn in "ab":
            convert(store, source, tmp_path / f"{to}-{turn}.safetensors", to, register=turn == "a")
        assert (tmp_path / f"{to}-a.safetensors").read_bytes() == (tmp_path / f"{to}-b.safetensors").read_bytes()


def test_sdxl_of_published_widths_gets_the_names_of_sd_scripts(store: Store, tmp_path: Path) -> None:
    source = written(tmp_path / "xl.safetensors", {f"unet.{SDXL_Q}": (640, 640), "text_encoder_2.encoder.layers.3.mlp.fc1": (8, 16)})
    result = convert(store, source, tmp_path / "kohya.safetensors", "kohya", family="sdxl")
    found = load_file(result["file"])
    assert set(found) == {
        f"{module}.{ending}"
        for module in ("lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q", "lora_te2_text_model_encoder_layers_3_mlp_fc1")
        for ending in ("lora_down.weight", "lora_up.weight", "alpha")
    }
    reported = metadata_of(Path(result["file"]))
    assert reported["ss_base_model_version"] == "sdxl_base_v1-0"  # A1111 takes a file without it for SD 1
    assert (reported["ss_network_module"], reported["ss_network_dim"], reported["ss_network_alpha"]) == ("networks.lora", "2", "2")
    assert store.find(result["file"]).family == "sdxl"
    back = convert(store, Path(result["file"]), tmp_path / "back.safetensors", "diffusers")
    assert set(load_file(back["file"])) == {name.replace("_2.encoder", "_2.text_model.encoder") for name in load_file(source)}


def test_other_builds_keep_the_names_of_diffusers(store: Store, tmp_path: Path) -> None:
    source = written(tmp_path / "xl.safetensors", {f"unet.{SDXL_Q}": (16, 16)})
    result = convert(store, source, tmp_path / "kohya.safetensors", "kohya", family="sdxl")
    assert f"lora_unet_{SDXL_Q.replace('.', '_')}.alpha" in load_file(result["file"])


def test_flux_is_fused_at_three_ranks_and_at_one_where_the_down_factor_is_shared(store: Store, tmp_path: Path) -> None:
    q, k, v = (f"transformer.transformer_blocks.0.attn.to_{part}" for part in "qkv")
    source = written(tmp_path / "flux.safetensors", dict.fromkeys((q, k, v), (8, 8)))
    result = convert(store, source, tmp_path / "three.safetensors", "kohya", family="flux1")
    fused = load_file(result["file"])
    assert result["fused"] == 1 and fused["lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight"].shape == (24, 6)
    assert float(fused["lora_unet_double_blocks_0_img_attn_qkv.alpha"]) == 6.0
    shared = load_file(source)
    shared |= {f"{module}.lora_A.weight": shared[f"{q}.lora_A.weight"].clone() for module in (k, v)}
    save_file(shared, source)
    result = convert(store, source, tmp_path / "one.safetensors", "kohya", family="flux1")
    fused = load_file(result["file"])
    assert fused["lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight"].shape == (24, 2)
    back = load_file(convert(store, Path(result["file"]), tmp_path / "back.safetensors", "diffusers", family="flux1")["file"])
    assert back.keys() == shared.keys() and all(torch.equal(back[name], shared[name]) for name in back)


def test_a_module_that_is_not_adapted_leaves_its_rows_alone(store: Store, tmp_path: Path) -> None:
    source = written(tmp_path / "flux.safetensors", {"transformer.single_transformer_blocks.3.attn.to_v": (8, 8)})
    fused = load_file(convert(store, source, tmp_path / "fused.safetensors", "kohya", family="flux1")["file"])
    up = fused["lora_unet_single_blocks_3_linear1.lora_up.weight"]
    assert up.shape == (8 + 8 + 8 + 32, 2)  # q, k, v and a first MLP layer of four inputs
    assert not up[:16].any() and up[16:24].all() and not up[24:].any()


def test_the_last_modulation_of_flux_has_its_halves_turned(store: Store, tmp_path: Path) -> None:
    source = written(tmp_path / "flux.safetensors", {"transformer.norm_out.linear": (8, 16)})
    result = convert(store, source, tmp_path / "turned.safetensors", "kohya", family="flux1")
    up, mine = load_file(result["file"])["lora_unet_final_layer_adaLN_modulation_1.lora_up.weight"], load_file(source)
    its = mine["transformer.norm_out.linear.lora_B.weight"]
    assert torch.equal(up, torch.cat([its[8:], its[:8]]))
    back = load_file(convert(store, Path(result["file"]), tmp_path / "back.safetensors", "diffusers", family="flux1")["file"])
    assert all(torch.equal(back[name], mine[name]) for name in mine)


def test_rank_and_alpha_of_every_module_are_kept(store: Store, tmp_path: Path) -> None:
    names = [f"lora_unet_down_blocks_0_attentions_{n}_transformer_blocks_0_attn2_to_k" for n in range(3)]
    tensors: dict[str, Tensor] = {}
    for n, (name, rank, alpha) in enumerate(zip(names, (2, 2, 5), (1.0, 2.0, 0.3), strict=True)):
        draw = torch.Generator().manual_seed(n)
        tensors |= {
            f"{name}.lora_down.weight": torch.randn(rank, 768, generator=draw),
            f"{name}.lora_up.weight": torch.randn(6, rank, generator=draw),
        }
        tensors[f"{name}.alpha"] = torch.tensor(alpha)
    source = tmp_path / "mixed.safetensors"
    save_file(tensors, source)
    there = convert(store, source, tmp_path / "diffusers.safetensors", "diffusers")
    settings = json.loads(metadata_of(Path(there["file"]))["lora_adapter_metadata"])
    assert settings["unet.r"] == 2 and list(settings["unet.rank_pattern"].values()) == [5]
    assert diff_adapters(read_adapter(source), read_adapter(there["file"])).same
    back = convert(store, Path(there["file"]), tmp_path / "back.safetensors", "kohya")
    found = load_file(back["file"])
    assert found.keys() == tensors.keys() and [float(found[f"{name}.alpha"]) for name in names] == [2.0, 2.0, 5.0]
    assert back["content_sha256"] == there["content_sha256"]
    assert diff_adapters(read_adapter(source), read_adapter(back["file"])).same


def test_peft_reads_its_folder(adapters: dict[str, Path], store: Store, tmp_path: Path) -> None:
    from peft import PeftModel

    unet_only = {name: tensor for name, tensor in load_file(adapters["sd1"]).items() if name.startswith("unet.")}
    source = tmp_path / "unet.safetensors"
    settings = {
        key: value for key, value in json.loads(metadata_of(adapters["sd1"])["lora_adapter_metadata"]).items() if key.startswith("unet.")
    }
    save_file(unet_only, source, metadata={"lora_adapter_metadata": json.dumps(settings)})
    result = convert(store, source, tmp_path / "peft", "peft", family="sd1")
    assert sorted(entry.name for entry in (tmp_path / "peft").iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    _, parts = tiny.tiny_parts("sd1")
    model = PeftModel.from_pretrained(parts.denoiser, tmp_path / "peft")
    layers = {name.removeprefix("base_model.model."): layer for name, layer in model.named_modules() if getattr(layer, "lora_A", None)}
    assert len(layers) == len(unet_only) // 2 == result["modules"]
    for name, layer in layers.items():
        up, down = unet_only[f"unet.{name}.lora_B.weight"], unet_only[f"unet.{name}.lora_A.weight"]
        assert torch.equal(layer.get_delta_weight("default"), up @ down * 0.5)  # alpha 2 of rank 4
    again = convert(store, tmp_path / "peft", tmp_path / "again.safetensors", "diffusers", family="sd1")
    found = load_file(again["file"])
    assert found.keys() == unet_only.keys()
    for name, layer in layers.items():
        up, down = found[f"unet.{name}.lora_B.weight"], found[f"unet.{name}.lora_A.weight"]
        assert torch.equal(layer.get_delta_weight("default"), up @ down)


def test_convolutions_and_magnitudes_change_their_shape_and_nothing_else(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "dora.safetensors"
    conv, linear = "unet.down_blocks.0.resnets.0.conv1", "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
    mine = {
        f"{conv}.lora_A.weight": torch.randn(2, 4, 3, 3),
        f"{conv}.lora_B.weight": torch.randn(6, 2, 1, 1),
        f"{conv}.lora_magnitude_vector": torch.rand(1, 6, 1, 1),
        f"{linear}.lora_A.weight": torch.randn(2, 768),
        f"{linear}.lora_B.weight": torch.randn(6, 2),
        f"{linear}.lora_magnitude_vector": torch.rand(6),
    }
    save_file(mine, source)
    there = convert(store, source, tmp_path / "kohya.safetensors", "kohya")
    found = load_file(there["file"])
    assert found["lora_unet_down_blocks_0_resnets_0_conv1.dora_scale"].shape == (6, 1, 1, 1)
    assert found["lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k.dora_scale"].shape == (6, 1)
    back = load_file(convert(store, Path(there["file"]), tmp_path / "back.safetensors", "diffusers")["file"])
    assert back.keys() == mine.keys() and all(torch.equal(back[name], mine[name]) for name in mine)


def test_rank_stabilised_scales_become_plain_alphas(store: Store, tmp_path: Path) -> None:
    module = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
    settings = json.dumps({"unet.r": 4, "unet.lora_alpha": 3, "unet.use_rslora": True})
    source = written(tmp_path / "rs.safetensors", {module: (768, 6)}, {"lora_adapter_metadata": settings}, rank=4)
    found = load_file(convert(store, source, tmp_path / "kohya.safetensors", "kohya")["file"])
    assert float(found["lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k.alpha"]) == 6.0  # 3 / sqrt(4) = 6 / 4


def lycoris(path: Path, name: str = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k") -> Path:
    tensors = {f"{name}.hada_w{side}_{part}": torch.rand(*shape) for side in "12" for part, shape in (("a", (6, 2)), ("b", (2, 768)))}
    save_file({**tensors, f"{name}.alpha": torch.tensor(1.0)}, path)
    return path


@pytest.mark.parametrize("to", ["diffusers", "peft"])
def test_loha_has_no_form_in_diffusers_and_the_way_out_is_reported(to: str, store: Store, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"LoHa.*lora resize"):
        convert(store, lycoris(tmp_path / "loha.safetensors"), tmp_path / "out.safetensors", to)
    assert not (tmp_path / "out.safetensors").exists()


def test_lycoris_keeps_its_tensors_under_kohyas_names(store: Store, tmp_path: Path) -> None:
    old = "lora_unet_input_blocks_1_1_transformer_blocks_0_attn2_to_k"
    source = lycoris(tmp_path / "loha.safetensors", old)
    found = load_file(convert(store, source, tmp_path / "out.safetensors", "kohya", family="sd1")["file"])
    new = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    assert {name.replace(new, old) for name in found} == set(load_file(source))
    assert all(torch.equal(found[name.replace(old, new)], tensor) for name, tensor in load_file(source).items())


def test_names_of_no_layer_are_refused_and_a_base_brings_them_back(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "odd.safetensors"
    flat = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_extra"
    save_file({f"{flat}.lora_down.weight": torch.ones(2, 16), f"{flat}.lora_up.weight": torch.ones(16, 2)}, source)
    with pytest.raises(Refused, match=r"1 of its 1 module has no layer.*attn1_to_extra.*--base"):
        convert(store, source, tmp_path / "out.safetensors", "diffusers", family="sd1")
    base = tiny.tiny_model("sd1", tmp_path / "base")
    (weights,) = (base / "unet").glob("*.safetensors")
    extra = "mid_block.attentions.0.transformer_blocks.0.attn1.to_extra"
    save_file({**load_file(weights), f"{extra}.weight": torch.ones(16, 16)}, weights)
    found = load_file(convert(store, source, tmp_path / "out.safetensors", "diffusers", family="sd1", base=str(base))["file"])
    assert set(found) == {f"unet.{extra}.lora_A.weight", f"unet.{extra}.lora_B.weight"}


def test_the_first_codes_numbers_are_those_of_the_base(store: Store, tmp_path: Path) -> None:
    base = tiny.tiny_model("sdxl", tmp_path / "base")  # one layer a level: input_blocks.3 is what has number 4 in the published model
    source = tmp_path / "odd.safetensors"
    flat = "lora_unet_input_blocks_3_1_transformer_blocks_0_attn1_to_q"
    save_file({f"{flat}.lora_down.weight": torch.ones(2, 16), f"{flat}.lora_up.weight": torch.ones(16, 2)}, source)
    found = load_file(convert(store, source, tmp_path / "out.safetensors", "diffusers", family="sdxl", base=str(base))["file"])
    assert set(found) == {f"unet.{SDXL_Q}.lora_A.weight", f"unet.{SDXL_Q}.lora_B.weight"}
    (tmp_path / "out.safetensors").unlink()
    lost = {name.replace("input_blocks_3", "input_blocks_7"): tensor for name, tensor in load_file(source).items()}
    save_file(lost, source)
    with pytest.raises(Refused, match="has no layer"):
        convert(store, source, tmp_path / "out.safetensors", "diffusers", family="sdxl", base=str(base))


def test_rounding_is_compared_and_overflow_is_refused(store: Store, tmp_path: Path) -> None:
    module = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
    source = written(tmp_path / "wide.safetensors", {module: (768, 6)})
    result = convert(store, source, tmp_path / "half.safetensors", "kohya", dtype="fp16")
    assert 0 < result["difference"] < 1e-3 and result["dtype"] == "F16"
    wide = load_file(source)
    save_file({name: tensor * (1e6 if "lora_B" in name else 1) for name, tensor in wide.items()}, source)
    with pytest.raises(Exception, match=r"attn2_to_k\.lora_up.*fp32"):
        convert(store, source, tmp_path / "out.safetensors", "kohya", dtype="fp16")
    assert not [entry for entry in tmp_path.iterdir() if entry.name.startswith((".tmp-", "out"))]


def test_a_result_that_differs_is_not_kept(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from registry.adapters import writer
    from registry.errors import JobFailed
    from registry.formats.atomic_file import write_safetensors as real

    def damaged(path: Path, tensors: dict[str, Tensor], *, metadata: dict[str, str]) -> Any:
        return real(path, {name: -tensor if "lora_up" in name else tensor for name, tensor in tensors.items()}, metadata=metadata)

    monkeypatch.setattr(writer, "write_safetensors", damaged)
    source = written(tmp_path / "one.safetensors", {"unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k": (768, 6)})
    with pytest.raises(JobFailed, match="has another product"):
        convert(store, source, tmp_path / "out.safetensors", "kohya")
    assert sorted(entry.name for entry in tmp_path.iterdir() if entry.suffix) == ["one.safetensors"]


def test_the_result_is_registered_with_its_source(store: Store, tmp_path: Path) -> None:
    source = written(tmp_path / "ink.safetensors", {"unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k": (768, 6)})
    record = store.add(source, parents=[{"role": "base", "ref": "pocket", "sha256": None}], licence="cc0-1.0", triggers=["inkstyle"])
    with store._index.writing() as connection:
        rows.put_labels(connection, record.id, "trigger", [" "])  # as an older index may have, where it is refused now
    result = convert(store, source, tmp_path / "there" / "ink.safetensors", "kohya")
    made = store.find(result["name"])
    assert (result["name"], made.family, made.dialect, made.licence, made.triggers) == (
        "ink-kohya",
        "sd1",
        "kohya",
        "cc0-1.0",
        ("inkstyle",),
    )
    assert [(parent["role"], parent["ref"]) for parent in made.parents] == [("base", "pocket"), ("source", "ink")]
    assert made.parents[1]["sha256"] == store.sha256(record)


def test_pefts_own_algorithms_keep_their_alpha_elsewhere_and_are_refused(store: Store, tmp_path: Path) -> None:
    name = "base_model.model.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
    with pytest.raises(Refused, match=r"LoHa as peft lays it out.*lora resize"):
        convert(store, lycoris(tmp_path / "loha.safetensors", name), tmp_path / "out.safetensors", "kohya", family="sd1")


def test_what_began_as_a_part_of_the_base_is_refused_with_the_way_out(store: Store, tmp_path: Path) -> None:
    name = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    settings = {"unet.r": 2, "unet.lora_alpha": 4, "unet.init_lora_weights": "pissa"}
    tensors = {f"{name}.lora_A.weight": torch.ones(2, 6), f"{name}.lora_B.weight": torch.ones(8, 2)}
    save_file(tensors, tmp_path / "a.safetensors", metadata={"lora_adapter_metadata": json.dumps(settings)})
    with pytest.raises(Refused, match=r"trained by PiSSA: 1 module began as a part of the base.*lora fuse, lora extract"):
        convert(store, tmp_path / "a.safetensors", tmp_path / "b.safetensors", "kohya", family="sd1")


def test_adalora_becomes_a_lora_with_its_singular_values(store: Store, tmp_path: Path) -> None:
    from registry.adapters.delta import delta

    name = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    up, down, singular = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[2.0], [0.5]])
    tensors = {f"{name}.lora_A": down, f"{name}.lora_B": up, f"{name}.lora_E": singular}
    settings = {"unet.init_r": 4, "unet.lora_alpha": 4}  # it began with rank 4
    save_file(tensors, tmp_path / "a.safetensors", metadata={"lora_adapter_metadata": json.dumps(settings)})
    found = convert(store, tmp_path / "a.safetensors", tmp_path / "b.safetensors", "kohya", family="sd1")
    (module,) = read_adapter(found["file"]).modules
    assert torch.allclose(delta(module), torch.tensor([[2.0, 1.0], [6.0, 2.0]]), rtol=1e-5)  # B diag(E) A x 4 / (4 + 1e-5)


def test_the_family_is_asked_for_and_typing_errors_are_answered(store: Store, tmp_path: Path) -> None:
    source = written(tmp_path / "odd.safetensors", {"unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q": (16, 16)})
    with pytest.raises(Refused, match=r"may be for .* or .*--family"):
        convert(store, source, tmp_path / "out.safetensors", "kohya")
    with pytest.raises(Refused, match="Did you mean 'sdxl'"):
        convert(store, source, tmp_path / "out.safetensors", "kohya", family="sdlx")
    with pytest.raises(Refused, match="recognised but not converted"):
        convert(store, source, tmp_path / "out.safetensors", "kohya", family="auraflow")
