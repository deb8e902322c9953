"""A diffusers folder read into Parts: every component by its declared class, with the dtype given, without a network."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.errors import BadFile, Faults, Refused
from registry.formats.model_folder import read_json, refuse_endless, weights
from registry.formats.quantised.component import component_files, load_by_weights, load_converted, refuse_missing
from registry.formats.quantised.weights_file import is_converted
from registry.formats.safetensors_header import read_header
from registry.launch.importing import importing
from registry.parts import Parts
from registry.quantised.layers import Choose, Quantisation
from registry.quantised.pretrained import as_plain_model, quantising
from registry.typed_values import is_number

if TYPE_CHECKING:
    import torch

LIBRARIES = {  # and what a component's class is one of there; classes of anything else would be code out of the folder: never run
    "diffusers": ("ModelMixin", "SchedulerMixin"),
    "transformers": ("PreTrainedModel", "PreTrainedTokenizerBase", "ProcessorMixin"),
}
HALF = re.compile(r"\.fp16[.-]")  # model.fp16.safetensors, model.fp16-00001-of-00002.safetensors
FLOW_CLASSES = ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler", "FlowMatchLCMScheduler")


def prediction_of(scheduler_class: str, config: Mapping[str, Any]) -> str:
    """epsilon, v_prediction or flow, from a scheduler's class and config; diffusers' own default where the key is absent."""
    if scheduler_class in FLOW_CLASSES or config.get("use_flow_sigmas"):
        return "flow"
    declared = config.get("prediction_type", "epsilon")
    return "flow" if declared == "flow_prediction" else str(declared)


def latent_factor_of(vae: Mapping[str, Any]) -> int:
    """Pixels a latent cell of a VAE's config: every block but the last halves the image, in Qwen's video VAE every downsampling."""
    if "temperal_downsample" in vae:  # AutoencoderKLQwenImage, spelled so
        return int(2 ** len(vae["temperal_downsample"]))
    blocks = (
        vae["encoder_block_out_channels"] if "encoder_block_out_channels" in vae else vae["block_out_channels"]
    )  # AutoencoderDC's first
    return int(2 ** (len(blocks) - 1))


def resolution_of(denoiser: Mapping[str, Any], vae: Mapping[str, Any]) -> int:
    """Pixels a side of the stock pipeline's image: a UNet's sample_size in latent cells; 128 cells for those without one (FLUX)."""
    cells = denoiser.get("sample_size") or 128
    return int(cells if isinstance(cells, int) else cells[0]) * latent_factor_of(vae)


def load_folder(
    path: Path,
    *,
    denoiser: str,
    text_encoders: tuple[str, ...],
    tokenizers: tuple[str, ...],
    predictions: tuple[str, ...],
    dtype: torch.dtype,
    device: torch.device | str,
    loaded: Mapping[str, Any] | None = None,
    quantised: Quantisation | None = None,
) -> Parts:
    """Parts of a diffusers folder, frozen and in eval mode, with every weight in `dtype` but for the `quantised`.

    `loaded` components are taken as they are.

    On the device "meta" no weight is read: a skeleton to count, to match and to tokenise with.
    The config files are checked together before a weight is read. A component listed as null in model_index.json and not
    asked for is left out. Raises Faults or BadFile.
    """
    index = read_json(path / "model_index.json")
    wanted = (denoiser, "vae", *text_encoders, *tokenizers, "scheduler")
    with importing():
        classes = _component_classes(path, index, wanted)
    scheduler_config = read_json(path / "scheduler" / "scheduler_config.json")
    prediction = prediction_of(classes["scheduler"].__name__, scheduler_config)
    if prediction not in predictions:
        expected = " or ".join(predictions)
        raise BadFile(path, "prediction", f"its scheduler says the model predicts {prediction!r}; this family knows {expected}.")

    for name in (denoiser, "vae", *text_encoders):
        if name not in (loaded or {}):
            refuse_endless(path / name / "config.json")
    with no_progress_bars():
        modules = {
            name: (loaded or {}).get(name)
            or load_module(
                classes[name], path / name, dtype=dtype, empty=str(device) == "meta", choose=quantised.of(name) if quantised else None
            )
            for name in (denoiser, "vae", *text_encoders)
        }
    check_scaling(path / "vae", modules["vae"].config)
    for module in modules.values():
        module.requires_grad_(False).eval().to(device)
    return Parts(
        denoiser=modules[denoiser],
        vae=modules["vae"],
        text_encoders={name: modules[name] for name in text_encoders},
        tokenizers={name: _tokenizer(classes[name], path / name) for name in tokenizers},
        scheduler_class=classes["scheduler"].__name__,
        scheduler_config={key: value for key, value in scheduler_config.items() if not key.startswith("_")},
        prediction=prediction,
        source=path,
        latent_factor=latent_factor_of(modules["vae"].config),
        resolution=resolution_of(modules[denoiser].config, modules["vae"].config),
        config=pipeline_settings(index),
    )


def check_scaling(path: Path, vae: Mapping[str, Any]) -> None:
    """Raise BadFile for a VAE whose latents have no scale: they are divided by it when they are decoded."""
    factor = vae.get("scaling_factor", 1.0)
    if not is_number(factor) or factor == 0:
        raise BadFile(path, "wrong-config", f"has scaling_factor {factor!r}; a number other than 0 was expected. Copy it again.")


def pipeline_settings(index: Mapping[str, Any]) -> dict[str, Any]:
    """Pipeline settings of model_index.json beside the components: those are pairs of a library and a class, or of nulls."""
    return {key: value for key, value in index.items() if not key.startswith("_") and not is_component(value)}


def is_component(value: object) -> bool:
    """Whether an entry of model_index.json is a component: a library and a class, or two nulls. Other lists are settings."""
    return isinstance(value, list) and len(value) == 2 and all(part is None or isinstance(part, str) for part in value)


def _tokenizer(tokenizer_class: Any, folder: Path) -> Any:
    """The tokenizer of a folder. A processor (FLUX.2's Pixtral) is one with a reader of images, which would want torchvision."""
    from transformers import AutoTokenizer

    reader = AutoTokenizer if tokenizer_class.__name__.endswith("Processor") else tokenizer_class
    tokenizer = reader.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    limit = tokenizer.model_max_length
    if not isinstance(limit, int | float) or not limit >= 1:
        raise BadFile(folder, "wrong-config", f"has model_max_length {limit!r}; a number of tokens was expected. Copy it again.")
    return tokenizer


def refuse_base_config(path: Path, base_config: Path | str | None) -> None:
    """A diffusers folder has its own configs: another's beside it would be ignored, so it is refused."""
    if base_config is not None:
        raise Refused(f"base_config={base_config} was given for {path}, which is a diffusers folder with configs of its own. Leave it out.")


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """transformers and diffusers draw bars for what they load; the console is loraloom's."""
    import diffusers.utils.logging
    import transformers.utils.logging

    loggers: list[Any] = [module for module in (diffusers.utils.logging, transformers.utils.logging) if module.is_progress_bar_enabled()]
    for module in loggers:
        module.disable_progress_bar()
    try:
        yield
    finally:
        for module in loggers:
            module.enable_progress_bar()


def _component_classes(path: Path, index: Mapping[str, Any], wanted: tuple[str, ...]) -> dict[str, Any]:
    """The classes model_index.json names for the wanted components; all faults are reported together."""
    import importlib

    classes: dict[str, Any] = {}
    faults: list[str] = []
    for name in wanted:
        entry = index.get(name)
        if entry is None or entry == [None, None]:
            faults.append(f"model_index.json has no component {name!r}, which this family needs")
        elif fault := class_fault(entry):
            faults.append(f"component {name!r} {fault}")
        elif not (path / name).is_dir():
            faults.append(f"the folder {name}/ is missing")
        else:
            classes[name] = getattr(importlib.import_module(entry[0]), entry[1])
    if faults:
        raise Faults(f"{path} cannot be loaded:", faults)
    return classes


def class_fault(entry: object) -> str | None:
    """Why the class that an entry of model_index.json names is not loaded, as the rest of a sentence; None for one that is.

    Only models and schedulers of diffusers, models and tokenizers of transformers are: the libraries' Auto classes and pipelines take
    classes, and their code, from the folder.
    """
    import importlib

    if not isinstance(entry, list) or len(entry) != 2 or not all(isinstance(part, str) for part in entry):
        return f"is {str(entry)[:80]}; a library and a class were expected"
    library, class_name = entry
    if library not in LIBRARIES:
        return f"wants code from {library!r}; only classes of {' and '.join(LIBRARIES)} are loaded"
    if class_name.startswith("Auto") and not class_name.startswith("Autoencoder"):
        return f"names {class_name}, which takes its class from the folder. Name the class itself, such as CLIPTokenizer"
    found = getattr(importlib.import_module(library), class_name, None) if class_name.isidentifier() else None
    if found is None:
        return f"wants {library}.{class_name}, which the installed {library} does not have"
    try:
        loads = isinstance(found, type) and hasattr(found, "from_pretrained")
    except ImportError as error:  # transformers' placeholder of a class that needs a package; of a processor only the tokenizer is read
        return None if class_name.endswith("Processor") else f"wants {library}.{class_name}: {' '.join(str(error).split())}"
    if loads and issubclass(found, tuple(getattr(importlib.import_module(library), base) for base in LIBRARIES[library])):
        return None
    return f"wants {library}.{class_name}, which is no class of a component"


def weights_in(folder: Path) -> list[str]:
    """The names of a component's safetensors files, or of its one GGUF file.

    Raises BadFile where there are none, or only pickles, or where a shard is missing.
    """
    whole = weights(folder)
    whole.check({file.name: read_header(file).tensors for file in whole.files})
    blocks = [file.name for file in sorted(folder.glob("*.gguf"))]
    if not whole.files and len(blocks) > 1:
        raise BadFile(folder, "not-a-model", f"has several GGUF files ({', '.join(blocks[:3])}). Keep the one that is to be used.")
    if not whole.files and blocks:
        return blocks
    if not whole.files:
        pickles = [file.name for file in (*folder.glob("*.bin"), *folder.glob("*.ckpt"), *folder.glob("*.pt"))]
        if pickles:
            raise BadFile(folder, "pickle", f"has only pickled weights ({pickles[0]}), which can run code. Convert them to safetensors.")
        raise BadFile(folder, "not-a-model", "has no .safetensors weights. Copy the whole folder again.")
    return [file.name for file in whole.files]


def load_module(model_class: Any, folder: Path, *, dtype: torch.dtype, empty: bool = False, choose: Choose | None = None) -> Any:
    """One component's model with its weights in `dtype`, from safetensors only; `empty`: from its config, on the meta device.

    `choose`: the layers that are quantised as they are read.
    Raises BadFile for weights that are missing: the libraries would fill in random ones, or stumble over them later.
    """
    import torch

    names = weights_in(folder)
    refuse_endless(folder / "config.json")
    files = component_files(folder, names)
    if any(file.packed or not file.mapped for file in files):
        return load_by_weights(model_class, folder, files, dtype=dtype, choose=choose, empty=empty)
    if empty:
        with torch.device("meta"):
            if hasattr(model_class, "load_config"):
                module = model_class.from_config(model_class.load_config(folder, local_files_only=True))
            else:
                module = model_class(model_class.config_class.from_pretrained(folder, local_files_only=True, trust_remote_code=False))
        return module if module.dtype == dtype else module.to(dtype)  # diffusers warns of every cast
    if choose is not None and hasattr(model_class, "load_config"):
        return load_by_weights(model_class, folder, files, dtype=dtype, choose=choose, empty=False)
    if choose is not None or is_converted(chain.from_iterable(file.tensors.values() for file in files), dtype):
        converted = load_converted(model_class, folder, files, dtype=dtype, choose=choose)
        if converted is not None:
            return converted
    variant = "fp16" if all(HALF.search(name) for name in names) else None  # it is loaded only where there is no plain one
    options = {"dtype": dtype, "variant": variant, "use_safetensors": True, "local_files_only": True}
    if not hasattr(model_class, "load_config"):  # of transformers; diffusers' models know no code but their own
        options["trust_remote_code"] = False
    if choose is not None:
        options["quantization_config"] = quantising(choose)
    module, declared = model_class.from_pretrained(folder, **options, output_loading_info=True)
    refuse_missing(folder, declared["missing_keys"])
    if choose is not None:
        as_plain_model(module)
    return module
