"""Single-file checkpoints with no network: the same weights and image as the folder's, and clear words where that cannot be."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from registry.errors import BadFile, Refused
from registry.families import FAMILIES
from tests.tiny import shared_folder, tiny_single_file

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # of diffusers' schedulers under numpy 2

LDM = ("sd1", "sdxl")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any attempt to reach another machine fails the test."""

    def refuse(*_args: Any, **_kwargs: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def loaded(name: str, path: Path, base_config: Path | None = None) -> Any:
    import torch

    return FAMILIES[name].load(path, dtype=torch.float32, device="cpu", base_config=base_config)


def pixels(name: str, parts: Any) -> Any:
    """An image of three steps, with guidance where the family has it."""
    import torch

    from infer.draw.denoise import Job, denoise
    from infer.draw.samplers import build_scheduler
    from tests.tiny import SIZES

    family, size = FAMILIES[name], SIZES[name]
    with torch.no_grad():
        conditional = family.encode_prompts(parts, ["a red apple"])
        unconditional = None if not family.classifier_free(parts) else family.encode_unconditional(parts, 1)
        job = Job(
            conditional=conditional,
            unconditional=unconditional,
            guidance=4.0,
            steps=3,
            scheduler=build_scheduler(parts),
            seed=1,
            height=size,
            width=size,
        )
        return family.decode(parts, denoise(family, parts, [job])[0])


def same_model(name: str, actual: Any, expected: Any) -> bool:
    """Whether two loads have the same weights to the bit, and draw the same image: kernels go by how weights lie in memory."""
    modules = (
        (actual.denoiser, expected.denoiser),
        (actual.vae, expected.vae),
        *((actual.text_encoders[k], m) for k, m in expected.text_encoders.items()),
    )
    for module, its in modules:
        state = its.state_dict()
        if not all(state[key].equal(tensor) for key, tensor in module.state_dict().items()):
            return False
    return float((pixels(name, actual) - pixels(name, expected)).abs().max()) <= 1e-5


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """family -> (folder, single file) of models with the published constants and CLIP's own table."""
    out = tmp_path_factory.mktemp("single")
    folders = {name: shared_folder(name, standard=True) for name in LDM}
    return {name: (folder, tiny_single_file(folder, out / f"{name}.safetensors", family=name)) for name, folder in folders.items()}


def rewritten(path: Path, out: Path, *, drop: str = "", add: dict[str, Any] | None = None, metadata: dict[str, str] | None = None) -> Path:
    """The file without the tensors that start with `drop`, and with others."""
    from safetensors.torch import load_file, save_file

    tensors = {key: tensor for key, tensor in load_file(path).items() if not drop or not key.startswith(drop)}
    save_file(tensors | (add or {}), out, metadata=metadata)
    return out


@pytest.mark.slow
@pytest.mark.parametrize("name", LDM)
def test_the_file_alone_draws_the_folder_s_image(name: str, published: dict[str, tuple[Path, Path]]) -> None:
    folder, file = published[name]
    parts = loaded(name, file)
    assert same_model(name, parts, loaded(name, folder))
    said = "\n".join(parts.warnings)
    assert "not of the published size" in said and "base_config=FOLDER settles it" in said
    assert "attention_head_dim 8" in said or "attention_head_dim (1, 1)" in said
    assert "epsilon is assumed" in said


@pytest.mark.slow
@pytest.mark.parametrize("name", LDM)
def test_base_config_settles_everything(name: str, tmp_path: Path) -> None:
    """The plain tiny models have other heads, groups and tokens than the published ones."""
    folder = shared_folder(name)
    file = tiny_single_file(folder, tmp_path / "model.safetensors", family=name)
    parts = loaded(name, file, folder)
    assert same_model(name, parts, loaded(name, folder))
    assert parts.warnings == () and parts.source == file
    with pytest.raises(Refused, match="base_config"):
        loaded(name, file)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sd1", pytest.param("sdxl", marks=pytest.mark.slow)])
def test_configs_in_the_file_s_own_header_are_believed(name: str, tmp_path: Path) -> None:
    folder = shared_folder(name, standard=True)
    file = tiny_single_file(folder, tmp_path / "model.safetensors", family=name, configs=True)
    parts = loaded(name, file)
    assert parts.warnings == ()
    assert parts.resolution == 32
    assert same_model(name, parts, loaded(name, folder))


def test_a_vocabulary_that_is_not_clip_s_needs_a_folder(tmp_path: Path) -> None:
    file = tiny_single_file(shared_folder("sd1"), tmp_path / "model.safetensors", configs=True)
    with pytest.raises(Refused, match=r"knows 514 tokens, but only CLIP's own table of 49408 is carried. Give base_config=FOLDER"):
        loaded("sd1", file)


@pytest.mark.slow
@pytest.mark.parametrize("name", LDM)
def test_the_names_are_those_diffusers_reads(name: str, tmp_path: Path) -> None:
    """Our map of names against diffusers' own converters, every tensor of every component."""
    import diffusers

    from registry.formats.diffusers_folder import no_progress_bars

    folder = shared_folder(name)
    file = tiny_single_file(folder, tmp_path / "model.safetensors", family=name)
    with no_progress_bars():
        expected = getattr(diffusers, FAMILIES[name].pipeline).from_single_file(str(file), config=str(folder), local_files_only=True)
    parts = loaded(name, folder)
    for component, module in {"unet": parts.denoiser, "vae": parts.vae, **parts.text_encoders}.items():
        state = getattr(expected, component).state_dict()
        wrong = [key for key, tensor in module.state_dict().items() if not state[key].equal(tensor)]
        assert wrong == [], component


def test_flux_names_are_those_diffusers_reads() -> None:
    """diffusers' converter is written for the published width only, so it is shown tensors of one column."""
    import torch
    from diffusers.loaders.single_file_utils import convert_flux_transformer_checkpoint_to_diffusers

    from registry.architectures.transformer.flux_names import FLUX_LAYERS, NORMS

    rows = {"img_attn.qkv": 9216, "txt_attn.qkv": 9216, "linear1": 21504}
    generator = torch.Generator().manual_seed(0)
    file: dict[str, Any] = {}
    layers = [layer.numbered(["0"] * layer.original.count("*")) for layer in FLUX_LAYERS]
    for layer in layers:
        count = next((count for ending, count in rows.items() if layer.original.endswith(ending)), 6144)
        file[f"{layer.original}.weight"] = torch.rand(count, 1, generator=generator)
        file[f"{layer.original}.bias"] = torch.rand(count, generator=generator)
    norms = {actual.replace("*", "0"): expected.replace("*", "0") for actual, expected in NORMS.items()}
    file |= {norm: torch.rand(8, generator=generator) for norm in norms.values()}
    expected = convert_flux_transformer_checkpoint_to_diffusers(dict(file))
    for layer in layers:
        sizes = (
            [3072] * 3 + [12288] if layer.original.endswith("linear1") else [len(file[f"{layer.original}.weight"]) // len(layer.modules)]
        )
        sizes = sizes * len(layer.modules) if len(sizes) == 1 else sizes
        for ending in ("weight", "bias"):
            tensor = file[f"{layer.original}.{ending}"]
            tensor = torch.cat(tensor.chunk(2)[::-1]) if layer.swapped else tensor
            for module, piece in zip(layer.modules, tensor.split(sizes), strict=True):
                assert expected.pop(f"{module}.{ending}").equal(piece), (layer.original, module)
    for name, norm in norms.items():
        assert expected.pop(name).equal(file[norm]), norm
    assert not expected


@pytest.mark.parametrize("variant", ["dev", "schnell"])
def test_flux_takes_what_it_lacks_from_base_config(variant: str, tmp_path: Path) -> None:
    folder = shared_folder("flux1", variant=variant)
    file = tiny_single_file(folder, tmp_path / "model.safetensors", family="flux1")
    parts = loaded("flux1", file, folder)
    assert same_model("flux1", parts, loaded("flux1", folder))
    assert any("are those of" in warning for warning in parts.warnings)
    with pytest.raises(Refused, match=r"T5 encoder and its tokenizer are not in it and are not bundled. Give base_config=FOLDER"):
        loaded("flux1", file)
    other = shared_folder("flux1", variant={"dev": "schnell", "schnell": "dev"}[variant])
    with pytest.raises(Refused, match=f"is a {variant} build, but base_config="):
        loaded("flux1", file, other)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("marks", "metadata", "prediction", "zero_snr"),
    [
        ((), {}, "epsilon", False),
        (("v_pred",), {}, "v_prediction", False),
        (("v_pred", "ztsnr"), {}, "v_prediction", True),
        ((), {"modelspec.prediction_type": "v"}, "v_prediction", False),
        ((), {"modelspec.prediction_type": "epsilon"}, "epsilon", False),
    ],
)
def test_the_prediction_is_read_from_marks_and_metadata(
    marks: tuple[str, ...],
    metadata: dict[str, str],
    prediction: str,
    zero_snr: bool,
    published: dict[str, tuple[Path, Path]],
    tmp_path: Path,
) -> None:
    import torch

    from registry.detect.inspect import look

    marked = rewritten(published["sdxl"][1], tmp_path / "m.safetensors", add={mark: torch.empty(0) for mark in marks}, metadata=metadata)
    parts = loaded("sdxl", marked)
    assert parts.prediction == parts.scheduler_config["prediction_type"] == prediction
    assert parts.scheduler_config.get("rescale_betas_zero_snr", False) is zero_snr
    reported = bool(marks or metadata)
    assert any("epsilon is assumed" in warning for warning in parts.warnings) is not reported
    claim = FAMILIES["sdxl"].recognise_checkpoint(look(marked))
    assert claim is not None and claim.prediction == (
        prediction if reported else None
    )  # detection never guesses, loading says what it assumed


@pytest.mark.slow
def test_a_mark_overrules_the_folder_s_scheduler(published: dict[str, tuple[Path, Path]], tmp_path: Path) -> None:
    import torch

    folder, file = published["sd1"]
    parts = loaded("sd1", rewritten(file, tmp_path / "v.safetensors", add={"v_pred": torch.empty(0)}), folder)
    assert parts.prediction == "v_prediction"
    assert any("is overridden" in warning for warning in parts.warnings)


def test_tensors_that_nobody_took_are_reported_and_training_leftovers_are_not(
    published: dict[str, tuple[Path, Path]], tmp_path: Path
) -> None:
    import torch

    extra = {"model_ema.decay": torch.ones(1), "betas": torch.ones(3), "control_model.zero.weight": torch.ones(2)}
    parts = loaded("sd1", rewritten(published["sd1"][1], tmp_path / "x.safetensors", add=extra))
    assert [warning for warning in parts.warnings if "control_model.zero.weight" in warning and "1 of the file's" in warning]


@pytest.mark.slow
def test_a_missing_component_comes_from_base_config_or_is_refused(published: dict[str, tuple[Path, Path]], tmp_path: Path) -> None:
    folder, file = published["sd1"]
    without = rewritten(file, tmp_path / "no-vae.safetensors", drop="first_stage_model.")
    with pytest.raises(Refused, match=r"has no vae .* Give base_config=FOLDER"):
        loaded("sd1", without)
    parts = loaded("sd1", without, folder)
    assert any("has no vae; it is taken from" in warning for warning in parts.warnings)
    assert same_model("sd1", parts, loaded("sd1", folder))


def test_a_config_that_does_not_fit_is_refused_with_both_shapes(published: dict[str, tuple[Path, Path]], tmp_path: Path) -> None:
    with pytest.raises(BadFile, match=r"does not fit its config: .* where .* was expected"):
        loaded("sd1", published["sd1"][1], shared_folder("sd1"))


@pytest.mark.slow
def test_clip_s_older_names_without_text_model(published: dict[str, tuple[Path, Path]], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder, file = published["sd1"]
    save_file({key.replace("transformer.text_model.", "transformer."): value for key, value in load_file(file).items()}, tmp_path / "o.st")
    (tmp_path / "o.st").rename(tmp_path / "o.safetensors")
    assert same_model("sd1", loaded("sd1", tmp_path / "o.safetensors"), loaded("sd1", folder))


@pytest.mark.slow
def test_the_published_sizes_are_read_from_their_shapes() -> None:
    """The shapes of the real SD 1.5 and SDXL, from diffusers' own classes on the meta device, give back the real configs."""
    import diffusers
    from accelerate import init_empty_weights

    from registry.architectures.unet.ldm_names import unet_name
    from registry.families import sd1, sdxl
    from registry.formats.safetensors_header import TensorInfo

    attended = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)
    real: dict[str, tuple[Any, dict[str, Any]]] = {
        "sd1": (sd1.LAYOUT, {"cross_attention_dim": 768, "attention_head_dim": 8, "down_block_types": attended}),
        "sdxl": (
            sdxl.LAYOUT,
            {
                "block_out_channels": (320, 640, 1280),
                "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
                "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
                "transformer_layers_per_block": (1, 2, 10),
                "attention_head_dim": (5, 10, 20),
                "cross_attention_dim": 2048,
                "use_linear_projection": True,
                "addition_embed_type": "text_time",
                "addition_time_embed_dim": 256,
                "projection_class_embeddings_input_dim": 2816,
            },
        ),
    }
    for name, (layout, config) in real.items():
        with init_empty_weights():
            unet = diffusers.UNet2DConditionModel(**config)
        shapes = {str(unet_name(unet.config, key)): TensorInfo("F16", tuple(value.shape)) for key, value in unet.state_dict().items()}
        piece = layout.pieces[0]
        sizes = piece.sizes(shapes)
        configs = {"unet": {**piece.constants(sizes), **sizes}, "text_encoder_2": {"projection_dim": 1280}}
        if layout.settle:
            layout.settle(configs, "epsilon")
        with init_empty_weights():
            actual = diffusers.UNet2DConditionModel.from_config(configs["unet"])
        assert {key: value.shape for key, value in actual.state_dict().items()} == {
            key: value.shape for key, value in unet.state_dict().items()
        }
        assert all(sizes[key] == value for key, value in piece.published.items()), name
        for key in ("attention_head_dim", "transformer_layers_per_block", "addition_time_embed_dim", "use_linear_projection"):
            mine, its = actual.config[key], unet.config[key]
            assert (list(mine) if isinstance(mine, tuple) else mine) == (list(its) if isinstance(its, tuple) else its), key


@pytest.mark.parametrize("name", ["sd1", "flux1", pytest.param("sdxl", marks=pytest.mark.slow)])
def test_a_skeleton_of_a_file_reads_no_weight(name: str, published: dict[str, tuple[Path, Path]], tmp_path: Path) -> None:
    import torch

    if name == "flux1":
        folder: Path | None = shared_folder("flux1")
        file = tiny_single_file(shared_folder("flux1"), tmp_path / "flux.safetensors", family="flux1")
    else:
        folder, file = None, published[name][1]
    skeleton = FAMILIES[name].load(file, dtype=torch.float32, device="meta", base_config=folder)
    full = loaded(name, file, folder)
    assert {key: value.shape for key, value in skeleton.denoiser.state_dict().items()} == {
        key: value.shape for key, value in full.denoiser.state_dict().items()
    }
    assert {weight.device.type for module in (skeleton.denoiser, skeleton.vae) for weight in module.parameters()} == {"meta"}


def test_header_configs_that_are_not_json_are_refused(published: dict[str, tuple[Path, Path]], tmp_path: Path) -> None:
    odd = rewritten(published["sd1"][1], tmp_path / "odd.safetensors", metadata={"loraloom.components": "{"})
    with pytest.raises(BadFile, match=r"loraloom\.components is not readable JSON"):
        loaded("sd1", odd)


def test_configs_travel_as_one_json(tmp_path: Path) -> None:
    from registry.formats.single_file import CONFIGS_ENTRY, component_configs

    written = json.loads(component_configs(shared_folder("sdxl"), ["unet", "vae"])[CONFIGS_ENTRY])
    assert set(written) == {"unet", "vae", "scheduler", "pipeline"}
    assert written["scheduler"]["_class_name"] == "EulerDiscreteScheduler"
    assert written["pipeline"]["force_zeros_for_empty_prompt"] is True
