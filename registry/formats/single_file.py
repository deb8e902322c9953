"""A single-file checkpoint read into Parts, with no network: where its configs and tokenizers come from is fixed.

Configs come from, in this order: a diffusers folder given as `base_config`; the file's own header, if loraloom wrote it; the shapes.
The published model's shapes determine everything. Other shapes leave numbers open that are in no shape (heads, norm
groups): the family's constants are assumed for them, with a warning. Where that is not possible the file is
refused with the word `base_config`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.architectures.unet.header import V_MARKS, ZERO_SNR_MARK, declared_prediction
from registry.architectures.unet.ldm_sizes import NoConfig
from registry.errors import BadFile, Refused
from registry.formats.diffusers_folder import check_scaling, latent_factor_of, load_module, pipeline_settings, prediction_of, resolution_of
from registry.formats.key_map import EveryKey, KeyLocation
from registry.formats.model_folder import read_json, refuse_endless
from registry.formats.model_header import ModelHeader
from registry.formats.quantised.loading import load_mapped
from registry.formats.quantised.weights_file import WeightsFile, weights_file
from registry.formats.safetensors_header import TensorInfo
from registry.formats.state_dict import check_mapped, shapes_of
from registry.home import clip_bpe_dir
from registry.launch.importing import importing
from registry.parts import Parts
from registry.plain_values import from_json
from registry.quantised.layers import Choose, Quantisation

if TYPE_CHECKING:
    import torch
    from torch import nn

CONFIGS_ENTRY = "loraloom.components"  # header metadata: one JSON {component: config}
GIVEN_PREDICTION = "the user's setting"
CLIP_TOKENS = 49408  # entries of CLIP's own table, the only one carried
HINT = "Give base_config=FOLDER, a diffusers folder of the same build."
UNUSED = re.compile(  # tensors of a checkpoint that inference does not use
    r"(^|\.)(position_ids|logit_scale|alphas_cumprod\w*|betas|sqrt_\w+|log_one_\w+|posterior_\w+|lvlb_weights|v_pred|ztsnr|edm_\w+(\.\w+)?)$"
    r"|^model_ema\.|\.loss\.|^denoiser\.sigmas$|^edm_|^cond_stage_model\.transformer\.(text_model\.)?text_projection"
)


DeclaredPrediction = tuple[str, str] | tuple[None, None]  # (prediction, its source), or neither


@dataclass(frozen=True, kw_only=True)
class ComponentSpec:
    """One component as a single file holds it."""

    component: str  # unet, vae, text_encoder, ...
    library: str  # diffusers or transformers
    class_name: str
    prefix: str
    location: Callable[[Mapping[str, Any], str, tuple[int, ...]], KeyLocation | None]  # (config, parameter, shape), without the prefix
    sizes: Callable[[Mapping[str, TensorInfo]], dict[str, Any]]  # shapes -> the config's sizes; raises NoConfig
    constants: Callable[[Mapping[str, Any]], dict[str, Any]]  # sizes -> the settings that are in no shape
    published: Mapping[str, Any]  # the sizes of the published model, for which the constants are known to be right
    spare: Callable[[Mapping[str, Any], str], bool] = lambda _config, _name: False  # (config, name) the model has no use for, as published
    identities: tuple[str, ...] = ()  # parameters that are the identity where the file has none

    def places(self, config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], keys: Container[str]) -> dict[str, KeyLocation]:
        """Its parameters among a file's keys (FileKeyMap)."""
        found: dict[str, KeyLocation] = {}
        for name, shape in shapes.items():
            location = self.location(config, name, shape)
            key = _present(keys, self.prefix, location.key) if location is not None else None
            if location is not None and key is not None:
                found[name] = replace(location, key=key)
        return found


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The components of a family's single files, and the defaults for what they lack."""

    pieces: tuple[ComponentSpec, ...]
    tokenizers: Mapping[str, tuple[str, str]]  # component -> (the text encoder it feeds, its pad token)
    scheduler: Callable[[str, bool], tuple[str, dict[str, Any]]]  # (prediction, zero terminal SNR) -> class, config
    pipeline: Mapping[str, Any] = field(default_factory=dict)  # pipeline-level settings
    settle: Callable[[dict[str, dict[str, Any]], str], None] | None = None  # what follows from all sizes together and the prediction
    assumed_prediction: str | None = "epsilon"  # of files that do not say; None: published for either, so such a file is refused

    published = EveryKey()
    implementation = "https://github.com/Stability-AI/generative-models"  # as ModelSpec has it for the whole line

    def shape_in_file(self, key: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The VAE's attention is four 1 x 1 convolutions there (FileKeyMap)."""
        return (*shape, 1, 1) if ".mid.attn_1." in key and len(shape) == 2 else shape

    def places(
        self, component: str, config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], keys: Container[str]
    ) -> dict[str, KeyLocation]:
        """The parameters of one of its pieces in a file (FileKeyMap)."""
        return next((piece.places(config, shapes, keys) for piece in self.pieces if piece.component == component), {})


def load_single_file(
    path: Path,
    layout: Layout,
    *,
    denoiser: str,
    dtype: torch.dtype,
    device: torch.device | str,
    base_config: Path | str | None,
    prediction: str | None = None,
    quantised: Quantisation | None = None,
) -> Parts:
    """Parts of a single file, frozen and in eval mode, every weight in `dtype` but for the `quantised`.

    Raises BadFile or Refused (`base_config`).

    `prediction` is the user's override of the file's own marks and of any config.
    On the device "meta" no weight is read: a skeleton to count, to match and to tokenise with.
    """
    file = _with_prefix(weights_file(path), layout, denoiser)
    folder = Path(base_config) if base_config is not None else None
    warnings: list[str] = []
    taken: set[str] = set()
    declared = (
        (prediction, GIVEN_PREDICTION)
        if prediction is not None
        else declared_prediction(ModelHeader(path=path, tensors=file.tensors, metadata=file.metadata))
    )
    configs = _configs(path, layout, file, folder, declared, warnings)
    empty = str(device) == "meta"
    modules = {
        piece.component: _build(
            path, piece, configs[piece.component], file, folder, dtype, warnings, taken, empty=empty, choose=_choose(quantised, piece)
        )
        for piece in layout.pieces
    }
    vae: Any = modules["vae"]
    check_scaling(path, vae.config)
    _warn_of_leftovers(layout, configs, taken, file, warnings)
    for module in modules.values():
        module.requires_grad_(False).eval().to(device)
    scheduler_class, scheduler_config = _scheduler(path, layout, file, configs, declared, warnings)
    return Parts(
        denoiser=modules[denoiser],
        vae=vae,
        text_encoders={encoder: modules[encoder] for encoder, _pad in layout.tokenizers.values()},
        tokenizers={name: _tokenizer(path, name, layout, configs, folder) for name in layout.tokenizers},
        scheduler_class=scheduler_class,
        scheduler_config=scheduler_config,
        prediction=prediction_of(scheduler_class, scheduler_config),
        source=path,
        latent_factor=latent_factor_of(configs["vae"]),
        resolution=resolution_of(configs[denoiser], configs["vae"]),
        config=configs.get("pipeline", layout.pipeline),
        warnings=tuple(warnings),
    )


def _with_prefix(file: WeightsFile, layout: Layout, denoiser: str) -> WeightsFile:
    """A file that holds the denoiser alone, as GGUF files do, has its names without the prefix of a checkpoint."""
    prefix = next(piece.prefix for piece in layout.pieces if piece.component == denoiser)
    alone = not any(key.startswith(prefix) for key in file.tensors) and "input_blocks.0.0.weight" in file.tensors
    return file.with_prefix(prefix) if alone else file


def load_pieces(
    path: Path,
    pieces: Sequence[ComponentSpec],
    folder: Path,
    *,
    dtype: torch.dtype,
    empty: bool,
    quantised: Quantisation | None = None,
) -> tuple[dict[str, Any], dict[str, frozenset[str]]]:
    """({component: its module}, {component: its keys}) of the pieces that a file holds, their configs from a diffusers folder."""
    file = weights_file(path)
    modules: dict[str, Any] = {}
    keys: dict[str, frozenset[str]] = {}
    for piece in pieces:
        inside = _inside(file.tensors, piece.prefix)
        if inside:
            config = read_json(folder / piece.component / "config.json")
            choose = _choose(quantised, piece)
            modules[piece.component] = _build(path, piece, config, file, folder, dtype, [], set(), empty=empty, choose=choose)
            keys[piece.component] = frozenset(piece.prefix + name for name in inside)
    return modules, keys


def _choose(quantised: Quantisation | None, piece: ComponentSpec) -> Choose | None:
    return quantised.of(piece.component) if quantised is not None else None


# --- configs


def _configs(
    path: Path, layout: Layout, file: WeightsFile, folder: Path | None, declared: DeclaredPrediction, warnings: list[str]
) -> dict[str, dict[str, Any]]:
    """The config of every component, of the scheduler and of the pipeline where they are known."""
    if folder is not None:
        return _folder_configs(layout, folder)
    if CONFIGS_ENTRY in file.metadata:
        return _written_configs(path, layout, file.metadata[CONFIGS_ENTRY])
    counted = {piece.component: _counted(path, piece, file, warnings) for piece in layout.pieces}
    if layout.settle is not None:
        layout.settle(counted, _prediction(path, layout, declared))
    return counted


def _written_configs(path: Path, layout: Layout, text: str) -> dict[str, dict[str, Any]]:
    """The configs that loraloom wrote into a single file's header. Raises BadFile."""
    try:
        written = from_json(text)
    except ValueError as error:
        raise BadFile(path, "bad-header", f"its header's {CONFIGS_ENTRY} is not readable JSON ({error}). {HINT}") from error
    needed = [*(piece.component for piece in layout.pieces), "scheduler"]
    if not isinstance(written, dict) or not all(isinstance(written.get(name), dict) for name in needed):
        raise BadFile(path, "bad-header", f"its header's {CONFIGS_ENTRY} lacks a config; {', '.join(needed)} were expected. {HINT}")
    return written


def _folder_configs(layout: Layout, folder: Path) -> dict[str, dict[str, Any]]:
    """The configs of a diffusers folder, the scheduler's with its class name."""
    index = read_json(folder / "model_index.json")
    configs = {piece.component: read_json(folder / piece.component / "config.json") for piece in layout.pieces}
    configs["scheduler"] = read_json(folder / "scheduler" / "scheduler_config.json")
    configs["scheduler"].setdefault("_class_name", index["scheduler"][1])
    configs["pipeline"] = pipeline_settings(index)
    return configs


def component_configs(folder: Path, components: Sequence[str]) -> dict[str, str]:
    """Header metadata that lets a single file made from this folder be loaded without it: {CONFIGS_ENTRY: one JSON}."""
    index = read_json(folder / "model_index.json")
    configs: dict[str, Any] = {component: read_json(folder / component / "config.json") for component in components}
    configs["scheduler"] = {"_class_name": index["scheduler"][1], **read_json(folder / "scheduler" / "scheduler_config.json")}
    configs["pipeline"] = pipeline_settings(index)
    return {CONFIGS_ENTRY: json.dumps(configs, sort_keys=True)}


def _counted(path: Path, piece: ComponentSpec, file: WeightsFile, warnings: list[str]) -> dict[str, Any]:
    """A component's config from the file's shapes and the family's constants."""
    shapes = _inside(file.tensors, piece.prefix)
    if not shapes:
        raise Refused(f"{path.name} has no {piece.component} (no tensor under {piece.prefix!r}). {HINT}")
    try:
        sizes = piece.sizes(shapes)
    except (NoConfig, KeyError, IndexError) as error:
        raise Refused(f"{path.name}: the sizes of its {piece.component} cannot be read from its shapes ({error}). {HINT}") from error
    constants = piece.constants(sizes)
    unusual = [f"{name} {value}" for name, value in sizes.items() if name in piece.published and piece.published[name] != value]
    if unusual:
        assumed = ", ".join(f"{name} {value}" for name, value in constants.items() if name in ASSUMED)
        warnings.append(
            f"{path.name}: its {piece.component} is not of the published size ({', '.join(unusual)}). The rest is in no shape, so it is "
            f"assumed: {assumed}. base_config=FOLDER settles it."
        )
    return {**constants, **sizes}


ASSUMED = ("attention_head_dim", "norm_num_groups", "num_attention_heads", "hidden_act", "scaling_factor")


def _inside(tensors: Mapping[str, TensorInfo], prefix: str) -> dict[str, TensorInfo]:
    return {key.removeprefix(prefix): info for key, info in tensors.items() if key.startswith(prefix)}


# --- weights


def _build(
    path: Path,
    piece: ComponentSpec,
    config: Mapping[str, Any],
    file: WeightsFile,
    folder: Path | None,
    dtype: torch.dtype,
    warnings: list[str],
    taken: set[str],
    *,
    empty: bool,
    choose: Choose | None = None,
) -> nn.Module:
    """One component with its weights from the file, whose keys are added to `taken`; one that it has not comes from the folder."""
    import importlib

    import torch

    with importing():
        model_class = getattr(importlib.import_module(piece.library), piece.class_name)
    if folder is not None and not _inside(file.tensors, piece.prefix):
        warnings.append(f"{path.name} has no {piece.component}; it is taken from {folder}.")
        other: nn.Module = load_module(model_class, folder / piece.component, dtype=dtype, empty=empty, choose=choose)
        return other
    module: nn.Module = empty_module(piece.library, model_class, config, path=path, component=piece.component)
    shapes = shapes_of(module)
    built: Any = module.config
    key_map = piece.places(built, shapes, file.tensors)
    check_mapped(path, file.tensors, key_map, shapes, component=piece.component, hint=HINT, optional=piece.identities)
    identities = {name: torch.eye(*shapes[name], dtype=dtype) for name in piece.identities if name not in key_map}
    load_mapped(module, file, key_map, component=piece.component, dtype=dtype, choose=choose, empty=empty, others=identities)
    taken.update(location.key for location in key_map.values())
    return module


def read_piece(path: Path, piece: ComponentSpec, config: Mapping[str, Any], *, dtype: torch.dtype, empty: bool) -> nn.Module:
    """One component alone from a single file, by a config that is known. Raises BadFile or Refused."""
    return _build(path, piece, config, weights_file(path), None, dtype, [], set(), empty=empty)


def empty_module(library: str, model_class: Any, config: Mapping[str, Any], *, path: Path, component: str) -> Any:
    """The module of a config with its parameters on the meta device."""
    from accelerate import init_empty_weights

    refuse_endless(path, config)
    settings = {key: value for key, value in config.items() if not key.startswith("_")}
    try:
        with init_empty_weights():
            if library == "diffusers":
                return model_class.from_config(settings)
            return model_class(model_class.config_class(**settings))
    except (ValueError, TypeError, ZeroDivisionError) as error:
        raise Refused(f"{path.name}: a {component} of its sizes cannot be built ({error}). {HINT}") from error


def _present(tensors: Container[str], prefix: str, key: str) -> str | None:
    """The key as the file spells it: CLIP's names have `text_model.` or, in some merges, not."""
    for spelling in (prefix + key, prefix + key.removeprefix("text_model.")):
        if spelling in tensors:
            return spelling
    return None


def _warn_of_leftovers(
    layout: Layout, configs: Mapping[str, Mapping[str, Any]], taken: Container[str], file: WeightsFile, warnings: list[str]
) -> None:
    """Warn of tensors that no component took."""
    left = [key for key in file.tensors if key not in taken and not UNUSED.search(key) and not _is_spare(layout, configs, key)]
    if left:
        warnings.append(f"{len(left)} of the file's {len(file.tensors)} tensors are of no use here and were left out (first: {left[0]}).")


def _is_spare(layout: Layout, configs: Mapping[str, Mapping[str, Any]], key: str) -> bool:
    """Whether a tensor is one that published files carry and drawing has no use for."""
    return any(
        key.startswith(piece.prefix) and piece.spare(configs[piece.component], key.removeprefix(piece.prefix)) for piece in layout.pieces
    )


# --- scheduler and tokenizers


def _prediction(path: Path, layout: Layout, declared: DeclaredPrediction) -> str:
    """The file's prediction: the declared one, else the family's default. Refused where there is none."""
    if declared[0] is not None:
        return declared[0]
    if layout.assumed_prediction is None:
        raise Refused(
            f"{path.name} has no mark of whether it predicts epsilon or v, and its shapes are no help: this build was published for both "
            "(512 pixels: epsilon, 768: v), and the wrong one draws noise. Set prediction=v_prediction or prediction=epsilon "
            "(`loraloom registry set REF --prediction ...` does so once), or give base_config=FOLDER, a diffusers folder of the same "
            "build, whose scheduler config has it."
        )
    return layout.assumed_prediction


def _scheduler(
    path: Path,
    layout: Layout,
    file: WeightsFile,
    configs: Mapping[str, Mapping[str, Any]],
    declared: DeclaredPrediction,
    warnings: list[str],
) -> tuple[str, dict[str, Any]]:
    """The scheduler's class and config: the given one, with the prediction of the user or of the file's own marks."""
    prediction, why = declared
    if "scheduler" not in configs:
        assumed = _prediction(path, layout, declared)
        if prediction is None:
            warnings.append(f"{path.name} has no mark of its prediction; {assumed} is assumed, as in the published models.")
        return layout.scheduler(assumed, any(mark in file.tensors for mark in (ZERO_SNR_MARK, V_MARKS[1])))
    given = {key: value for key, value in configs["scheduler"].items() if not key.startswith("_")}
    scheduler_class = str(configs["scheduler"]["_class_name"])
    if prediction is not None and prediction_of(scheduler_class, given) != prediction:
        warnings.append(f"{path.name} predicts {prediction} by {why}; the given scheduler config differs and is overridden.")
        given["prediction_type"] = prediction
    return scheduler_class, given


def _tokenizer(path: Path, name: str, layout: Layout, configs: Mapping[str, Mapping[str, Any]], folder: Path | None) -> Any:
    """The tokenizer of base_config, else CLIP's own table where the encoder has as many tokens."""
    from transformers import CLIPTokenizer

    if folder is not None:
        return CLIPTokenizer.from_pretrained(folder / name, local_files_only=True, trust_remote_code=False)
    encoder, pad = layout.tokenizers[name]
    tokens = configs[encoder]["vocab_size"]
    if tokens != CLIP_TOKENS:
        raise Refused(f"{path.name}: its {encoder} knows {tokens} tokens, but only CLIP's own table of {CLIP_TOKENS} is carried. {HINT}")
    return clip_tokenizer(pad=pad, limit=int(configs[encoder]["max_position_embeddings"]))


def clip_tokenizer(*, pad: str, limit: int) -> Any:
    """CLIP's own tokenizer, holding `limit` tokens, padded with `pad`."""
    from transformers import CLIPTokenizer

    table = clip_bpe_dir()
    vocabulary = json.loads((table / "vocab.json").read_text(encoding="utf-8"))
    lines = (table / "merges.txt").read_text(encoding="utf-8").splitlines()
    merges = [tuple(line.split()) for line in lines if line and not line.startswith("#version")]
    return CLIPTokenizer(vocab=vocabulary, merges=merges, pad_token=pad, model_max_length=limit)
