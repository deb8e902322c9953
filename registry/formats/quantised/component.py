"""A component of a diffusers folder read weight by weight: its libraries' own loading has the whole of it in memory.

For what is quantised as it is read, and for files that are quantised already. Names are the component's own; old names of a text
encoder's weights are those that transformers itself knows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.budget.freed import give_back
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
    component = _component(model_class, folder, files, dtype, empty=empty)
    refuse_missing(folder, component.missing())
    keep = not folder.name.startswith("vae")
    if empty and not keep:
        return component.module
    if empty:
        read = (pair for file in files for pair in component.weights(file, file.sizes) if isinstance(pair[1], StoredWeight))
        note_stored(component.module, read)
        return component.module
    return component.filled(files, choose, keep=keep)


def load_converted(model_class: Any, folder: Path, files: Sequence[WeightsFile], *, dtype: torch.dtype, choose: Choose | None) -> Any:
    """The model of plain files in another dtype or quantised; None where only the libraries' own loading knows its names.

    That maps the files, and what was converted stays in memory until the last weight of a file was: nearly two models for one.
    """
    with default_dtype(dtype):  # as the libraries' own loading: of buffers that are in no file
        component = _component(model_class, folder, files, dtype, empty=False)
    return None if any(component.missing()) or component.made_of_several else component.filled(files, choose, keep=False)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """New tensors are in this dtype."""
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@dataclass(frozen=True)
class _Component:
    """A model without weights, and where its files have them."""

    module: Any
    folder: Path
    dtype: torch.dtype
    names: Mapping[str, str]  # of a parameter -> its key in a file
    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, torch.dtype]  # of what is kept in fp32
    made_of_several: bool  # some weights, by transformers

    def missing(self) -> Iterator[str]:
        """The parameters that are in no file."""
        tied: Mapping[str, str] = getattr(self.module, "all_tied_weights_keys", {})  # of transformers
        return (name for name in self.shapes.keys() - self.names.keys() if name not in tied and tied.get(name) not in self.names)

    def weights(self, file: WeightsFile, read: Any) -> Iterator[tuple[str, Tensor | StoredWeight]]:
        """What a file has of it. Raises BadFile for another shape."""
        for key, name in ((key, name) for name, key in self.names.items() if key in file.tensors):
            weight = read(key)
            if tuple(weight.shape) != self.shapes[name]:
                found = f"{key} is {tuple(weight.shape)} where {self.shapes[name]} was expected"
                raise BadFile(self.folder, "wrong-config", f"does not fit its config: {found}. Copy the whole folder again.")
            if isinstance(weight, StoredWeight):
                yield name, weight
            else:
                yield name, weight.to(self.dtypes.get(name, self.dtype)) if weight.is_floating_point() else weight

    def filled(self, files: Sequence[WeightsFile], choose: Choose | None, *, keep: bool) -> Any:
        """The model with its weights, in eval mode as the libraries' own loading leaves it."""
        for number, file in enumerate(files):
            with file.reading() as read:
                weights = self.weights(file, read)
                fill(self.module, weights, None if number else choose, dtype=self.dtype, dtypes=self.dtypes, keep=keep)
        if getattr(self.module, "all_tied_weights_keys", {}):
            self.module.tie_weights()
        give_back()  # of what was converted
        return self.module.eval()


def _component(model_class: Any, folder: Path, files: Sequence[WeightsFile], dtype: torch.dtype, *, empty: bool) -> _Component:
    module = _empty(model_class, folder, dtype, whole=empty)
    shapes, made_of_several = shapes_of(module), False
    names: dict[str, str] = {}
    for file in files:
        found, several = _names(module, file)
        names |= {name: key for key, name in found.items() if name in shapes}
        made_of_several |= several
    exact = _exact(module, dtype)
    dtypes = {name: exact[0] for name in shapes if set(name.split(".")) & exact[1]}
    return _Component(module, folder, dtype, names, shapes, dtypes, made_of_several)


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
        config.dtype = dtype
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


def _names(module: Any, file: WeightsFile) -> tuple[dict[str, str], bool]:
    """(Key of the file -> name of the parameter, whether transformers makes a weight of several tensors)."""
    if hasattr(module, "load_config"):
        return {key: key for key in file.tensors}, False
    spelled = _spelled(file)
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, rename_source_key

    mapping = get_model_conversion_mapping(module)
    converters = [one for one in mapping if isinstance(one, WeightConverter)]
    renamings = [one for one in mapping if not isinstance(one, WeightConverter)]
    state = module.state_dict()
    found, several = {}, False
    for key, own in spelled.items():
        name, pattern = rename_source_key(own, renamings, converters, module.base_model_prefix, state)
        if pattern is not None and key in file.packed:
            raise BadFile(file.path, "quantised", f"has {key} quantised, which transformers makes of several tensors. Use the bf16 files.")
        found[key] = name
        several |= pattern is not None
    return found, several


def _spelled(file: WeightsFile) -> dict[str, str]:
    """Key of the file -> the name that transformers writes. Raises BadFile for a GGUF file of an unknown text encoder."""
    if file.mapped:
        return {key: key for key in file.tensors}
    architecture = file.metadata.get("general.architecture", "")
    if architecture not in ARCHITECTURES:
        what = f"is a GGUF text encoder of {architecture[:40]!r}; {', '.join(ARCHITECTURES)} are read. Use its safetensors files."
        raise BadFile(file.path, "quantised", what)
    return {key: transformers_name(architecture, key) for key in file.tensors}
