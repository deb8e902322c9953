"""A component of a diffusers folder read weight by weight: its libraries' own loading has the whole of it in memory.

For what is quantised as it is read, and for files that are quantised already. Names are the component's own; old names of a text
encoder's weights are those that transformers itself knows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.errors import BadFile
from registry.formats.model_folder import read_json
from registry.formats.quantised.llama_names import ARCHITECTURES, transformers_name
from registry.formats.quantised.weights_file import WeightsFile, packed_titles, weights_file
from registry.formats.state_dict import shapes_of
from registry.quantised.checks import refuse_requantised
from registry.quantised.place import fill
from registry.quantised.skeleton import note_stored
from registry.quantised.stored import StoredWeight

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from registry.quantised.layers import Choose

UNREAD = re.compile(
    r"(^|\.)(lm_head|visual|vision_tower|multi_modal_projector)\."
)  # of language models: their text states are all that is used
CONFIG = "quantization_config"


def component_files(folder: Path, names: Sequence[str]) -> list[WeightsFile]:
    """The files of a component. Raises BadFile for one that its config declares quantised in a way that is not read."""
    files = [weights_file(folder / name) for name in names]
    declared = read_json(folder / "config.json").get(CONFIG)
    if declared and not any(file.packed for file in files):
        method = declared.get("quant_method") if isinstance(declared, dict) else declared
        raise BadFile(folder, "quantised", f"is quantised by {str(method)[:40]}, which is not read here. Use the bf16 or fp16 folder.")
    return files


def load_by_weights(
    model_class: Any, folder: Path, files: Sequence[WeightsFile], *, dtype: torch.dtype, choose: Choose | None, empty: bool
) -> Any:
    """The model, its quantised weights as they are stored; `empty`: on the meta device, where these are noted. Raises BadFile."""
    if choose is not None:
        for file in files:
            refuse_requantised(folder.name, packed_titles(file.packed, file.tensors, rounded=True))
    module = _empty(model_class, folder, dtype, whole=empty)
    shapes = shapes_of(module)
    names = {name: key for file in files for key, name in _names(module, file).items() if name in shapes}
    tied: Mapping[str, str] = getattr(module, "all_tied_weights_keys", {})  # of transformers
    refuse_missing(folder, (name for name in shapes.keys() - names.keys() if name not in tied and tied.get(name) not in names))
    exact = _exact(module, dtype)
    dtypes = {name: exact[0] for name in shapes if set(name.split(".")) & exact[1]}

    def weights(file: WeightsFile, read: Any) -> Iterator[tuple[str, Tensor | StoredWeight]]:
        for key, name in ((key, name) for name, key in names.items() if key in file.tensors):
            weight = read(key)
            if tuple(weight.shape) != shapes[name]:
                found = f"{key} is {tuple(weight.shape)} where {shapes[name]} was expected"
                raise BadFile(folder, "wrong-config", f"does not fit its config: {found}. Copy the whole folder again.")
            if isinstance(weight, StoredWeight):
                yield name, weight
            else:
                yield name, weight.to(dtypes.get(name, dtype)) if weight.is_floating_point() else weight

    keep = not folder.name.startswith("vae")
    if empty and not keep:
        return module
    if empty:
        note_stored(module, (pair for file in files for pair in weights(file, file.sizes) if isinstance(pair[1], StoredWeight)))
        return module
    for number, file in enumerate(files):
        with file.reading() as read:
            fill(module, weights(file, read), None if number else choose, dtype=dtype, dtypes=dtypes, keep=keep)
    if tied:
        module.tie_weights()
    return module


def refuse_missing(folder: Path, names: Iterable[str]) -> None:
    """Raise BadFile for weights of the model that its files lack."""
    missing = sorted(name for name in names if not UNREAD.search(name))
    if missing:
        raise BadFile(
            folder, "missing-weights", f"lacks {len(missing)} of its model's weights (first: {missing[0]}). Copy the whole folder again."
        )


def _empty(model_class: Any, folder: Path, dtype: torch.dtype, *, whole: bool) -> Any:
    """The model of a folder's config without its weights; `whole`: its buffers are on the meta device too."""
    import torch
    from accelerate import init_empty_weights

    def made() -> Any:
        if hasattr(model_class, "load_config"):
            config = model_class.load_config(folder, local_files_only=True)
            return model_class.from_config({key: value for key, value in config.items() if key != CONFIG})
        config = model_class.config_class.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        if hasattr(config, CONFIG):
            delattr(config, CONFIG)
        return model_class(config)

    if whole:
        with torch.device("meta"):
            module = made()
        return module if module.dtype == dtype else module.to(dtype)  # diffusers warns of every cast
    with init_empty_weights():
        return made()


def _exact(module: Any, dtype: torch.dtype) -> tuple[torch.dtype, set[str]]:
    """What is kept in fp32, as the libraries' own loading has it: transformers does so for fp16 alone."""
    import torch

    always = set(getattr(module, "_keep_in_fp32_modules", None) or ())
    if hasattr(module, "_keep_in_fp32_modules_strict"):
        strict = set(module._keep_in_fp32_modules_strict or ())
        always = strict | always if dtype == torch.float16 else strict
    return torch.float32, always


def _names(module: Any, file: WeightsFile) -> dict[str, str]:
    """Key of the file -> name of the parameter."""
    if hasattr(module, "load_config"):
        return {key: key for key in file.tensors}
    spelled = _spelled(file)
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, rename_source_key

    mapping = get_model_conversion_mapping(module)
    converters = [one for one in mapping if isinstance(one, WeightConverter)]
    renamings = [one for one in mapping if not isinstance(one, WeightConverter)]
    state = module.state_dict()
    found = {}
    for key, own in spelled.items():
        name, pattern = rename_source_key(own, renamings, converters, module.base_model_prefix, state)
        if pattern is not None and key in file.packed:
            raise BadFile(file.path, "quantised", f"has {key} quantised, which transformers makes of several tensors. Use the bf16 files.")
        found[key] = name
    return found


def _spelled(file: WeightsFile) -> dict[str, str]:
    """Key of the file -> the name that transformers writes. Raises BadFile for a GGUF file of an unknown text encoder."""
    if file.mapped:
        return {key: key for key in file.tensors}
    architecture = file.metadata.get("general.architecture", "")
    if architecture not in ARCHITECTURES:
        what = f"is a GGUF text encoder of {architecture[:40]!r}; {', '.join(ARCHITECTURES)} are read. Use its safetensors files."
        raise BadFile(file.path, "quantised", what)
    return {key: transformers_name(architecture, key) for key in file.tensors}
