"""The modules of one base model with their sizes, found under every name adapters use for them.

diffusers' names, the original checkpoints' names (LDM, BFL, open_clip) and kohya's (dots as underscores) lead to the same module.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from registry.architectures.unet.diffusers_names import diffusers_module, layers_per_block
from registry.architectures.unet.ldm_names import unet_modules
from registry.formats.dialects import DENOISER
from registry.formats.layers import AdapterNames, originals
from registry.formats.model_header import ModelHeader
from registry.formats.quantised.model_shapes import folder_tensors, model_header
from registry.formats.safetensors_header import TensorInfo


@dataclass(frozen=True)
class ModuleShape:
    """Sizes of a module's weight; `into` None for a norm, `kernel` None for anything but a convolution."""

    out: int
    into: int | None = None
    kernel: tuple[int, ...] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The weight's shape."""
        return (self.out, *(() if self.into is None else (self.into,)), *(self.kernel or ()))

    def __str__(self) -> str:
        size = f"{self.into} to {self.out}" if self.into is not None else f"{self.out}"
        return f"{size}, kernel {'x'.join(map(str, self.kernel))}" if self.kernel and set(self.kernel) != {1} else size


Modules = dict[str, ModuleShape]


@dataclass(frozen=True)
class BaseModules:
    """Component -> modules by underscored name. `denoiser` is what this base calls its trained network."""

    denoiser: str
    components: Mapping[str, Mapping[str, ModuleShape]]

    def find(self, component: str, module: str) -> tuple[str, ModuleShape] | None:
        """(component, sizes) of a module by any of its names; without a component all are searched."""
        name = underscored(module)
        wanted = [self.denoiser] if component == DENOISER else [component] if component else list(self.components)
        for candidate in wanted:
            found = self.components.get(candidate, {}).get(name)
            if found is not None:
                return candidate, found
        return None


def underscored(module: str) -> str:
    """The one spelling names are compared in: kohya's. Old attention processors and CLIP's outer name are taken off."""
    name = module.replace(".processor.", ".").replace(".", "_").removeprefix("text_model_")
    return f"{name}_0" if name.endswith("_to_out") else name


def base_modules(path: Path) -> BaseModules:
    """The modules of a diffusers folder or a single-file checkpoint, from headers. Raises BadFile."""
    if path.is_dir():
        return _folder_modules(path)
    tensors = model_header(path).tensors
    return _single_file_modules(tensors, _tables(path, tensors))


def _tables(path: Path, tensors: Mapping[str, TensorInfo]) -> list[AdapterNames]:
    """How adapters of this base's family are spelled; every family's, where it is known of none."""
    from registry.detect.verdict import checkpoint_claims  # not at the top: importing it imports every family
    from registry.families import FAMILIES

    claims = sorted(checkpoint_claims(ModelHeader(path=path, tensors=tensors)), key=lambda claim: -claim.match.score)
    names_of = [claims[0].family] if claims and claims[0].family in FAMILIES else list(FAMILIES)
    return [names for name in names_of if (names := FAMILIES[name].adapter_names) is not None]


def _folder_modules(path: Path) -> BaseModules:
    components: dict[str, Mapping[str, ModuleShape]] = {}
    denoiser = "transformer" if (path / "transformer").is_dir() else "unet"
    for folder in sorted(entry for entry in path.iterdir() if entry.is_dir()):
        if folder.name == denoiser:
            tensors = folder_tensors(folder)
            components[folder.name] = _named(_denoiser_names(tensors, _tables(path, tensors)))
        elif folder.name.startswith("text_encoder"):
            components[folder.name] = _named(shapes_of(folder_tensors(folder)))
    return BaseModules(denoiser, components)


def _single_file_modules(tensors: Mapping[str, TensorInfo], tables: Iterable[AdapterNames]) -> BaseModules:
    """The modules of a single file's tensors: denoiser and CLIP text encoders."""
    parts: dict[str, dict[str, TensorInfo]] = {}
    for name, info in tensors.items():
        for prefix, component in SINGLE_FILE:
            if name.startswith(prefix):
                parts.setdefault(component, {})[name[len(prefix) :]] = info
                break
        else:
            parts.setdefault("bare", {})[name] = info
    own = parts.get(DENOISER) or parts.get("bare", {})
    denoiser = "unet" if any(name.startswith(UNET) for name in own) else "transformer"
    components: dict[str, Mapping[str, ModuleShape]] = {denoiser: _named(_denoiser_names(own, tables))}
    for name in ("text_encoder", "text_encoder_2"):
        if name in parts:
            components[name] = _named(_text_names(parts[name]))
    return BaseModules(denoiser, components)


UNET = ("input_blocks.", "down_blocks.", "middle_block.", "mid_block.")
SINGLE_FILE = (
    ("model.diffusion_model.", DENOISER),
    ("diffusion_model.", DENOISER),
    ("cond_stage_model.transformer.", "text_encoder"),
    ("cond_stage_model.model.", "text_encoder"),
    ("conditioner.embedders.0.transformer.", "text_encoder"),
    ("conditioner.embedders.1.model.", "text_encoder_2"),
    ("conditioner.embedders.0.model.", "text_encoder_2"),
    ("text_encoders.clip_l.transformer.", "text_encoder"),
    ("text_encoders.clip_g.transformer.", "text_encoder_2"),
    ("first_stage_model.", "vae"),
    ("vae.", "vae"),
)


def _named(modules: Modules) -> Modules:
    return {underscored(name): shape for name, shape in modules.items()}


def shapes_of(tensors: Mapping[str, TensorInfo]) -> Modules:
    """Module -> sizes, for every tensor that is a `.weight`."""
    modules: Modules = {}
    for name, info in tensors.items():
        if name.endswith(".weight") and info.shape:
            shape = info.shape
            modules[name[:-7]] = ModuleShape(shape[0], shape[1] if len(shape) > 1 else None, tuple(shape[2:]) if len(shape) == 4 else None)
    return modules


def _denoiser_names(tensors: Mapping[str, TensorInfo], tables: Iterable[AdapterNames]) -> Modules:
    """The denoiser's modules under their own names and under those of the other spelling."""
    modules = shapes_of(tensors)
    if any(name.startswith(UNET) for name in modules):
        layers = layers_per_block(tensors)
        for name, shape in list(modules.items()):
            renamed = diffusers_module(name, layers=layers)
            if renamed:
                modules.setdefault(renamed, shape)
        modules.update(_ldm_names(modules))
        return modules
    for names in tables:
        modules = {**_first_names(modules, names), **_own_names(modules, names), **modules}
    return modules


# --- the other spelling of the same modules


def _ldm_names(modules: Modules) -> Modules:
    """LDM names of a UNet that has diffusers' names; {} for other denoisers."""
    return {ldm: modules[name] for name, ldm in ldm_names(modules).items()}


def ldm_names(modules: Iterable[str]) -> dict[str, str]:
    """diffusers' name -> LDM name of the modules of a UNet, by its own blocks; {} for other denoisers."""
    modules = list(modules)
    levels = _count(modules, "down_blocks.")
    if levels == 0:
        return {}
    sides = {
        side: ["Attn" if any(name.startswith(f"{side}_blocks.{level}.attentions.") for name in modules) else "" for level in range(levels)]
        for side in ("down", "up")
    }
    config = {
        "down_block_types": sides["down"],
        "up_block_types": sides["up"],
        "layers_per_block": _count(modules, "down_blocks.0.resnets."),
    }
    return unet_modules(config, modules)


def _first_names(modules: Modules, names: AdapterNames) -> Modules:
    """A transformer's layers in diffusers' names under the original implementation's; a fused one is as high as its parts together."""
    named: Modules = {}
    for layer in originals(names.layers, modules).values():
        parts = [modules[name] for name in layer.modules if name in modules]
        if len(parts) == len(layer.modules):
            named[layer.original] = ModuleShape(sum(part.out for part in parts), parts[0].into)
    return named


def _own_names(modules: Modules, names: AdapterNames) -> Modules:
    """The modules of diffusers in a transformer in the original implementation's names: fused layers as the parts that they hold."""
    named: Modules = {}
    for name, shape in modules.items():
        found = names.denoiser.find(name)
        if found is None or found.part is not None:
            continue
        layer = found.layer
        heights = layer.rows(shape.into) if len(layer.modules) > 1 and shape.into is not None else (shape.out,)
        if sum(heights) == shape.out and len(heights) == len(layer.modules):
            named |= {module: ModuleShape(height, shape.into) for module, height in zip(layer.modules, heights, strict=True)}
    return named


def _count(modules: Iterable[str], beginning: str) -> int:
    """How many numbered blocks of one kind there are."""
    numbers = [name[len(beginning) :].partition(".")[0] for name in modules if name.startswith(beginning)]
    return max((int(number) + 1 for number in numbers if number.isdigit()), default=0)


# --- text encoders of single files

RESBLOCK = re.compile(r"transformer\.resblocks\.(\d+)\.(.+)")
OPEN_CLIP = {"attn.out_proj.weight": "self_attn.out_proj", "mlp.c_fc.weight": "mlp.fc1", "mlp.c_proj.weight": "mlp.fc2"}


def _text_names(tensors: Mapping[str, TensorInfo]) -> Modules:
    """CLIP's modules in transformers' names, from those or from open_clip's, whose q, k and v are fused."""
    modules = shapes_of(tensors)
    for name, info in tensors.items():
        found = RESBLOCK.fullmatch(name)
        if not found or len(info.shape) != 2:
            continue
        place = f"encoder.layers.{found[1]}"
        if found[2] == "attn.in_proj_weight":
            for part in ("q_proj", "k_proj", "v_proj"):
                modules[f"{place}.self_attn.{part}"] = ModuleShape(info.shape[0] // 3, info.shape[1])
        elif found[2] in OPEN_CLIP:
            modules[f"{place}.{OPEN_CLIP[found[2]]}"] = ModuleShape(*info.shape)
    return modules
