"""Two-layer models of every family, written as real files: what the tests load, train and draw with.

Weights are seeded and lively: an image changes with its prompt, or a dropped condition would pass unnoticed. Every folder is
built once a process and copied; a tiny image is 32 pixels a side and takes milliseconds a step.
"""

from __future__ import annotations

import importlib
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from tests.tiny_families import module_of

SIZE = 32  # pixels a side of the tiny models' images
SIZES = {"sd1": SIZE, "sdxl": SIZE, "flux1": 64}  # by family; FLUX's packing counts on eight pixels a latent cell
BETAS: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
}
UNET: dict[str, Any] = {
    "sample_size": 8,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
}

STANDARD_UNET: dict[str, Any] = {**UNET, "block_out_channels": (32, 64), "norm_num_groups": 32}


def tiny_sd1(folder: Path | str, *, prediction: str = "epsilon", standard: bool = False) -> Path:
    """A loadable sd1 folder: 32 x 32 pixels, latents 4 x 8 x 8, PNDM.

    `standard` keeps the published model's constants (heads, norm groups, CLIP's own table): a single file of it needs no base_config.
    """
    return _copied(_build_sd1, folder, prediction=prediction, standard=standard)


def tiny_sdxl(folder: Path | str, *, prediction: str = "epsilon", standard: bool = False) -> Path:
    """A loadable sdxl folder: 32 x 32 pixels, latents 4 x 8 x 8, two text encoders, Euler with leading spacing.

    `standard` keeps the published model's constants (heads, norm groups, CLIP's own table): a single file of it needs no base_config.
    """
    return _copied(_build_sdxl, folder, prediction=prediction, standard=standard)


def tiny_flux1(folder: Path | str, *, variant: str = "dev") -> Path:
    """A loadable flux1 folder, `dev` (guidance embedded, shift by size) or `schnell`: 64 x 64 pixels, latents 16 x 8 x 8."""
    return _copied(_build_flux1, folder, variant=variant)


def tiny_single_file(
    folder: Path | str, out: Path | str, *, family: str = "sd1", configs: bool = False, marks: tuple[str, ...] = ()
) -> Path:
    """The model of a folder as one file, as published checkpoints are: UNet families in LDM names, flux1's transformer in its first names.

    `configs` writes the component configs into the header, as our own writers do; `marks` are empty tensors such as v_pred.
    """
    import torch
    from safetensors.torch import save_file

    from registry.families import FAMILIES, flux1
    from registry.formats.single_file import component_configs

    if family == "flux1":
        return transformer_single_file(folder, out, flux1.FILE_NAMES)
    layout = importlib.import_module(f"registry.families.{family}").LAYOUT
    parts = FAMILIES[family].load(folder, dtype=torch.float32, device="cpu")
    modules = {"unet": parts.denoiser, "vae": parts.vae, **parts.text_encoders}
    tensors: dict[str, Any] = {mark: torch.empty(0) for mark in marks}
    for piece in layout.pieces:
        module: Any = modules[piece.component]
        for name, tensor in module.state_dict().items():
            location = piece.location(module.config, name, tuple(tensor.shape))
            assert location is not None, name
            key = piece.prefix + location.key
            if ".attn_1." in key and tensor.ndim == 2:
                tensor = tensor[:, :, None, None]  # LDM's VAE has 1 x 1 convolutions there
            tensor = tensor.T if location.transposed else tensor
            if location.rows is None:
                tensors[key] = tensor
            else:  # q, k and v stand one below the other
                fused = tensors.setdefault(key, tensor.new_zeros(3 * len(tensor), *tensor.shape[1:]))
                fused[slice(*location.rows)] = tensor
    if family == "sd1":
        tensors["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.arange(POSITIONS)[None]
    if family not in FAMILIES_HERE:
        tensors |= module_of(family).unused(parts)
    components = [piece.component for piece in layout.pieces]
    metadata = component_configs(Path(folder), components) if configs else None
    save_file({key: tensor.contiguous().clone() for key, tensor in tensors.items()}, out, metadata=metadata)
    return Path(out)


def transformer_single_file(folder: Path | str, out: Path | str, names: Any, *, prefix: str = "", original: bool = True) -> Path:
    """The transformer of a folder as one file: in its original implementation's names (`names`, a FileNames), or in diffusers' own."""
    import re

    import torch
    from safetensors.torch import load_file, save_file

    from registry.formats.layers import Spellings

    (weights,) = (Path(folder) / "transformer").glob("*.safetensors")
    state = load_file(weights)
    if not original:
        save_file({prefix + name: tensor for name, tensor in state.items()}, out)
        return Path(out)
    spellings, tensors = Spellings(names.layers), {}
    pieces: dict[tuple[Any, str], dict[int, Any]] = {}  # (layer, weight or bias) -> its rows by module
    for name, tensor in state.items():
        module, _, ending = name.rpartition(".")
        found = spellings.find(module)
        other = names.others.get(re.sub(r"(?<=\.)\d+(?=\.)", "*", name))
        if other is not None:
            for number in re.findall(r"(?<=\.)\d+(?=\.)", name):
                other = other.replace("*", number, 1)
            tensors[prefix + other] = tensor
        elif found is not None and found.part is not None:
            pieces.setdefault((found.layer, ending), {})[found.part] = tensor
        else:
            tensors[prefix + name] = tensor
    sizes = {layer: parts[0].shape for (layer, ending), parts in pieces.items() if ending == "weight"}
    for (layer, ending), parts in pieces.items():
        fused = torch.cat([parts[part] for part in sorted(parts)])
        tensors[f"{prefix}{layer.original}.{ending}"] = torch.cat(fused.chunk(2)[::-1]) if layer.swaps(*sizes[layer][:2]) else fused
    save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, out)
    return Path(out)


def tiny_adapter(
    folder: Path | str,
    out: Path | str,
    *,
    family: str = "sd1",
    targets: str = "attention",
    rank: int = 4,
    alpha: float | None = None,
    text_encoder: bool = False,
    strength: float = 0.3,
    seed: int = 0,
) -> Path:
    """A LoRA file for the model in `folder` in diffusers' own form, every factor random, plainly visible at weight 1."""
    import diffusers
    import torch
    from diffusers.training_utils import _collate_lora_metadata
    from peft import LoraConfig, get_peft_model_state_dict

    from registry.families import FAMILIES

    made_for = FAMILIES[family]
    parts = made_for.load(folder, dtype=torch.float32, device="cpu")
    modules: dict[str, Any] = {made_for.denoiser: parts.denoiser}
    wanted: dict[str, Any] = {made_for.denoiser: made_for.lora_presets[targets]}
    if text_encoder:
        encoders = {name: module for name, module in parts.text_encoders.items() if type(module).__name__.startswith("CLIP")}
        modules |= encoders
        wanted |= {name: ["q_proj", "k_proj", "v_proj", "out_proj"] for name in encoders}
    generator = torch.Generator().manual_seed(seed)
    layers = {}
    for name, module in modules.items():
        module.add_adapter(LoraConfig(r=rank, lora_alpha=rank if alpha is None else alpha, target_modules=wanted[name]))
        state = get_peft_model_state_dict(module)
        for key, tensor in state.items():
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * (strength if "lora_B" in key else tensor[0].numel() ** -0.5))
        layers[f"{name}_lora_layers"] = state
    out = Path(out)
    getattr(diffusers, made_for.pipeline).save_lora_weights(out.parent, weight_name=out.name, **layers, **_collate_lora_metadata(modules))
    return out


def tiny_dataset(folder: Path | str, count: int = 6, size: int = SIZE, *, seed: int = 0) -> Path:
    """`count` images of coloured discs on plain grounds, NAME.png beside NAME.txt."""
    import numpy
    from PIL import Image, ImageDraw

    folder = Path(folder)
    folder.mkdir(parents=True)
    random = numpy.random.default_rng(seed)
    colours = {"red": (220, 40, 40), "green": (40, 180, 60), "blue": (50, 70, 220), "yellow": (240, 220, 40)}
    for i in range(count):
        word = list(colours)[i % len(colours)]
        image = Image.new("RGB", (size, size), tuple(int(v) for v in random.integers(200, 256, 3)))
        left, top, across = (int(v) for v in random.integers(size // 8, size // 2, 3))
        ImageDraw.Draw(image).ellipse((left, top, left + across, top + across), fill=colours[word])
        image.save(folder / f"{i:03d}.png")
        (folder / f"{i:03d}.txt").write_text(f"a {word} disc\n", encoding="utf-8")
    return folder


def _copied(build: Callable[..., Path], folder: Path | str, **options: Any) -> Path:
    folder = Path(folder)
    shutil.copytree(build(**options), folder)
    return folder


def scratch(name: str) -> Path:
    """A folder that lives as long as this process."""
    root = tempfile.TemporaryDirectory(prefix=f"tiny-{name}-")
    _SCRATCH.append(root)
    return Path(root.name) / name


_SCRATCH: list[tempfile.TemporaryDirectory[str]] = []


@cache
def _build_sd1(prediction: str, standard: bool) -> Path:
    import diffusers
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(1)
        unet = diffusers.UNet2DConditionModel(
            **(STANDARD_UNET if standard else UNET),
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=64 if standard else 32,
            attention_head_dim=8 if standard else 4,
        )
        tokenizer = clip_tokenizer(standard=standard)
        pipeline = diffusers.StableDiffusionPipeline(
            vae=kl_vae(latent_channels=4, scaling_factor=0.18215, standard=standard),
            text_encoder=clip_text(tokenizer, width=64 if standard else 32, heads=1 if standard else 4),
            tokenizer=tokenizer,
            unet=lively(unet),
            scheduler=diffusers.PNDMScheduler(**BETAS, skip_prk_steps=True, prediction_type=prediction),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    return _saved(pipeline, f"sd1-{prediction}-{standard}")


@cache
def _build_sdxl(prediction: str, standard: bool) -> Path:
    import diffusers
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(2)
        unet = diffusers.UNet2DConditionModel(
            **(STANDARD_UNET if standard else UNET),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 2),
            cross_attention_dim=64 + 128 if standard else 32 + 48,
            attention_head_dim=(1, 1) if standard else (2, 4),  # their number; the published model has heads of 64 channels
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + 40,
        )
        tokenizer, tokenizer_2 = clip_tokenizer(standard=standard), clip_tokenizer("!", standard=standard)
        width, width_2, heads = (64, 128, (1, 2)) if standard else (32, 48, (4, 4))
        pipeline = diffusers.StableDiffusionXLPipeline(
            vae=kl_vae(latent_channels=4, scaling_factor=0.13025, standard=standard),
            text_encoder=clip_text(tokenizer, width=width, heads=heads[0]),
            text_encoder_2=clip_text(tokenizer_2, width=width_2, heads=heads[1], layers=3, projection=40, act="gelu", projected=True),
            tokenizer=tokenizer,
            tokenizer_2=tokenizer_2,
            unet=lively(unet),
            scheduler=diffusers.EulerDiscreteScheduler(**BETAS, timestep_spacing="leading", prediction_type=prediction),
            force_zeros_for_empty_prompt=True,
            add_watermarker=False,
        )
    return _saved(pipeline, f"sdxl-{prediction}-{standard}")


@cache
def _build_flux1(variant: str) -> Path:
    import diffusers
    import torch

    dev = variant == "dev"
    with torch.random.fork_rng():
        torch.manual_seed(3)
        transformer = diffusers.FluxTransformer2DModel(
            patch_size=1,
            in_channels=64,
            num_layers=2,
            num_single_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            pooled_projection_dim=32,
            guidance_embeds=dev,
            axes_dims_rope=(4, 6, 6),  # sums to attention_head_dim
        )
        tokenizer = clip_tokenizer()
        scheduler = {"shift": 3.0, "use_dynamic_shifting": True} if dev else {"shift": 1.0}
        pipeline = diffusers.FluxPipeline(
            transformer=lively(transformer),
            scheduler=diffusers.FlowMatchEulerDiscreteScheduler(**scheduler),
            vae=kl_vae(latent_channels=16, scaling_factor=0.3611, shift_factor=0.1159, quant=False, levels=4),
            text_encoder=clip_text(tokenizer),
            tokenizer=tokenizer,
            text_encoder_2=t5_encoder(width=32),
            tokenizer_2=t5_tokenizer(),
        )
    return _saved(pipeline, f"flux1-{variant}")


def t5_tokenizer() -> Any:
    """A T5 tokenizer of single characters, made without sentencepiece; it holds 48."""
    from transformers import T5TokenizerFast

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -2.0)] + [(chr(c), -3.0) for c in range(33, 127)]
    return T5TokenizerFast(vocab=pieces, extra_ids=0, model_max_length=48)


def t5_encoder(*, width: int) -> Any:
    """A two-layer T5 encoder for `t5_tokenizer`."""
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=len(t5_tokenizer()),
        d_model=width,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
    )
    return lively(T5EncoderModel(config))


def _saved(pipeline: Any, name: str) -> Path:
    from registry.formats.diffusers_folder import no_progress_bars

    folder = scratch(name)
    with no_progress_bars():
        pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def clip_tokenizer(pad: str = "<|endoftext|>", *, standard: bool = False) -> Any:
    """A byte-level CLIP tokenizer of 514 tokens (`standard`: CLIP's own of 49408) that holds 24: any text passes, short texts truncate."""
    from tokenizers import pre_tokenizers
    from transformers import CLIPTokenizer

    if standard:
        from registry.formats.single_file import clip_tokenizer as own_table

        return own_table(pad=pad, limit=POSITIONS)

    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {symbol: i for i, symbol in enumerate(symbols + [symbol + "</w>" for symbol in symbols])}
    vocabulary["<|startoftext|>"], vocabulary["<|endoftext|>"] = 512, 513  # the end mark is the highest id, as in CLIP
    return CLIPTokenizer(vocab=vocabulary, merges=[], pad_token=pad, model_max_length=POSITIONS)


POSITIONS = 24  # tokens a tiny prompt holds: nobody may assume 77


def clip_text(
    tokenizer: Any,
    *,
    width: int = 32,
    heads: int = 4,
    layers: int = 2,
    projection: int = 32,
    act: str = "quick_gelu",
    projected: bool = False,
) -> Any:
    """A CLIP text model of the tokenizer's vocabulary; `projected` is the kind with a pooled projection (SDXL's second)."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=POSITIONS,
        projection_dim=projection,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=1,
        hidden_act=act,
    )
    return lively((CLIPTextModelWithProjection if projected else CLIPTextModel)(config))


def kl_vae(
    *,
    latent_channels: int,
    scaling_factor: float,
    shift_factor: float | None = None,
    quant: bool = True,
    levels: int = 3,
    standard: bool = False,
) -> Any:
    """An AutoencoderKL; with three levels it has four pixels a latent cell."""
    import torch
    from diffusers import AutoencoderKL

    vae = AutoencoderKL(
        latent_channels=latent_channels,
        scaling_factor=scaling_factor,
        shift_factor=shift_factor,
        use_quant_conv=quant,
        use_post_quant_conv=quant,
        layers_per_block=1,
        norm_num_groups=32 if standard else 4,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=(32 if standard else 8,) * levels,
        sample_size=SIZE,
    ).eval()
    with torch.no_grad():  # latents of a spread near one, so that a forgotten scale would show
        vae.encoder.conv_out.weight[:latent_channels].mul_(6.0 / scaling_factor)
        if quant:  # the spread of the means must not reach the variances: latents would be noise
            vae.quant_conv.weight[latent_channels:, :latent_channels].zero_()
    return vae


def lively(model: Any) -> Any:
    """The model with embeddings and cross-attention strong enough that prompts change what it draws."""
    import torch

    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "embedding" in name and weight.ndim == 2 and "time" not in name:
                weight.normal_(0.0, 0.5)
            elif "attn2" in name and weight.ndim == 2:
                weight.mul_(3.0)
    return model.eval()


FAMILIES_HERE = ("sd1", "sdxl", "flux1")
_WRITERS: dict[str, Callable[..., Path]] = {"sd1": _build_sd1, "sdxl": _build_sdxl, "flux1": _build_flux1}
_DEFAULTS: dict[str, dict[str, Any]] = {
    "sd1": {"prediction": "epsilon", "standard": False},
    "sdxl": {"prediction": "epsilon", "standard": False},
    "flux1": {"variant": "dev"},
}


def shared_folder(family: str, **options: Any) -> Path:
    """The tiny model's folder of this process: read it, do not change it. Other families than these three take `variant`."""
    if family in _WRITERS:
        return _WRITERS[family](**{**_DEFAULTS[family], **options})
    return _build_found(family, options.get("variant") or module_of(family).VARIANTS[0])


@cache
def _build_found(family: str, variant: str) -> Path:
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(11)
        return _saved(module_of(family).pipeline(variant), f"{family}-{variant}")


def tiny_model(family: str, folder: Path | str, **options: Any) -> Path:
    """A loadable folder of any family, of its own: it may be changed."""
    shutil.copytree(shared_folder(family, **options), folder)
    return Path(folder)


@cache
def tiny_control(family: str, variant: str = "plain", *, seed: int = 1) -> Path:
    """A ControlNet's folder of this process for the family's tiny base: plain, union (three modes), or with FLUX's hint block.

    Its zero layers are filled: a fresh ControlNet changes nothing.
    """
    import torch

    from registry.formats.diffusers_folder import no_progress_bars

    with torch.random.fork_rng(), no_progress_bars():
        torch.manual_seed(100 + seed)
        net = _fresh_control(family, variant)
        with torch.no_grad():
            for weight in net.parameters():
                if not weight.any():
                    weight.normal_(0.0, 0.2 if weight.ndim > 1 else 0.02)
        folder = scratch(f"control-{family}-{variant}-{seed}")
        net.save_pretrained(folder, safe_serialization=True)
    return folder


def _fresh_control(family: str, variant: str) -> Any:
    import diffusers

    _family, parts = tiny_parts(family)
    denoiser: Any = parts.denoiser
    if family == "flux1":
        config = {name: value for name, value in denoiser.config.items() if name not in ("out_channels",) and not name.startswith("_")}
        config |= {"num_layers": 1, "num_single_layers": 2, "num_mode": 3 if variant == "union" else None}
        if variant == "hint-block":
            config |= {"conditioning_embedding_channels": 16, "num_single_layers": 0, "num_layers": 2, "patch_size": 2}
        return diffusers.FluxControlNetModel.from_config(config)
    channels = (4, 8, 8)  # a hint is made smaller by four: the pixels of the tiny latent cell
    if variant == "plain":
        return diffusers.ControlNetModel.from_unet(denoiser, conditioning_embedding_out_channels=channels)
    config = diffusers.ControlNetUnionModel.from_unet(denoiser, conditioning_embedding_out_channels=channels).config
    sizes = {"num_control_type": 3, "num_trans_channel": 8, "num_trans_head": 2, "num_proj_channel": 8}
    return diffusers.ControlNetUnionModel(**{name: value for name, value in config.items() if not name.startswith("_")} | sizes)


def tiny_parts(family: str, **options: Any) -> tuple[Any, Any]:
    """(the Family, freshly loaded Parts in float32)."""
    import torch

    from registry.families import FAMILIES

    return FAMILIES[family], FAMILIES[family].load(shared_folder(family, **options), dtype=torch.float32, device="cpu")


def plain_pipeline(family: str, *, dtype: Any = None, **options: Any) -> Any:
    """diffusers' own pipeline of the tiny model without bars, loaded in `dtype` (None: float32; a later cast would round buffers too)."""
    import diffusers
    import torch

    from registry.formats.diffusers_folder import no_progress_bars

    folder = shared_folder(family, **options)
    left_out = dict.fromkeys(getattr(module_of(family), "LEFT_OUT", {}).get(options.get("variant"), ())) if family not in _WRITERS else {}
    with no_progress_bars():
        pipeline = diffusers.DiffusionPipeline.from_pretrained(folder, dtype=dtype or torch.float32, **left_out)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
