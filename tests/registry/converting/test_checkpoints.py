"""Checkpoints between one file and a folder: the same bytes under both codes' names, the same images, dtypes that hold their numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from registry.converting.job import ConvertRequest, plan_convert, run_convert
from registry.detect.inspect import inspect
from registry.errors import Faults, JobFailed, Refused
from registry.families import FAMILIES
from registry.store import Store
from tests import tiny, tiny_families

if TYPE_CHECKING:
    from torch import Tensor


def convert(store: Store, source: Path, output: Path, to: str, **wish: Any) -> dict[str, Any]:
    return dict(run_convert(plan_convert(ConvertRequest(reference=str(source), output=output, target=to, **wish), store), store).result)


def metadata_of(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as file:
        return dict(file.metadata())


def folder_tensors(folder: Path) -> dict[str, Tensor]:
    """Every weight of a diffusers folder, CLIP's names without the outer one that newer classes dropped."""
    found: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*/*.safetensors")):
        names = load_file(file).items()
        found |= {f"{file.parent.name}/{name.removeprefix('text_model.')}": tensor for name, tensor in names}
    return found


def alike(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(one[name].dtype == other[name].dtype and torch.equal(one[name], other[name]) for name in one)


def there_and_back(store: Store, family: str, source: Path, folder: Path, *, base: str | None) -> Path:
    """The folder as one file, that as a folder, and that as one file again: the same tensors every time."""
    there = convert(store, source, folder / "one.safetensors", "single-file")
    expected = load_file(tiny.tiny_single_file(source, folder / "by_hand.safetensors", family=family))
    expected.pop("cond_stage_model.transformer.text_model.embeddings.position_ids", None)  # a buffer that no loader needs
    assert alike(load_file(there["file"]), expected)
    reported = metadata_of(Path(there["file"]))
    assert reported["modelspec.architecture"] == FAMILIES[family].architecture and reported["modelspec.prediction_type"] == "epsilon"
    assert store.find(there["name"]).family == family
    back = convert(store, Path(there["file"]), folder / "back", "folder", base=base)
    assert alike(folder_tensors(folder / "back"), folder_tensors(source))
    assert store.find(back["name"]).parents[-1]["sha256"] == there["sha256"]
    again = convert(store, folder / "back", folder / "again.safetensors", "single-file")
    assert again["tensors_sha256"] == there["tensors_sha256"]
    return folder / "back"


@pytest.mark.slow
@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_a_folder_becomes_one_file_and_a_folder_again(family: str, store: Store, tmp_path: Path) -> None:
    source = tiny.tiny_model(family, tmp_path / "source")
    back = there_and_back(store, family, source, tmp_path, base=str(source))
    assert alike(folder_tensors(back), folder_tensors(source))


@pytest.mark.slow
@pytest.mark.parametrize("family", [name for name in tiny_families.NAMES if name in FAMILIES])
def test_every_family_goes_there_and_back(family: str, store: Store, tmp_path: Path) -> None:
    source = tiny.shared_folder(family)
    there = convert(store, source, tmp_path / "one.safetensors", "single-file", family=family, register=False)
    assert inspect(there["file"]).family == family
    convert(store, Path(there["file"]), tmp_path / "back", "folder", family=family, base=str(source), register=False)
    assert alike(folder_tensors(tmp_path / "back"), folder_tensors(source))


@pytest.mark.slow
@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_the_way_back_needs_nothing_else_and_draws_the_same(family: str, store: Store, tmp_path: Path) -> None:
    """`standard` builds have CLIP's own table of tokens, the only one that is carried."""
    source = tiny.tiny_model(family, tmp_path / "source", standard=True)
    back = there_and_back(store, family, source, tmp_path, base=None)
    assert images(back, family) == images(source, family)


def images(folder: Path, family: str) -> bytes:
    """What the stock pipeline of a folder draws."""
    import diffusers

    pipeline = getattr(diffusers, FAMILIES[family].pipeline).from_pretrained(folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    image = pipeline("a cat", num_inference_steps=2, height=tiny.SIZE, width=tiny.SIZE, generator=torch.Generator().manual_seed(0)).images[
        0
    ]
    return bytes(image.tobytes())


@pytest.mark.slow
def test_flux_takes_what_its_file_lacks_from_the_base(store: Store, tmp_path: Path) -> None:
    source = tiny.shared_folder("flux1")
    there = convert(store, source, tmp_path / "flux.safetensors", "single-file")
    by_hand = load_file(tiny.tiny_single_file(source, tmp_path / "by_hand.safetensors", family="flux1"))
    assert alike(load_file(there["file"]), by_hand)
    assert any("not in the file" in note and "vae (" in note for note in there["notes"])
    with pytest.raises(Refused, match="--base"):
        convert(store, Path(there["file"]), tmp_path / "back", "folder", family="flux1")
    convert(store, Path(there["file"]), tmp_path / "back", "folder", family="flux1", base=str(source))
    assert alike(folder_tensors(tmp_path / "back"), folder_tensors(source))
    assert (tmp_path / "back" / "model_index.json").read_bytes() == (source / "model_index.json").read_bytes()


def test_what_a_model_predicts_is_marked_in_its_file(store: Store, tmp_path: Path) -> None:
    source = tiny.tiny_model("sd1", tmp_path / "source", prediction="v_prediction")
    there = convert(store, source, tmp_path / "v.safetensors", "single-file")
    assert load_file(there["file"])["v_pred"].numel() == 0
    assert metadata_of(Path(there["file"]))["modelspec.prediction_type"] == "v"
    assert store.find(there["name"]).prediction.value == "v_prediction"


@pytest.mark.slow
def test_shards_and_the_old_names_of_a_vae_are_read(store: Store, tmp_path: Path) -> None:
    source = tiny.tiny_model("sd1", tmp_path / "source")
    wanted = load_file(convert(store, source, tmp_path / "new.safetensors", "single-file", register=False)["file"])
    (vae,) = (source / "vae").glob("*.safetensors")
    old = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    tensors = load_file(vae)
    for new, before in old.items():
        tensors = {name.replace(new, before): tensor for name, tensor in tensors.items()}
    save_file(tensors, vae)
    (unet,) = (source / "unet").glob("*.safetensors")
    names = sorted(tensors := load_file(unet))
    unet.unlink()
    halves = (names[::2], names[1::2])
    for number, half in enumerate(halves, 1):
        save_file({name: tensors[name] for name in half}, source / "unet" / f"diffusion_pytorch_model-0000{number}-of-00002.safetensors")
    index = {
        "weight_map": {name: f"diffusion_pytorch_model-0000{n}-of-00002.safetensors" for n, half in enumerate(halves, 1) for name in half}
    }
    (source / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps({"metadata": {}, **index}))
    assert alike(load_file(convert(store, source, tmp_path / "old.safetensors", "single-file", register=False)["file"]), wanted)


def test_a_parameter_without_a_name_in_the_first_code_is_refused(store: Store, tmp_path: Path) -> None:
    source = tiny.tiny_model("sd1", tmp_path / "source")
    (unet,) = (source / "unet").glob("*.safetensors")
    save_file({**load_file(unet), "extra.weight": torch.ones(2)}, unet)
    with pytest.raises(Refused, match=r"unet/extra\.weight"):
        convert(store, source, tmp_path / "one.safetensors", "single-file")
    with pytest.raises(Faults, match=r"must end in \.safetensors, as --to single-file writes a single file"):
        convert(store, source, tmp_path / "one.ckpt", "single-file")


def test_what_cannot_be_loaded_again_is_not_kept(store: Store, tmp_path: Path) -> None:
    source = tiny.tiny_model("sd1", tmp_path / "source")
    (unet,) = (source / "unet").glob("*.safetensors")
    tensors = load_file(unet)
    save_file({name: tensor for name, tensor in tensors.items() if "conv_out" not in name}, unet)
    with pytest.raises((JobFailed, Refused), match="conv_out"):
        convert(store, source, tmp_path / "one.safetensors", "single-file")
    assert sorted(entry.name for entry in tmp_path.iterdir() if entry.is_file()) == []


# --- dtypes


def test_fp8_is_for_the_matrices_of_the_denoiser_and_comes_back_wide(store: Store, tmp_path: Path) -> None:
    source = tiny.tiny_model("sd1", tmp_path / "source")
    one = Path(convert(store, source, tmp_path / "one.safetensors", "single-file", register=False)["file"])
    result = convert(store, one, tmp_path / "small.safetensors", "safetensors", dtype="fp8_e4m3", register=False)
    wide, small = load_file(one), load_file(result["file"])
    for name, tensor in wide.items():
        eighth = name.startswith("model.diffusion_model.") and tensor.ndim >= 2
        assert small[name].dtype == (torch.float8_e4m3fn if eighth else torch.float32), name
        assert torch.equal(small[name].float(), tensor.to(torch.float8_e4m3fn).float() if eighth else tensor)
    assert result["cast"] == sum(tensor.dtype == torch.float8_e4m3fn for tensor in small.values())
    back = load_file(
        convert(store, Path(result["file"]), tmp_path / "back.safetensors", "safetensors", dtype="fp16", register=False)["file"]
    )
    assert all(tensor.dtype == torch.float16 for tensor in back.values())
    name = "model.diffusion_model.input_blocks.0.0.weight"
    assert torch.equal(back[name].float(), small[name].float())


def test_numbers_that_do_not_fit_are_named_before_anything_is_written(store: Store, tmp_path: Path) -> None:
    source = tiny.tiny_model("sd1", tmp_path / "source")
    (unet,) = (source / "unet").glob("*.safetensors")
    tensors = load_file(unet)
    tensors["conv_in.weight"][0, 0, 0, 0] = 1e5
    tensors["conv_out.bias"][0] = -7e4
    save_file(tensors, unet)
    with pytest.raises(Refused, match=r"2 tensors(.|\n)*input_blocks\.0\.0\.weight(.|\n)*out\.2\.bias"):
        convert(store, source, tmp_path / "half.safetensors", "single-file", dtype="fp16")
    assert not (tmp_path / "half.safetensors").exists()
    result = convert(store, source, tmp_path / "brain.safetensors", "single-file", dtype="bf16")
    assert {tensor.dtype for tensor in load_file(result["file"]).values()} == {torch.bfloat16}


def test_a_file_that_is_what_was_asked_for_is_refused_with_the_other_ways(store: Store, tmp_path: Path) -> None:
    source = tiny.tiny_model("sd1", tmp_path / "source")
    one = Path(convert(store, source, tmp_path / "one.safetensors", "single-file", register=False)["file"])
    for reference, to, reported in (
        (one, "safetensors", "--dtype"),
        (one, "single-file", "single file already"),
        (source, "folder", "folder already"),
        (source, "kohya", "form of adapters"),
    ):
        output = tmp_path / ("out" if to == "folder" else "out.safetensors")
        with pytest.raises(Refused, match=reported):
            convert(store, reference, output, to)


@pytest.mark.slow
def test_the_same_folder_gives_the_same_bytes(store: Store, tmp_path: Path) -> None:
    source = tiny.tiny_model("sd1", tmp_path / "source")
    files = [convert(store, source, tmp_path / f"{turn}.safetensors", "single-file")["file"] for turn in "ab"]
    assert Path(files[0]).read_bytes() == Path(files[1]).read_bytes()


# --- published names


@pytest.mark.slow
def test_published_models_have_their_published_keys() -> None:
    """The numbers are those of sd-mecha 1.1.8's lists of keys and shapes, with which these names were compared one by one: SD 1 has
    1,130 that are needed, SDXL 2,480 and 33 more that are (its bigG tower's last layer and projection), FLUX.1 dev 780."""
    counts = {"sd1": 1130, "sdxl": 2513, "flux1": 780}
    for family, modules in published().items():
        table = FAMILIES[family].file_names
        assert table is not None
        keys: dict[str, None] = {}
        for component, module in modules.items():
            shapes = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
            config = dict(module.config.items()) if component in ("unet", "vae", "transformer") else module.config.to_dict()
            places = table.places(component, config, shapes, table.published)
            assert places.keys() == shapes.keys()
            keys |= dict.fromkeys(place.key for place in places.values())
        assert len(keys) == counts[family]


def published() -> dict[str, dict[str, Any]]:
    """The published models without their weights."""
    from accelerate import init_empty_weights
    from diffusers import AutoencoderKL, FluxTransformer2DModel, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    from tests.registry.formats.test_layers import sdxl_unet

    with init_empty_weights():
        clip = CLIPTextModel(CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12))
        large = CLIPTextConfig(hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=20, projection_dim=1280)
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
        )
        return {
            "sd1": {"unet": UNet2DConditionModel(cross_attention_dim=768), "vae": vae, "text_encoder": clip},
            "sdxl": {"unet": sdxl_unet(), "vae": vae, "text_encoder": clip, "text_encoder_2": CLIPTextModelWithProjection(large)},
            "flux1": {"transformer": FluxTransformer2DModel(guidance_embeds=True)},
        }


@pytest.mark.slow
def test_what_was_reported_of_a_file_s_prediction_goes_into_its_folder(tmp_path: Path) -> None:
    """SD 2 was published for two predictions, and this file says neither."""
    store = Store(tmp_path / "home")
    source = tiny.shared_folder("sd2", variant="v-standard")
    file = tiny.tiny_single_file(source, tmp_path / "two.safetensors", family="sd2")
    with pytest.raises(Refused, match="set REF --prediction"):
        convert(store, file, tmp_path / "untold", "folder")
    store.add(file)
    store.override("two", prediction="epsilon")
    convert(store, file, tmp_path / "overridden", "folder")
    scheduler = json.loads((tmp_path / "overridden" / "scheduler" / "scheduler_config.json").read_text())
    assert scheduler["prediction_type"] == "epsilon" and inspect(tmp_path / "overridden").prediction.value == "epsilon"
    assert alike(folder_tensors(tmp_path / "overridden"), folder_tensors(source))


@pytest.mark.parametrize("form", ["comfy_old", "comfy_new", "int8", "nf4"])
def test_a_quantised_file_is_not_given_other_names(form: str, store: Store, tmp_path: Path) -> None:
    """Its weights would be written without their scales."""
    from tests.quantised_files import quantised_file

    source = tiny.tiny_single_file(tiny.shared_folder("sd1"), tmp_path / "sd1.safetensors")
    file, _ = quantised_file(source, tmp_path / "quantised.safetensors", form, prefix="model.diffusion_model.")
    with pytest.raises(Refused, match=r"is quantised \(.*\): in other names its weights would lose their scales"):
        convert(store, file, tmp_path / "folder", "folder", base=str(tiny.shared_folder("sd1")), register=False)
    assert not (tmp_path / "folder").exists()
