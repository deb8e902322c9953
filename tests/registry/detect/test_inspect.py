"""Detection from hand-made headers: kind, family, dialect, algorithms, rank, alpha, prediction, reasons."""

import json
from pathlib import Path

import pytest

from registry.adapters.reader import read_adapter
from registry.detect.inspect import inspect
from registry.errors import BadFile
from registry.formats.atomic_file import RawTensor, write_raw
from registry.formats.safetensors_header import TensorInfo
from registry.record import Record
from tests.registry.made import Shapes, diffusers_folder, filled, lora, model, scalar, sd1_attention

P = "model.diffusion_model."


def seen(path: Path, shapes: Shapes, metadata: dict[str, str] | None = None) -> Record:
    model(path, shapes, metadata=metadata)
    return inspect(path)


# --- checkpoints

SD2 = {
    f"{P}input_blocks.0.0.weight": (8, 4, 3, 3),
    f"{P}input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight": (8, 1024),
    "cond_stage_model.model.ln_final.bias": (4,),
}
CHECKPOINTS: list[tuple[str, str | None, Shapes]] = [
    ("sd2", None, SD2),
    ("sd2", "depth", {**SD2, f"{P}input_blocks.0.0.weight": (8, 5, 3, 3)}),
    ("sd2", "inpaint", {**SD2, f"{P}input_blocks.0.0.weight": (8, 9, 3, 3)}),
    (
        "sdxl_refiner",
        None,
        {
            f"{P}input_blocks.0.0.weight": (8, 4, 3, 3),
            f"{P}label_emb.0.0.weight": (4, 2560),
            f"{P}input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight": (4, 1280),
        },
    ),
    ("sd3", "3-medium", {f"{P}joint_blocks.0.context_block.attn.qkv.weight": (4, 4), f"{P}pos_embed": (1, 36864, 2)}),
    ("sd3", "3.5-medium", {f"{P}joint_blocks.0.context_block.attn.qkv.weight": (4, 4), f"{P}pos_embed": (1, 147456, 2)}),
    (
        "sd3",
        "3.5-large",
        {f"{P}joint_blocks.0.context_block.attn.qkv.weight": (4, 4), f"{P}joint_blocks.37.x_block.attn.qkv.weight": (4, 4)},
    ),
    (
        "flux2",
        "dev",
        {"single_stream_modulation.lin.weight": (8, 1), "double_stream_modulation_img.lin.weight": (36864, 1), "img_in.weight": (1, 128)},
    ),
    ("flux2", "klein-4b", {"single_stream_modulation.lin.weight": (8, 1), "double_stream_modulation_img.lin.weight": (18432, 1)}),
    ("flux2", "klein-9b", {"single_stream_modulation.lin.weight": (8, 1), "double_stream_modulation_img.lin.weight": (24576, 1)}),
    ("chroma", None, {"distilled_guidance_layer.in_proj.bias": (4,), "double_blocks.0.img_attn.norm.key_norm.scale": (4,)}),
    (
        "chroma",
        "radiance",
        {"distilled_guidance_layer.in_proj.bias": (4,), "nerf_image_embedder.embedder.0.weight": (4, 4)},
    ),
    ("qwen_image", None, {"txt_norm.weight": (3584,), "img_in.weight": (4, 64), "transformer_blocks.0.attn.add_k_proj.weight": (4, 4)}),
    (
        "qwen_image",
        "edit-2511",
        {
            f"{P}txt_norm.weight": (3584,),
            f"{P}img_in.weight": (4, 64),
            f"{P}transformer_blocks.0.attn.add_k_proj.weight": (4, 4),
            f"{P}__index_timestep_zero__": (1,),
        },
    ),
    (
        "z_image",
        None,
        {"context_refiner.0.attention.k_norm.weight": (4,), "layers.0.adaLN_modulation.0.weight": (4, 4), "cap_embedder.1.weight": (4, 4)},
    ),
    ("lumina2", None, {"cap_embedder.1.weight": (4, 4), "layers.0.adaLN_modulation.1.weight": (4, 4)}),
    ("pixart", "alpha", {"t_block.1.weight": (4, 4), "x_embedder.proj.weight": (4, 4, 2, 2), "ar_embedder.mlp.0.weight": (4, 4)}),
    ("pixart", None, {"adaln_single.emb.timestep_embedder.linear_1.bias": (4,), "pos_embed.proj.bias": (4,)}),
    ("ltx", None, {"adaln_single.emb.timestep_embedder.linear_1.bias": (4,), "transformer_blocks.0.attn2.to_k.weight": (4, 4)}),
    ("wan", "1.3b", {"head.modulation": (1, 2, 4), "patch_embedding.weight": (1536, 16, 1, 2, 2), "blocks.0.cross_attn.k.bias": (4,)}),
    ("wan", "14b", {"head.modulation": (1, 2, 4), "patch_embedding.weight": (5120, 16, 1, 2, 2), "blocks.0.cross_attn.k.bias": (4,)}),
    ("wan", "5b", {"head.modulation": (1, 2, 4), "patch_embedding.weight": (3072, 48, 1, 2, 2), "blocks.0.cross_attn.k.bias": (4,)}),
    ("wan", "i2v-14b", {"head.modulation": (1, 2, 4), "patch_embedding.weight": (5120, 36, 1, 2, 2), "blocks.0.cross_attn.k.bias": (4,)}),
    (
        "wan",
        "vace-1.3b",
        {
            "head.modulation": (1, 2, 4),
            "patch_embedding.weight": (1536, 16, 1, 2, 2),
            "blocks.0.cross_attn.k.bias": (4,),
            "vace_blocks.0.before_proj.weight": (4, 4),
        },
    ),
    (
        "wan",
        "flf2v-14b",
        {
            "head.modulation": (1, 2, 4),
            "patch_embedding.weight": (5120, 36, 1, 2, 2),
            "blocks.0.cross_attn.k.bias": (4,),
            "img_emb.emb_pos": (1, 4, 4),
        },
    ),
    ("hunyuan_video", "i2v", {"txt_in.individual_token_refiner.blocks.0.norm1.weight": (4,), "img_in.proj.weight": (4, 33, 1, 2, 2)}),
    ("pixart", "sigma", {"t_block.1.weight": (4, 4), "x_embedder.proj.weight": (1152, 4, 2, 2), "y_embedder.y_embedding": (300, 4)}),
    ("pixart", "alpha", {"t_block.1.weight": (4, 4), "x_embedder.proj.weight": (1152, 4, 2, 2), "y_embedder.y_embedding": (120, 4)}),
    (
        "ltx",
        "2",
        {
            "adaln_single.emb.timestep_embedder.linear_1.bias": (4,),
            "transformer_blocks.0.attn2.to_k.weight": (4096, 4),
            "transformer_blocks.1.audio_to_video_attn.to_k.weight": (4, 4),
        },
    ),
    ("sana", None, {"blocks.0.cross_attn.q_linear.weight": (4, 4), "blocks.0.mlp.inverted_conv.conv.weight": (4, 4, 1, 1)}),
    ("hunyuan_video", None, {"txt_in.individual_token_refiner.blocks.0.norm1.weight": (4,)}),
    ("hunyuan_image", None, {"txt_in.individual_token_refiner.blocks.0.norm1.weight": (4,), "byt5_in.fc1.bias": (4,)}),
    ("krea2", None, {"txtfusion.projector.weight": (4, 4)}),
    ("anima", None, {"net.llm_adapter.blocks.0.norm.weight": (4,), "net.blocks.0.adaln_modulation_cross_attn.1.weight": (4, 4)}),
    ("ideogram4", None, {"embed_image_indicator.weight": (4, 4)}),
    ("hidream", None, {"caption_projection.0.linear.weight": (4, 4)}),
    ("auraflow", None, {"cond_seq_linear.weight": (4, 4)}),
    ("sana", None, {"attention_y_norm.weight": (4,)}),
    ("cosmos", None, {"net.x_embedder.proj.1.weight": (4, 4)}),
]


@pytest.mark.parametrize(
    ("family", "variant", "shapes"), CHECKPOINTS, ids=[f"{family} {variant or ''}" for family, variant, _ in CHECKPOINTS]
)
def test_single_files_of_families_we_only_know(tmp_path: Path, family: str, variant: str | None, shapes: Shapes) -> None:
    record = seen(tmp_path / "x.safetensors", shapes)
    assert (record.kind, record.family, record.variant) == ("checkpoint", family, variant)
    assert record.evidence and record.candidates == () and record.dtype == "float16"


def test_single_files_of_the_families_we_load(tmp_path: Path) -> None:
    unet = {f"{P}input_blocks.0.0.weight": (8, 4, 3, 3), f"{P}input_blocks.1.1.proj_in.weight": (8, 8, 1, 1),
            f"{P}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (8, 768), f"{P}out.2.weight": (4, 8, 3, 3)}  # fmt: skip
    text = {"cond_stage_model.transformer.text_model.embeddings.position_embedding.weight": (77, 768)}
    vae = {"first_stage_model.decoder.conv_in.weight": (8, 4, 3, 3)}
    record = seen(tmp_path / "sd1.safetensors", {**unet, **text, **vae})
    assert (record.kind, record.family, record.dialect) == ("checkpoint", "sd1", "ldm")
    assert record.components == ("unet", "vae", "text_encoder")
    assert record.prediction.value is None  # a header of SD 1 does not say; nothing is assumed
    flux = {"double_blocks.0.img_attn.norm.key_norm.scale": (128,), "img_in.weight": (3072, 64), "guidance_in.in_layer.bias": (4,)}
    record = seen(tmp_path / "flux.safetensors", flux)
    assert (record.family, record.variant, record.dialect, record.prediction.value) == ("flux1", "dev", "bfl", "flow")


UNET1 = {f"{P}input_blocks.1.1.proj_in.weight": (8, 8, 1, 1), f"{P}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (8, 768),
         f"{P}out.2.weight": (4, 8, 3, 3)}  # fmt: skip
FLUX = {"double_blocks.0.img_attn.norm.key_norm.scale": (128,)}


@pytest.mark.parametrize(
    ("family", "variant", "shapes"),
    [
        ("sd1", None, {**UNET1, f"{P}input_blocks.0.0.weight": (8, 4, 3, 3)}),
        ("sd1", "inpaint", {**UNET1, f"{P}input_blocks.0.0.weight": (8, 9, 3, 3)}),
        ("sd1", "pix2pix", {**UNET1, f"{P}input_blocks.0.0.weight": (8, 8, 3, 3)}),
        ("flux1", "schnell", {**FLUX, "img_in.weight": (3072, 64)}),
        ("flux1", "dev", {**FLUX, "img_in.weight": (3072, 64), "guidance_in.in_layer.bias": (4,)}),
        ("flux1", "fill", {**FLUX, "img_in.weight": (3072, 384), "guidance_in.in_layer.bias": (4,)}),
        ("flux1", "control", {**FLUX, "img_in.weight": (3072, 128), "guidance_in.in_layer.bias": (4,)}),
    ],
)
@pytest.mark.parametrize("prefix", ["", P])
def test_variants_of_single_files(tmp_path: Path, family: str, variant: str | None, shapes: Shapes, prefix: str) -> None:
    reported = shapes if family == "sd1" else {prefix + name: shape for name, shape in shapes.items()}
    record = seen(tmp_path / "x.safetensors", reported)
    assert (record.kind, record.family, record.variant) == ("checkpoint", family, variant)


def test_edm_v_prediction_is_reported_by_its_key(tmp_path: Path) -> None:
    shapes = {f"{P}label_emb.0.0.weight": (8, 2816), f"{P}input_blocks.0.0.weight": (8, 4, 3, 3), f"{P}out.2.weight": (4, 8, 3, 3),
              f"{P}input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight": (8, 2048), "edm_vpred.sigma_max": (),
              f"{P}input_blocks.4.1.proj_in.weight": (8, 8)}  # fmt: skip
    assert seen(tmp_path / "x.safetensors", shapes).prediction.value == "v_prediction"


def test_a_marker_tensor_tells_v_prediction(tmp_path: Path) -> None:
    shapes = {f"{P}label_emb.0.0.weight": (8, 2816), f"{P}input_blocks.0.0.weight": (8, 4, 3, 3), f"{P}out.2.weight": (4, 8, 3, 3),
              f"{P}input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight": (8, 2048), "v_pred": (0,), "ztsnr": (0,),
              f"{P}input_blocks.4.1.proj_in.weight": (8, 8)}  # fmt: skip
    record = seen(tmp_path / "x.safetensors", shapes)
    assert record.family == "sdxl" and record.prediction.value == "v_prediction" and "v_pred" in str(record.prediction.source)


def test_a_folder_of_stable_diffusions_classes_is_sd1_whatever_its_width(tmp_path: Path) -> None:
    record = inspect(diffusers_folder(tmp_path / "small"))
    assert (record.kind, record.family, record.dialect, record.dtype) == ("checkpoint", "sd1", "diffusers", "float16")
    assert (record.prediction.value, record.prediction.source) == ("v_prediction", "scheduler/scheduler_config.json")
    assert record.path == str(tmp_path / "small") and len(record.files) == 6
    assert set(record.components) == {"unet", "text_encoder", "scheduler", "tokenizer"}
    other = inspect(diffusers_folder(tmp_path / "eps", prediction="epsilon"))
    assert other.prediction.value == "epsilon"


def test_a_folder_of_another_pipeline_is_known_by_its_class(tmp_path: Path) -> None:
    for name, family in (
        ("StableDiffusion3Pipeline", "sd3"),
        ("QwenImagePipeline", "qwen_image"),
        ("ZImagePipeline", "z_image"),
        ("WanPipeline", "wan"),
    ):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "model_index.json").write_text(json.dumps({"_class_name": name, "transformer": ["diffusers", "X"]}))
        record = inspect(folder)
        assert record.family == family
        assert [warning.code for warning in record.warnings] == ["missing-weights"]


# --- adapters


def test_a_lora_of_stable_diffusion_1(tmp_path: Path) -> None:
    lora(tmp_path / "x.safetensors", sd1_attention(), rank=8)
    record = inspect(tmp_path / "x.safetensors")
    assert (record.kind, record.family, record.dialect, record.algorithms) == ("adapter", "sd1", "diffusers", ("lora",))
    assert (record.rank, record.alpha, record.dora, record.components, record.dtype) == (8, 8.0, False, ("unet",), "float32")


def test_alpha_is_reported_by_the_metadata_and_never_guessed(tmp_path: Path) -> None:
    lora(tmp_path / "d.safetensors", sd1_attention(), alpha=2.0)
    assert inspect(tmp_path / "d.safetensors").alpha == 2.0
    lora(tmp_path / "k.safetensors", sd1_attention(), alpha=2.0, dialect="kohya")
    record = inspect(tmp_path / "k.safetensors")
    assert (record.dialect, record.alpha) == ("kohya", None)  # it stands in a tensor, which inspecting does not read
    lora(tmp_path / "s.safetensors", sd1_attention(), alpha=2.0, dialect="kohya", metadata={"ss_network_alpha": "2.0"})
    assert inspect(tmp_path / "s.safetensors").alpha == 2.0
    lora(tmp_path / "dynamic.safetensors", sd1_attention(), alpha=2.0, dialect="kohya", metadata={"ss_network_alpha": "Dynamic"})
    assert inspect(tmp_path / "dynamic.safetensors").alpha is None


def test_ranks_that_differ_are_listed(tmp_path: Path) -> None:
    tensors = {"unet.a.lora_A.weight": filled("F16", (4, 8)), "unet.a.lora_B.weight": filled("F16", (8, 4))}
    tensors |= {"unet.b.lora_A.weight": filled("F16", (2, 8, 3, 3)), "unet.b.lora_B.weight": filled("F16", (8, 2, 1, 1))}
    write_raw(tmp_path / "x.safetensors", tensors, metadata={})
    record = inspect(tmp_path / "x.safetensors")
    assert record.rank is None and record.metadata["ranks"] == {"2": 1, "4": 1} and "conv" in record.components


K = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
ALGORITHMS: list[tuple[str, tuple[str, ...], int | None, Shapes]] = [
    ("loha", ("loha",), 4, {f"{K}.hada_w1_a": (8, 4), f"{K}.hada_w1_b": (4, 768), f"{K}.hada_w2_a": (8, 4), f"{K}.hada_w2_b": (4, 768)}),
    ("lokr", ("lokr",), 2, {f"{K}.lokr_w1": (2, 2), f"{K}.lokr_w2_a": (4, 2), f"{K}.lokr_w2_b": (2, 384)}),
    (
        "glora",
        ("glora",),
        4,
        {f"{K}.a1.weight": (768, 4), f"{K}.a2.weight": (4, 768), f"{K}.b1.weight": (8, 4), f"{K}.b2.weight": (4, 768)},
    ),
    ("oft", ("oft",), None, {f"{K}.oft_blocks": (4, 2, 2)}),
    ("boft", ("boft",), None, {f"{K}.oft_blocks": (2, 4, 2, 2), f"{K}.rescale": (8, 1)}),
    ("ia3", ("ia3",), None, {f"{K}.weight": (8,), f"{K}.on_input": (1,)}),
    ("full", ("full",), None, {f"{K}.diff": (8, 768), f"{K}.diff_b": (8,)}),
    ("norm", ("norm",), None, {f"{K}.w_norm": (8,), f"{K}.b_norm": (8,)}),
    (
        "embedding",
        ("embedding", "lora"),
        4,
        {f"{K}.lora_down.weight": (4, 768), f"{K}.lora_up.weight": (8, 4), "bundle_emb.cat.string_to_param": (2, 768)},
    ),
]


@pytest.mark.parametrize(("name", "algorithms", "rank", "shapes"), ALGORITHMS, ids=[row[0] for row in ALGORITHMS])
def test_algorithms(tmp_path: Path, name: str, algorithms: tuple[str, ...], rank: int | None, shapes: Shapes) -> None:
    record = seen(tmp_path / "x.safetensors", shapes)
    assert record.kind == "adapter"
    if name == "boft":
        assert "boft" in record.algorithms
    else:
        assert record.algorithms == algorithms
    assert record.rank == rank


def test_dora_is_seen(tmp_path: Path) -> None:
    assert seen(
        tmp_path / "k.safetensors", {f"{K}.lora_down.weight": (4, 768), f"{K}.lora_up.weight": (8, 4), f"{K}.dora_scale": (1, 768)}
    ).dora
    peft = {"unet.a.lora_A.weight": (4, 8), "unet.a.lora_B.weight": (8, 4), "unet.a.lora_magnitude_vector": (8,)}
    assert seen(tmp_path / "p.safetensors", peft).dora


RESNET = "down_blocks.0.resnets.0.conv1.weight"
M = "down_blocks.0.attentions.0.transformer_blocks.0.attn2"
OT = "lora_transformer_single_transformer_blocks_0_attn_to_k"
BFL = "diffusion_model.double_blocks.0.img_attn.qkv"
DIALECTS: list[tuple[str, Shapes]] = [
    ("diffusers", {f"unet.{M}.to_k.lora_A.weight": (4, 768), f"unet.{M}.to_k.lora_B.weight": (8, 4)}),
    ("peft", {f"base_model.model.{M}.to_k.lora_A.weight": (4, 768), f"base_model.model.{M}.to_k.lora_B.weight": (8, 4)}),
    ("peft", {f"base_model.model.{M}.to_k.lora_A.default.weight": (4, 768), f"base_model.model.{M}.to_k.lora_B.default.weight": (8, 4)}),
    ("diffusers_old", {f"unet.{M}.processor.to_k_lora.down.weight": (4, 768), f"unet.{M}.processor.to_k_lora.up.weight": (8, 4)}),
    ("diffusers_old", {f"unet.{M}.to_k.lora.down.weight": (4, 768), f"unet.{M}.to_k.lora.up.weight": (8, 4)}),
    ("kohya", {f"{K}.lora_down.weight": (4, 768), f"{K}.lora_up.weight": (8, 4), f"{K}.alpha": ()}),
    ("lycoris", {f"{K}.hada_w1_a": (8, 4), f"{K}.hada_w1_b": (4, 768), f"{K}.hada_w2_a": (8, 4), f"{K}.hada_w2_b": (4, 768)}),
    ("onetrainer", {f"{OT}.lora_down.weight": (4, 8), f"{OT}.lora_up.weight": (8, 4)}),
    ("xlabs", {"double_blocks.0.processor.qkv_lora1.down.weight": (4, 8), "double_blocks.0.processor.qkv_lora1.up.weight": (8, 4)}),
    ("bfl", {f"{BFL}.lora_A.weight": (4, 3072), f"{BFL}.lora_B.weight": (9216, 4)}),
    ("cloneofsimo", {"unet:0:down": (4, 768), "unet:0:up": (8, 4)}),
]  # fmt: skip


@pytest.mark.parametrize(("dialect", "shapes"), DIALECTS, ids=[f"{row[0]} {number}" for number, row in enumerate(DIALECTS)])
def test_dialects(tmp_path: Path, dialect: str, shapes: Shapes) -> None:
    record = seen(tmp_path / "x.safetensors", shapes)
    assert (record.kind, record.dialect) == ("adapter", dialect)


ADAPTERS: list[tuple[str, int, list[str]]] = [
    ("sd2", 1024, [f"unet.{M}.to_k"]),
    ("flux2", 6144, ["transformer.single_transformer_blocks.0.attn.to_qkv_mlp_proj"]),
    ("sd3", 1536, ["transformer.transformer_blocks.0.attn.add_q_proj", "transformer.transformer_blocks.0.ff_context.net.0.proj"]),
    ("sd3", 24, ["transformer.transformer_blocks.0.attn.add_q_proj", "transformer.transformer_blocks.0.ff_context.net.0.proj"]),
    ("qwen_image", 3072, ["transformer.transformer_blocks.59.attn.add_k_proj", "transformer.transformer_blocks.59.img_mlp.net.0.proj"]),
    ("z_image", 3840, ["diffusion_model.layers.0.attention.to_q", "diffusion_model.context_refiner.1.attention.to_k"]),
    ("wan", 5120, ["diffusion_model.blocks.0.self_attn.q", "diffusion_model.blocks.0.cross_attn.k"]),
    ("wan", 1536, ["lora_unet_blocks_0_self_attn_q", "lora_unet_blocks_0_cross_attn_k"]),
    ("wan", 32, ["diffusion_model.blocks.0.self_attn.q"]),
    ("cosmos", 5120, ["diffusion_model.blocks.0.mlp.layer1", "diffusion_model.blocks.0.self_attn.q_proj"]),
]


@pytest.mark.parametrize(("family", "width", "modules"), ADAPTERS, ids=[f"{row[0]} {number}" for number, row in enumerate(ADAPTERS)])
def test_adapters_of_families_we_only_know(tmp_path: Path, family: str, width: int, modules: list[str]) -> None:
    shapes: dict[str, tuple[int, ...]] = {}
    for module in modules:
        shapes |= {f"{module}.lora_A.weight": (4, width), f"{module}.lora_B.weight": (width, 4)}
    record = seen(tmp_path / "x.safetensors", shapes)
    assert (record.kind, record.family, record.candidates) == ("adapter", family, ())


def test_an_adapter_of_a_small_unet_is_not_taken_for_one_of_another_width(tmp_path: Path) -> None:
    shapes = {f"unet.{M}.to_k.lora_A.weight": (4, 128), f"unet.{M}.to_k.lora_B.weight": (48, 4)}
    record = seen(tmp_path / "x.safetensors", shapes)
    assert not {"sd2", "sdxl_refiner"} & {record.family, *record.candidates}


TE1 = "lora_te1_text_model_encoder_layers_0_self_attn_q_proj"
TABLE: list[tuple[str, str, str | None, Shapes]] = [
    ("sdxl by its second encoder", "sdxl", None, {"lora_te2_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight": (4, 1280)}),
    ("a slider of sdxl", "sdxl", None, {
        "lora_unet_input_blocks_4_1_transformer_blocks_1_attn1_to_q.lora_down.weight": (4, 640),
        "lora_unet_input_blocks_4_1_transformer_blocks_1_attn1_to_q.lora_up.weight": (640, 4),
    }),
    ("flux1 with te1", "flux1", None, {
        f"{TE1}.lora_down.weight": (4, 768), "lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight": (4, 3072),
        "lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight": (9216, 4),
    }),
    ("flux1 by a block's modulation", "flux1", None, {
        "lora_unet_single_blocks_0_linear1.lora_down.weight": (4, 3072), "lora_unet_single_blocks_0_linear1.lora_up.weight": (21504, 4),
        "lora_unet_single_blocks_0_modulation_lin.lora_down.weight": (4, 3072),
    }),
    ("flux2 klein-9b in the original implementation's names", "flux2", "klein-9b", {
        "diffusion_model.double_blocks.0.img_attn.qkv.lora_A.weight": (4, 4096),
        "diffusion_model.double_blocks.0.img_attn.qkv.lora_B.weight": (12288, 4),
    }),
    ("flux2 dev in the original implementation's names", "flux2", "dev", {
        "diffusion_model.single_blocks.47.linear1.lora_A.weight": (4, 6144),
        "diffusion_model.single_blocks.47.linear1.lora_B.weight": (55296, 4),
    }),
    ("sd3 by its joint blocks", "sd3", None, {
        "lora_unet_joint_blocks_0_x_block_attn_qkv.lora_down.weight": (4, 1536),
        "lora_unet_joint_blocks_0_x_block_attn_qkv.lora_up.weight": (4608, 4),
    }),
    ("sd3.5 large by its blocks' width", "sd3", "3.5-large", {
        "transformer.transformer_blocks.37.attn.to_q.lora_A.weight": (4, 2432),
        "transformer.transformer_blocks.37.attn.to_q.lora_B.weight": (2432, 4),
    }),
    ("qwen image by its 60th block", "qwen_image", None, {
        "transformer.transformer_blocks.59.attn.to_q.lora_A.weight": (4, 3072),
        "transformer.transformer_blocks.59.attn.to_q.lora_B.weight": (3072, 4),
    }),
    ("z-image by its feed-forward", "z_image", None, {
        "diffusion_model.layers.0.feed_forward.w3.lora_A.weight": (4, 3840),
        "diffusion_model.layers.0.feed_forward.w3.lora_B.weight": (10240, 4),
    }),
    ("wan 1.3b", "wan", "1.3b", {
        "diffusion_model.blocks.0.self_attn.q.lora_A.weight": (4, 1536), "diffusion_model.blocks.0.self_attn.q.lora_B.weight": (1536, 4),
    }),
    ("anima by its adapter of a language model", "anima", None, {
        "diffusion_model.llm_adapter.blocks.0.self_attn.q_proj.lora_A.weight": (4, 1024),
        "diffusion_model.llm_adapter.blocks.0.self_attn.q_proj.lora_B.weight": (1024, 4),
    }),
]  # fmt: skip


@pytest.mark.parametrize(("family", "variant", "shapes"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_adapters_reported_by_one_thing_alone(tmp_path: Path, family: str, variant: str | None, shapes: Shapes) -> None:
    record = seen(tmp_path / "x.safetensors", shapes)
    assert (record.kind, record.family, record.candidates) == ("adapter", family, ())
    assert variant is None or record.variant == variant


@pytest.mark.parametrize(("linear1", "families"), [(21504, {"flux1", "chroma", "hunyuan_video"}), (27648, {"flux2"})])
def test_flux1_and_klein_of_the_same_width_are_reported_by_the_width_of_their_mlp(tmp_path: Path, linear1: int, families: set[str]) -> None:
    name = "diffusion_model.single_blocks.0.linear1"
    record = seen(tmp_path / "x.safetensors", {f"{name}.lora_A.weight": (4, 3072), f"{name}.lora_B.weight": (linear1, 4)})
    assert {record.family, *record.candidates} - {None} == families
    assert len(families) > 1 or record.variant == "klein-4b"


def attention(stack: str, numbers: range, *layers: str, width: int = 3072) -> dict[str, tuple[int, ...]]:
    """A plain LoRA of these layers of some blocks, in kohya's names."""
    names = [f"lora_unet_{stack}_{number}_{layer}" for number in numbers for layer in layers]
    return {f"{name}.lora_down.weight": (4, width) for name in names}


BFL_ATTENTION, SPLIT = ("img_attn_qkv", "img_attn_proj"), ("attn_to_q", "attn_to_k", "attn_to_v")


@pytest.mark.parametrize(
    ("shapes", "families"),
    [
        (attention("double_blocks", range(20), *BFL_ATTENTION) | attention("single_blocks", range(40), "linear1"), {"hunyuan_video"}),
        (attention("transformer_blocks", range(20), *SPLIT) | attention("single_transformer_blocks", range(40), *SPLIT), {"hunyuan_video"}),
        (attention("double_blocks", range(2), *BFL_ATTENTION), {"chroma", "flux1", "flux2", "hunyuan_video"}),
        (attention("double_blocks", range(5), "img_attn_qkv"), {"chroma", "flux1", "flux2", "hunyuan_video"}),
        (attention("double_blocks", range(6), "img_attn_qkv"), {"chroma", "flux1", "hunyuan_video"}),
        (attention("double_blocks", range(19), *BFL_ATTENTION) | attention("single_blocks", range(38), "linear1"), {"chroma", "flux1"}),
        (attention("double_blocks", range(19), "img_attn_qkv", "img_mlp_0"), {"chroma", "flux1"}),
        (attention("double_blocks", range(19), "img_attn_qkv", "img_mod_lin"), {"flux1"}),
    ],
    ids=[
        "HunyuanVideo",
        "FramePack",
        "two blocks",
        "klein-4B",
        "more blocks than klein-4B",
        "Chroma",
        "Chroma with MLP",
        "FLUX.1 with modulation",
    ],
)
def test_families_with_the_same_attention_are_candidates(tmp_path: Path, shapes: Shapes, families: set[str]) -> None:
    record = seen(tmp_path / "x.safetensors", shapes)
    assert {record.family, *record.candidates} - {None} == families
    for family in families & {"flux1", "chroma"}:  # what the file declares settles it
        declared = {"flux1": "flux-1-dev/lora", "chroma": "chroma/lora"}[family]
        record = seen(tmp_path / f"{family}.safetensors", shapes, metadata={"modelspec.architecture": declared})
        assert (record.family, record.candidates) == (family, ())


@pytest.mark.parametrize("layer", ["lora_unet_double_blocks_0_img_attn_qkv", "lora_transformer_single_transformer_blocks_0_attn_to_q"])
def test_layers_of_a_text_encoder_do_not_hide_the_family(tmp_path: Path, layer: str) -> None:
    text = "lora_te1_text_model_encoder_layers_0_mlp_fc1"  # HunyuanVideo's denoiser has layers of this name
    shapes = {f"{layer}.lora_down.weight": (4, 3072), f"{text}.lora_down.weight": (4, 768), f"{text}.lora_up.weight": (3072, 4)}
    assert seen(tmp_path / "x.safetensors", shapes).family == "flux1"


def test_a_text_encoders_layers_do_not_hide_a_unet(tmp_path: Path) -> None:
    text = "text_encoder.text_model.context_refiner.0.mlp.fc1"  # other families' denoisers have layers of this name
    shapes = {f"unet.{M}.to_k.lora_A.weight": (4, 768), f"{text}.lora_A.weight": (4, 768), f"{text}.lora_B.weight": (3072, 4)}
    assert seen(tmp_path / "x.safetensors", shapes).family == "sd1"


def test_comfyui_names_of_text_encoders_are_read(tmp_path: Path) -> None:
    text = "text_encoders.clip_l.transformer.text_model.encoder.layers.0.self_attn.q_proj"
    shapes = {"diffusion_model.double_blocks.0.img_attn.qkv.lora_A.weight": (4, 3072), f"{text}.lora_A.weight": (4, 768)}
    record = seen(tmp_path / "x.safetensors", shapes)
    assert (record.family, record.components) == ("flux1", ("transformer", "text_encoder"))


def test_xlabs_is_flux1(tmp_path: Path) -> None:
    shapes = {
        f"double_blocks.0.processor.{layer}_lora{stream}.{side}.weight": shape
        for layer, height in (("qkv", 9216), ("proj", 3072))
        for stream in (1, 2)
        for side, shape in (("down", (4, 3072)), ("up", (height, 4)))
    }
    record = seen(tmp_path / "x.safetensors", shapes)
    assert (record.family, record.candidates, record.dialect, record.rank) == ("flux1", (), "xlabs", 4)


def test_what_two_families_claim_alike_is_reported_as_candidates(tmp_path: Path) -> None:
    slider = {"lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_k.lora_down.weight": (4, 640),
              "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_k.lora_up.weight": (640, 4)}  # fmt: skip
    record = seen(tmp_path / "x.safetensors", slider)
    assert record.family is None and set(record.candidates) >= {"sd1", "sdxl"} and record.evidence
    reported = seen(tmp_path / "y.safetensors", slider, {"ss_base_model_version": "sdxl_base_v1-0"})
    assert reported.family == "sdxl" and reported.candidates == ()


def test_the_width_of_lokr_and_whole_differences_is_a_product(tmp_path: Path) -> None:
    for name, shapes in (
        ("lokr", {f"{K}.lokr_w1": (4, 8), f"{K}.lokr_w2": (80, 96)}),
        ("lokr_b", {f"{K}.lokr_w1": (4, 8), f"{K}.lokr_w2_a": (80, 4), f"{K}.lokr_w2_b": (4, 96)}),
        ("full", {f"{K}.diff": (320, 768)}),
    ):
        assert seen(tmp_path / f"{name}.safetensors", shapes).family == "sd1"
    sdxl = K.replace("down_blocks_0", "down_blocks_1")
    assert seen(tmp_path / "sdxl.safetensors", {f"{sdxl}.lokr_w1": (4, 16), f"{sdxl}.lokr_w2": (80, 128)}).family == "sdxl"


def test_metadata_that_disagrees_with_the_tensors_is_reported(tmp_path: Path) -> None:
    lora(tmp_path / "x.safetensors", sd1_attention(), metadata={"modelspec.architecture": "flux-1-dev/lora"})
    record = inspect(tmp_path / "x.safetensors")
    assert record.family == "sd1" and [warning.code for warning in record.warnings] == ["metadata-disagrees"]


def test_a_language_models_adapter_is_named_for_what_it_is(tmp_path: Path) -> None:
    name = "base_model.model.model.layers.0.self_attn.q_proj"
    record = seen(tmp_path / "x.safetensors", {f"{name}.lora_A.weight": (4, 8), f"{name}.lora_B.weight": (8, 4)})
    assert (record.kind, record.family) == ("adapter", None) and [warning.code for warning in record.warnings] == ["not-diffusion"]


# --- other kinds


@pytest.mark.parametrize(
    ("kind", "family", "variant", "shapes"),
    [
        ("vae", None, None, {"decoder.conv_in.weight": (8, 4, 3, 3), "decoder.up.0.block.0.conv1.weight": (4, 4, 3, 3)}),
        ("vae", "flux2", None, {"decoder.conv_in.weight": (8, 32, 3, 3), "decoder.up_blocks.0.resnets.0.conv1.weight": (4, 4, 3, 3)}),
        ("embedding", "sd1", None, {"emb_params": (4, 768)}),
        ("embedding", "sd2", None, {"emb_params": (4, 1024)}),
        ("embedding", "sdxl", None, {"clip_l": (2, 768), "clip_g": (2, 1280)}),
        ("embedding", "sd1", None, {"<cat-toy>": (768,)}),
        ("controlnet", "sd1", None, {"control_model.input_hint_block.0.weight": (4, 3, 3, 3), "x.attn2.to_k.weight": (8, 768)}),
        ("controlnet", "sdxl", None, {"controlnet_cond_embedding.conv_in.weight": (4, 3, 3, 3), "x.attn2.to_k.weight": (8, 2048)}),
        ("controlnet", "sdxl", "lllite", {"lllite_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_k.down.0.weight": (4, 4)}),
        ("text_encoder", None, "clip-l", {"text_model.encoder.layers.0.self_attn.q_proj.weight": (768, 768)}),
        ("text_encoder", None, "clip-g", {"text_model.encoder.layers.0.self_attn.q_proj.weight": (1280, 1280)}),
        ("text_encoder", None, "t5", {"encoder.block.0.layer.0.SelfAttention.q.weight": (4, 4)}),
        ("checkpoint", "sdxl", None, {"conv_in.weight": (4, 4, 3, 3), RESNET: (4, 4), "x.attn2.to_k.weight": (8, 2048)}),
        ("unknown", None, None, {"something": (4, 4), "else": (2,)}),
    ],
)  # fmt: skip
def test_other_kinds(tmp_path: Path, kind: str, family: str | None, variant: str | None, shapes: Shapes) -> None:
    record = seen(tmp_path / "x.safetensors", shapes)
    assert (record.kind, record.family, record.variant) == (kind, family, variant)


def test_a_vae_several_families_share_lists_them(tmp_path: Path) -> None:
    record = seen(tmp_path / "x.safetensors", {"decoder.conv_in.weight": (8, 16, 3, 3), "decoder.up.0.block.0.conv1.weight": (4, 4, 3, 3)})
    assert record.family is None and "flux1" in record.candidates and "sd3" in record.candidates


# --- what the metadata tells


def test_triggers_licence_parents_and_prediction_from_the_metadata(tmp_path: Path) -> None:
    frequency = {"10_cat": {"sks cat": 20, "1girl": 19, "sitting": 3}, "1_reg": {"cat": 1}}
    metadata = {
        "ss_tag_frequency": json.dumps(frequency),
        "ss_dataset_dirs": json.dumps({"10_cat": {"n_repeats": 10, "img_count": 20}, "1_reg": {"img_count": 1}}),
        "ss_sd_model_name": "v1-5.safetensors",
        "ss_new_sd_model_hash": "ab" * 32,
        "ss_v_parameterization": "True",
        "modelspec.license": "CC-BY-4.0",
        "thumbnail": "x" * 100_000,
    }
    lora(tmp_path / "x.safetensors", sd1_attention(), metadata=metadata)
    record = inspect(tmp_path / "x.safetensors")
    assert record.triggers == ("sks cat", "1girl")
    assert record.licence == "CC-BY-4.0"
    assert record.parents == ({"role": "base", "ref": "v1-5.safetensors", "sha256": "ab" * 32},)
    assert (record.prediction.value, record.prediction.source) == ("v_prediction", "ss_v_parameterization")
    assert len(record.metadata["thumbnail"]) < 3000


def test_written_triggers_come_before_counted_tags_and_damage_is_no_error(tmp_path: Path) -> None:
    metadata = {
        "modelspec.trigger_phrase": "inkstyle, ink",
        "ss_tag_frequency": "{broken",
        "lora_adapter_metadata": "[1]",
        "modelspec.merged_from": "a, b",
    }
    lora(tmp_path / "x.safetensors", sd1_attention(), metadata=metadata)
    record = inspect(tmp_path / "x.safetensors")
    assert record.triggers == ("inkstyle", "ink") and [parent["ref"] for parent in record.parents] == ["a", "b"]


def test_records_go_to_json_and_back(tmp_path: Path) -> None:
    write_raw(tmp_path / "x.safetensors", {f"{K}.lora_down.weight": filled("F16", (4, 768)), f"{K}.alpha": scalar(1)}, metadata={})
    record = inspect(tmp_path / "x.safetensors")
    assert Record.from_json(json.loads(json.dumps(record.to_json()))) == record
    assert TensorInfo("F16", (4, 768)) == RawTensor("F16", (4, 768), b"").info


def test_a_folder_without_an_index_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match=r"model_index\.json"):
        inspect(tmp_path)


@pytest.mark.parametrize(
    ("config", "family", "candidates"),
    [
        ({"_class_name": "ControlNetModel", "cross_attention_dim": 768}, "sd1", ()),
        ({"_class_name": "ControlNetModel", "cross_attention_dim": 2048}, "sdxl", ()),
        ({"_class_name": "FluxControlNetModel"}, "flux1", ()),
        ({"_class_name": "ControlNetModel", "cross_attention_dim": 32}, None, ("sd1", "sd2", "sdxl")),
    ],
)
def test_a_controlnet_s_folder_is_of_the_families_that_take_it(
    config: dict[str, object], family: str | None, candidates: tuple[str, ...], tmp_path: Path
) -> None:

    (tmp_path / "config.json").write_text(json.dumps(config))
    record = inspect(tmp_path)
    assert (record.kind, record.family, record.candidates) == ("controlnet", family, candidates)


def test_a_prediction_without_modelspecs_prefix_is_read(tmp_path: Path) -> None:
    shapes = {f"unet.{M}.to_k.lora_A.weight": (4, 2048), f"unet.{M}.to_k.lora_B.weight": (8, 4)}
    record = seen(tmp_path / "x.safetensors", shapes, metadata={"prediction_type": "v_prediction"})
    assert (record.prediction.value, record.prediction.source) == ("v_prediction", "prediction_type")


def test_malformed_keys_are_recognised_with_a_warning(tmp_path: Path) -> None:
    flat = "down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    twice = {f"lora_unet_unet_{flat}.{side}": shape for side, shape in (("lora_down.weight", (4, 768)), ("lora_up.weight", (320, 4)))}
    record = seen(tmp_path / "twice.safetensors", twice)
    assert (record.kind, record.family, [warning.code for warning in record.warnings]) == ("adapter", "sd1", ["malformed-keys"])
    (module,) = read_adapter(tmp_path / "twice.safetensors").modules
    assert module.place == ("denoiser", flat)
    odd = {name.replace(".lora", "_lora"): shape for name, shape in twice.items()}
    record = seen(tmp_path / "odd.safetensors", odd)
    assert (record.kind, record.family, [warning.code for warning in record.warnings]) == ("adapter", None, ["malformed-keys"])
    with pytest.raises(BadFile, match=r"has malformed keys \(lora_unet_unet_.*_lora_(down|up)\.weight\)"):
        read_adapter(tmp_path / "odd.safetensors")
