"""Plans from headers: coverage, blocks, rules, every fault reported at once, before a byte is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from registry.errors import Faults
from registry.formats.atomic_file import write_safetensors
from registry.merging.blocks import PRESETS, block_names, block_weights, blocks_in_order
from registry.merging.plan import MergePlan, plan_merge
from registry.store import Store
from registry.tensors.layout import read_layout
from tests.registry.merging.models import NAMES, POSITIONS, UNET, read, recipe, tensors, written


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home")


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return written(tmp_path / "a.safetensors", tensors(1)), written(tmp_path / "b.safetensors", tensors(2))


def alphas(plan: MergePlan) -> dict[str, float]:
    """Key -> alpha, of the merged ones; names without the UNet's prefix."""
    return {name.removeprefix(f"{UNET}."): key.options["alpha"] for name, key in plan.keys.keys.items() if key.merged}


def faults_of(*sources: Path | str, store: Store, output: Path, **settings: object) -> str:
    with pytest.raises(Faults) as refused:
        plan_merge(recipe(*sources, **settings), store, output)  # type: ignore[arg-type]
    return str(refused.value)


# --- blocks


def test_a_unet_has_the_25_blocks_of_merge_block_weighted(pair: tuple[Path, Path]) -> None:
    found = block_names(read_layout(pair[0]))
    order = blocks_in_order(found.values())
    assert order == [f"IN{n:02d}" for n in range(12)] + ["M00"] + [f"OUT{n:02d}" for n in range(12)]
    assert found[f"{UNET}.time_embed.0.weight"] == "IN00" and found[f"{UNET}.out.2.weight"] == "OUT11"
    assert NAMES[-1] not in found and POSITIONS not in found


def test_diffusers_names_lie_in_the_same_blocks(tmp_path: Path) -> None:
    names = [
        "conv_in.weight",
        "time_embedding.linear_1.weight",
        "down_blocks.0.resnets.0.conv1.weight",
        "down_blocks.0.resnets.1.conv1.weight",
        "down_blocks.0.attentions.0.proj_in.weight",
        "down_blocks.0.downsamplers.0.conv.weight",
        "down_blocks.1.resnets.0.conv1.weight",
        "mid_block.resnets.0.conv1.weight",
        "up_blocks.0.resnets.0.conv1.weight",
        "up_blocks.1.resnets.2.conv1.weight",
        "conv_out.weight",
    ]
    found = block_names(read_layout(written(tmp_path / "unet.safetensors", {name: torch.zeros(2) for name in names})))
    assert [found[name] for name in names] == ["IN00", "IN00", "IN01", "IN02", "IN01", "IN03", "IN04", "M00", "OUT00", "OUT05", "OUT05"]


def test_a_transformer_has_a_block_a_layer_in_the_order_of_depth(tmp_path: Path) -> None:
    names = ["double_blocks.0.img_attn.qkv.weight", "single_blocks.1.linear1.weight", "double_blocks.1.img_mod.lin.weight", "img_in.weight"]
    found = block_names(read_layout(written(tmp_path / "flux.safetensors", {name: torch.zeros(2) for name in names})))
    assert blocks_in_order(found.values()) == ["double_blocks.0", "double_blocks.1", "single_blocks.1"] and "img_in.weight" not in found


@pytest.mark.parametrize(
    "names",
    [
        ("down_blocks.0.attentions.0.proj_in.weight", "mid_block.resnets.0.conv1.weight"),
        ("down_blocks.first.weight", "up_blocks.0.weight"),
        ("down_blocks.0.resnets.first.weight", "down_blocks.0.resnets..weight"),
    ],
)
def test_names_that_number_no_block_have_none(names: tuple[str, ...], tmp_path: Path) -> None:
    path = written(tmp_path / "a.safetensors", {f"{name}": torch.zeros(2, 2) for name in names})
    assert block_names(read_layout(path)) == {}


def test_a_file_without_tensors_is_no_source(pair: tuple[Path, Path], store: Store, tmp_path: Path) -> None:
    empty = written(tmp_path / "empty.safetensors", {})
    assert (
        "source 2:" in (faults := faults_of(pair[0], empty, store=store, output=tmp_path / "out.safetensors"))
        and "holds no tensors" in faults
    )


def test_presets_give_the_published_numbers_on_25_blocks() -> None:
    blocks = [f"B{n}" for n in range(25)]

    def weights(name: str) -> list[float]:
        found = block_weights(name, blocks)
        assert not isinstance(found, str)
        return [round(found[block], 10) for block in blocks]

    down = [round(1 - n / 12, 10) for n in range(13)]  # 1, 0.9166666667, ..., 0
    assert weights("GRAD_V") == down + down[-2::-1]
    assert weights("grad_a") == [round(1 - value, 10) for value in weights("grad_v")]
    assert weights("wrap08") == [1.0] * 4 + [0.0] * 17 + [1.0] * 4
    assert weights("out07") == [0.0] * 18 + [1.0] * 7
    assert weights("cosine")[0] == 1.0 and weights("cosine")[12] == pytest.approx(0.5) and weights("cosine")[24] == 0.0
    assert all(0.0 <= value <= 1.0 for name in PRESETS for value in weights(name))


def test_weights_go_to_the_blocks_and_params_to_the_rest(pair: tuple[Path, Path], store: Store, tmp_path: Path) -> None:
    found = alphas(plan_merge(recipe(*pair, weights="grad_v", params={"alpha": 0.25}), store, tmp_path / "out.safetensors"))
    assert found["input_blocks.0.0.weight"] == 1.0 and found["middle_block.0.weight"] == 0.0
    assert found["first_stage_model.decoder.conv_in.weight"] == 0.25
    listed = alphas(plan_merge(recipe(*pair, weights=[n / 100 for n in range(25)]), store, tmp_path / "out.safetensors"))
    assert listed["output_blocks.11.0.weight"] == 0.24 and listed["first_stage_model.decoder.conv_in.weight"] == 0.5
    gradient = alphas(plan_merge(recipe(*pair, weights={"gradient": [0, 1, 0.5]}), store, tmp_path / "out.safetensors"))
    assert [gradient[f"{name}.0.weight"] for name in ("input_blocks.6", "middle_block", "output_blocks.5")] == [0.5, 1.0, 0.75]


# --- rules


def test_the_first_rule_that_matches_decides(pair: tuple[Path, Path], store: Store, tmp_path: Path) -> None:
    rules = [{"match": r"input_blocks\.3\.", "alpha": 0.9}, {"match": "input_blocks", "alpha": 0.1}, {"match": "first_stage", "take": 2}]
    plan = plan_merge(recipe(*pair, rules=rules), store, tmp_path / "out.safetensors")
    found = alphas(plan)
    assert found["input_blocks.3.0.weight"] == 0.9 and found["input_blocks.4.0.weight"] == 0.1 and found["out.2.weight"] == 0.5
    taken = plan.keys.keys["first_stage_model.decoder.conv_in.weight"]
    assert taken.copied == "rule" and taken.sources[0].file == pair[1]


def test_rules_that_match_nothing_or_are_shadowed_are_faults(pair: tuple[Path, Path], store: Store, tmp_path: Path) -> None:
    rules = [{"match": "blocks", "alpha": 0.9}, {"match": "input_blocks", "alpha": 0.1}, {"match": "zzz", "drop": True}]
    reported = faults_of(*pair, store=store, output=tmp_path / "out.safetensors", rules=rules)
    assert "rule 2 (input_blocks) is shadowed: all 12 keys" in reported and "rule 3 (zzz) matches no key" in reported


def test_components_outside_are_copied(pair: tuple[Path, Path], store: Store, tmp_path: Path) -> None:
    plan = plan_merge(recipe(*pair, components=["text_encoder"]), store, tmp_path / "out.safetensors")
    assert plan.keys.counts() == {"merged": 1, "copied": len(NAMES), "skipped": 0}
    reported = faults_of(*pair, store=store, output=tmp_path / "out.safetensors", components=["unett"])
    assert "the first source has no unett; it has text_encoder, vae, denoiser" in reported


# --- faults


def test_everything_that_is_wrong_is_reported_at_once(pair: tuple[Path, Path], store: Store, tmp_path: Path) -> None:
    values = tensors(3)
    values["extra"] = torch.zeros(1)
    del values[NAMES[0]]
    values[NAMES[1]] = torch.zeros(2, 2)
    other = written(tmp_path / "c.safetensors", values)
    reported = faults_of(
        pair[0], other, store=store, output=pair[0], params={"alpa": 1}, rules=[{"match": "zzz", "take": 2}], weights="gradv", dtype="fp16"
    )
    for words in (
        "weighted_sum has no option 'alpa'. Did you mean 'alpha'?",
        "exists already",
        "lacks 1 of the first source's 30 keys",
        "has 1 key that the first source has not: extra",
        "has different shapes: [3, 4] and [2, 2]",
        "weights=gradv: unknown block preset. Did you mean 'grad_v'",
        "rule 1 (zzz) matches no key",
    ):
        assert words in reported


def test_of_many_tensors_of_other_shapes_some_are_named_and_the_rest_is_counted(
    pair: tuple[Path, Path], store: Store, tmp_path: Path
) -> None:
    other = written(tmp_path / "c.safetensors", {name: torch.zeros(2, 2) for name in NAMES})
    reported = faults_of(pair[0], other, store=store, output=tmp_path / "out.safetensors")
    assert reported.count("has different shapes") == 3 and f"{len(NAMES) - 3} more tensors have such faults" in reported


def test_missing_first_copies_its_own_keys_and_leaves_out_the_others(pair: tuple[Path, Path], store: Store, tmp_path: Path) -> None:
    values = tensors(3) | {"model_ema.decay": torch.zeros(1)}
    del values[NAMES[0]]
    other = written(tmp_path / "c.safetensors", values)
    plan = plan_merge(recipe(pair[0], other, missing="first"), store, tmp_path / "out.safetensors")
    assert plan.keys.counts() == {"merged": len(NAMES) - 1, "copied": 2, "skipped": 1}
    assert plan.keys.keys[NAMES[0]].copied == "only the first source has it" and len(plan.notes) == 3


def test_a_marker_that_one_source_lacks_is_seen(pair: tuple[Path, Path], store: Store, tmp_path: Path) -> None:
    """The guard of v-prediction: an intersection of keys would drop the marker, and the images would be noise."""
    marked = written(tmp_path / "v.safetensors", tensors(3) | {"v_pred": torch.empty(0)})
    for sources in ((pair[0], marked), (marked, pair[0])):
        plan = plan_merge(recipe(*sources), store, tmp_path / "out.safetensors")
        assert plan.keys.keys["v_pred"].sources[0].file == marked
        assert any("v_pred" in note and "copied from" in note for note in plan.notes)


def adapter(path: Path) -> Path:
    factors = {"lora_down.weight": torch.ones(2, 4), "lora_up.weight": torch.ones(4, 2), "alpha": torch.tensor(2.0)}
    return written(path, {f"lora_unet_mid_block_attentions_0_proj_in.{role}": tensor for role, tensor in factors.items()})


def test_strangers_are_reported_apart(pair: tuple[Path, Path], store: Store, tmp_path: Path) -> None:
    lora, cut, page = adapter(tmp_path / "lora.safetensors"), tmp_path / "cut.safetensors", tmp_path / "page.safetensors"
    cut.write_bytes(pair[0].read_bytes()[:-10])
    page.write_text("<html>please log in</html>" * 4)
    reported = faults_of(pair[0], lora, cut, page, "nothing.safetensors", store=store, output=tmp_path / "out.bin", method="average")
    assert "source 2" in reported and "is an adapter, not a checkpoint" in reported and "lora combine" in reported
    assert "source 3" in reported and "its data should have" in reported and "Fetch it again" in reported
    assert "source 4" in reported and "is a web page" in reported
    assert "source 5: There is no file or folder 'nothing.safetensors'" in reported


def test_quantised_weights_are_refused(pair: tuple[Path, Path], store: Store, tmp_path: Path) -> None:
    scaled = written(tmp_path / "fp8.safetensors", tensors(1) | {f"{UNET}.out.2.scale_weight": torch.ones(1)})
    assert "is quantised" in faults_of(pair[0], scaled, store=store, output=tmp_path / "out.safetensors")


def test_families_and_predictions_must_agree(store: Store, tmp_path: Path) -> None:
    paths = [written(tmp_path / f"{n}.safetensors", tensors(n)) for n in (1, 2)]
    for path, family in zip(paths, ("sd1", "sdxl"), strict=True):
        store.add(path, kind="checkpoint", family=family)
    assert "1 is sd1, 2 is sdxl" in faults_of(*paths, store=store, output=tmp_path / "out.safetensors")


def test_licences_are_joined_and_unknown_ones_reported(store: Store, tmp_path: Path) -> None:
    paths = [written(tmp_path / f"{n}.safetensors", tensors(n)) for n in (1, 2, 3)]
    for path, licence in zip(paths, ("openrail", "CC-BY-NC-4.0", None), strict=True):
        store.add(path, licence=licence)
    both = plan_merge(recipe(*paths[:2]), store, tmp_path / "out.safetensors")
    assert both.terms.licence == "CC-BY-NC-4.0" and any("forbids commercial use" in note for note in both.notes)
    three = plan_merge(recipe(*paths, method="average"), store, tmp_path / "out.safetensors")
    assert three.terms.licence == "CC-BY-NC-4.0" and any("licence of 3 is not known" in note for note in three.notes)


def test_memory_too_small_for_the_sources_is_reported(store: Store, tmp_path: Path) -> None:
    paths = [written(tmp_path / f"{n}.safetensors", tensors(n)) for n in range(8)]
    with pytest.raises(Faults, match=r"memory_mib=32 is too little for 8 sources: at least \d+"):
        plan_merge(recipe(*paths, method="average"), store, tmp_path / "out.safetensors", memory_mib=32)


def test_a_plan_has_numbers_and_reads_no_tensor(pair: tuple[Path, Path], store: Store, tmp_path: Path) -> None:
    plain = plan_merge(recipe(*pair, dtype="fp16"), store, tmp_path / "out.safetensors").to_json()
    assert plain["keys"] == {"merged": 29, "copied": 1, "skipped": 0}
    assert plain["bytes"] == 29 * 12 * 2 + 5 * 8 and plain["bytes_read"] == 2 * 29 * 12 * 4 + 5 * 8
    assert plain["sources"][0]["sha256"] is None  # a plan is made from headers alone


# --- folders


def folder(path: Path, seed: int) -> Path:
    """A diffusers folder as far as merging looks: a component in two shards, one in one file, configs."""
    (path / "unet").mkdir(parents=True)
    (path / "vae").mkdir()
    (path / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    for name in ("unet", "vae"):
        (path / name / "config.json").write_text(f'{{"name": "{name}"}}')
    generator = torch.Generator().manual_seed(seed)
    for shard in (1, 2):
        values = {f"conv_{shard}{n}.weight": torch.randn(400, 300, generator=generator) for n in range(2)}
        write_safetensors(path / "unet" / f"diffusion_pytorch_model-0000{shard}-of-00002.safetensors", values, metadata={"format": "pt"})
    name = "diffusion_pytorch_model-0000{}-of-00002.safetensors"
    places = {f"conv_{number}{n}.weight": name.format(number) for number in (1, 2) for n in range(2)}
    (path / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    values = {"decoder.weight": torch.randn(3, 4, generator=generator)}
    write_safetensors(path / "vae" / "diffusion_pytorch_model.safetensors", values, metadata={"format": "pt"})
    return path


def test_folders_of_shards_are_merged_into_one_like_the_first(store: Store, tmp_path: Path) -> None:
    import json

    from registry.merging.job import merge
    from registry.merging.reproduce import reproduce

    a, b = folder(tmp_path / "a", 1), folder(tmp_path / "b", 2)
    done = merge(recipe(a, b, params={"alpha": 0.25}), store, tmp_path / "mix")
    assert sorted(path.relative_to(done.output).as_posix() for path in done.output.rglob("*") if path.is_file()) == sorted(
        path.relative_to(a).as_posix() for path in a.rglob("*") if path.is_file()
    )
    actual, first, second = (read_layout(path) for path in (done.output, a, b))
    assert (
        set(actual.tensors)
        == set(first.tensors)
        == {"unet/conv_10.weight", "unet/conv_11.weight", "unet/conv_20.weight", "unet/conv_21.weight"} | {"vae/decoder.weight"}
    )
    values = [tensor_of(layout.tensors["unet/conv_20.weight"].file, "conv_20.weight") for layout in (actual, first, second)]
    assert values[0].equal(values[1].lerp(values[2], 0.25))
    index = json.loads((done.output / "unet" / "diffusion_pytorch_model.safetensors.index.json").read_text())
    assert index["weight_map"]["conv_20.weight"] == "diffusion_pytorch_model-00002-of-00002.safetensors"
    assert index["metadata"]["total_size"] == 4 * 400 * 300 * 4
    assert done.result["sha256"] == store.sha256(store.find("mix")) and reproduce("mix", store, tmp_path / "scratch").same


def test_shards_are_joined_and_split(store: Store, tmp_path: Path) -> None:
    from registry.merging.job import merge

    a = folder(tmp_path / "a", 1)
    joined = merge(recipe(a, method="average", shard_mib=0), store, tmp_path / "joined").output
    assert [path.name for path in sorted((joined / "unet").iterdir())] == ["config.json", "diffusion_pytorch_model.safetensors"]
    split = merge(recipe(joined, method="average", shard_mib=1), store, tmp_path / "split").output
    assert len(list((split / "unet").glob("*-of-00002.safetensors"))) == 2
    for key, stored in read_layout(a).tensors.items():
        again, name = read_layout(split).tensors[key], key.partition("/")[2]
        assert tensor_of(stored.file, name).equal(tensor_of(again.file, name))


def test_a_single_file_is_split_and_shards_are_joined_to_one(store: Store, tmp_path: Path) -> None:
    from registry.merging.job import merge
    from registry.merging.reproduce import reproduce

    values = {f"model.diffusion_model.{n}.weight": torch.randn(400, 300, generator=torch.Generator().manual_seed(n)) for n in range(4)}
    whole = written(tmp_path / "whole.safetensors", values)
    reported = faults_of(whole, method="copy", shard_mib=1, store=store, output=tmp_path / "out.safetensors")
    assert "must be a folder's name without .safetensors, as it gets shards" in reported
    reported = faults_of(whole, method="copy", shard_mib=1, store=store, output=tmp_path / "out.ckpt")
    assert "must be a folder's name without .ckpt, as it gets shards" in reported
    shards = merge(recipe(whole, method="copy", shard_mib=1), store, tmp_path / "shards").output
    assert sorted(path.name for path in shards.iterdir()) == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    ]
    again = merge(recipe(shards, method="copy"), store, tmp_path / "again.safetensors").output
    assert read(again).keys() == values.keys() and all(tensor.equal(values[name]) for name, tensor in read(again).items())
    (tmp_path / "scratch").mkdir()
    assert reproduce("shards", store, tmp_path / "scratch").same and reproduce("again", store, tmp_path / "scratch").same


def test_the_plan_tells_each_source_its_rules_and_its_blocks(pair: tuple[Path, Path], store: Store, tmp_path: Path) -> None:
    written(tmp_path / "half.safetensors", {name: value.half() for name, value in tensors(3).items() if "middle_block" not in name})
    rules = [{"match": "first_stage_model", "take": 2}, {"match": "final_layer_norm", "alpha": 0.9}]
    settings: dict[str, Any] = {"missing": "first", "weights": "grad_v", "rules": rules}
    plan = plan_merge(recipe(pair[0], tmp_path / "half.safetensors", **settings), store, tmp_path / "out.safetensors")
    plain = plan.to_json()
    assert [source["keys"] for source in plain["sources"]] == [30, 29] and plain["sources"][1]["missing"] == [
        f"{UNET}.middle_block.0.weight"
    ]
    assert [rule["keys"] for rule in plain["rules"]] == [1, 1] and plain["weights"]["IN00"] == 1.0 and len(plain["weights"]) == 25
    assert plain["copied"] == {"rule": 1, "integer": 1, "only the first source has it": 1}
    text = plan.to_text()
    assert "rule 2 (final_layer_norm): 1 key" in text and "alpha by block: IN00 1, " in text
    assert "source 2 is F16, the first F32: the result is F32" in text
    assert "\n  params: alpha=0.5\n" in text  # what nobody gave


def tensor_of(path: Path, name: str) -> torch.Tensor:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        tensor: torch.Tensor = file.get_tensor(name)
        return tensor


def test_a_file_of_other_names_than_the_folders_is_reported(pair: tuple[Path, Path], store: Store, tmp_path: Path) -> None:
    reported = faults_of(folder(tmp_path / "folder", 1), pair[0], store=store, output=tmp_path / "out")
    assert (
        "source 2 (a.safetensors) lacks 5 of the first source's 5 keys" in reported
        and "keys that the first source has not: cond_stage" in reported
    )


def test_a_component_in_another_format_is_not_left_out_in_silence(store: Store, tmp_path: Path) -> None:
    a, b = folder(tmp_path / "a", 1), folder(tmp_path / "b", 2)
    (b / "text_encoder").mkdir()
    (b / "text_encoder" / "pytorch_model.bin").write_bytes(b"PK")
    assert "are not safetensors (text_encoder/pytorch_model.bin)" in faults_of(a, b, store=store, output=tmp_path / "out")
