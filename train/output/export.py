"""The adapter file: diffusers' peft keys, alpha, rank and the run's manifest in the header; verified before it is called saved.

A file counts as saved only after diffusers' own loader has applied it to a fresh copy of the base and products and predictions match.
"""

# B batch, C channels, H W latent size

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.adapters import writer
from registry.adapters.delta_retention import Part, change_of
from registry.adapters.in_place import WeightChanges, placed
from registry.adapters.peft_state import lora_settings
from registry.adapters.reader import read_adapter as registry_adapter
from registry.architectures.compiled import uncompiled
from registry.converting.respelling import lean
from registry.errors import JobFailed
from registry.family import Family
from registry.formats.dialects import Writing, writing_of
from registry.formats.diffusers_folder import no_progress_bars
from registry.formats.safetensors_header import read_header
from registry.launch.importing import importing
from registry.parts import Parts
from registry.printable import counted
from registry.record import Hashes
from train.adapters.attach import ADAPTER, MAGNITUDE, deltas_of, trained_deltas_of, weight_of
from train.adapters.delta import Delta, TrainedDelta, of_dora, of_factors, of_whole
from train.loop.encode import Prompts, Texts
from train.loop.step import cast
from train.lora import adapter_config, lora_tensors, scales
from train.objective.targets import Objective

if TYPE_CHECKING:
    from torch import Tensor

DIALECT = "diffusers"
KEPT = (
    "r",
    "lora_alpha",
    "target_modules",
    "lora_dropout",
    "bias",
    "lora_bias",
    "use_rslora",
    "use_dora",
    "rank_pattern",
    "alpha_pattern",
    "init_lora_weights",
)
PREDICTION = {"epsilon": "epsilon", "v_prediction": "v"}  # ModelSpec's words; it has none for flow
NOT = "The file is kept beside as .refused and not registered."
PRODUCTS = {"torch.float32": 1e-5, "torch.bfloat16": 2e-2, "torch.float16": 3e-3}  # of a layer's largest: both factors are rounded
MAGNITUDES = {"torch.float32": 1e-6, "torch.bfloat16": 2**-8, "torch.float16": 2**-11}  # of m, and of the product
ROUNDING = 1e-6  # of a weight's largest number, where a change is a difference of weights: fp32's
# |difference| / |predictions|, root mean squares: rounding in other places is 3.5 % at most in bf16 (tiny models), where a single number is
# off by 6 % of the largest. Kernels may differ by shape.
TOLERANCE = {"torch.float32": 1e-4, "torch.bfloat16": 5e-2, "torch.float16": 2e-2}


def metadata(
    family: Family, modules: Mapping[str, Any], *, title: str, facts: Mapping[str, str], manifest: Mapping[str, Any]
) -> dict[str, str]:
    """The header's strings: diffusers' adapter settings, ModelSpec 1.0.1 (`facts` are more of its keys), the run's manifest."""
    settings = {name: value for component, module in modules.items() for name, value in _settings(component, module).items()}
    spec = {
        "sai_model_spec": "1.0.1",
        "implementation": writing_of(DIALECT).implementation,
        "title": title,
        **facts,
    }
    return {
        "format": "pt",
        **({"lora_adapter_metadata": json.dumps(settings, indent=2, sort_keys=True)} if settings else {}),
        **{f"modelspec.{name}": value for name, value in spec.items()},
        "loraloom.manifest": json.dumps(manifest, sort_keys=True, ensure_ascii=False),
    }


def _settings(component: str, module: Any) -> dict[str, Any]:
    """peft's settings of the file's factors under `<component>.`; none where the file has other tensors than factors."""
    if hasattr(module, "peft_config"):
        return {f"{component}.{name}": value for name, value in _at_scale_one(adapter_config(module)).items() if name in KEPT}
    factors = {name: tensor for name, tensor in lora_tensors({component: module}).items() if name.endswith(".lora_A.weight")}
    return lean(lora_settings(factors, {})) if factors else {}


def _at_scale_one(config: Mapping[str, Any]) -> dict[str, Any]:
    """peft's settings of the file, whose factors hold alpha / rank: many readers know no alpha but a tensor's."""
    return {**config, "lora_alpha": config["r"], "alpha_pattern": config["rank_pattern"], "use_rslora": False}


def write_adapter(path: Path, modules: Mapping[str, Any], header: Mapping[str, str]) -> Hashes:
    """Write the adapter as it is now. Raises JobFailed for a weight that is not finite: no such file is written."""
    import torch

    tensors = lora_tensors(modules)
    bad = [name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]
    if bad:
        raise JobFailed(
            f"{counted(len(bad), 'tensor')} of the adapter {'is' if len(bad) == 1 else 'are'} not "
            f"finite (first: {bad[0]}); no file is written. "
            "Resume from an earlier checkpoint with a lower optim.lr."
        )
    writing = writing_of(DIALECT)
    return writer.write_adapter(path, list(output_modules(tensors, writing, scales(modules))), writing, metadata=header)


def output_modules(tensors: Mapping[str, Tensor], writing: Writing, scales: Mapping[str, float]) -> Iterator[writer.OutputModule]:
    """The modules of a trained adapter: factors with their scale as alpha, other tensors as they are."""
    grouped: dict[str, dict[str, Tensor]] = {}
    names = sorted(scales, key=len, reverse=True)
    for key, tensor in tensors.items():
        name = next((name for name in names if key.startswith(f"{name}.")), None)
        if name is None:
            raise JobFailed(f"{key} belongs to none of the layers that were trained; no file is written.")
        grouped.setdefault(name, {})[key.removeprefix(name)] = tensor
    for name, own in grouped.items():
        if writing.down not in own:
            yield writer.OutputModule(name=name, raw=own)
            continue
        down = own[writing.down]
        pair = writer.Pair(down, own[writing.up], _whole(scales[name] * len(down)), own.get(writing.dora))
        yield writer.OutputModule(name=name, pair=pair)


def _whole(alpha: float) -> float:
    """alpha without the rounding of alpha / rank * rank."""
    return float(round(alpha)) if math.isclose(alpha, round(alpha), rel_tol=1e-12) else alpha


def read_adapter(path: Path) -> dict[str, Tensor]:
    """The weights of a checkpoint's adapter in the keys of its file. Raises JobFailed for what is no safetensors file."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise JobFailed(f"{path} is no safetensors file ({error}). Remove its checkpoint, and resume from the one before it.") from error


@dataclass(frozen=True)
class Proof:
    """Products B A alpha / r and predictions of the trained model, which the saved file must reproduce."""

    components: tuple[str, ...]  # that carry the adapter
    products: Mapping[str, Delta | TrainedDelta]  # `<component>.<layer>`
    predictions: Tensor  # (B, C, H, W)
    inputs: Callable[[Parts], Tensor]  # predicts the same with other Parts
    magnitudes: bool = False  # DoRA: the factors alone are not the change

    @property
    def changed(self) -> bool:
        """Whether any product is not zero."""
        return not all(product.is_zero for product in self.products.values())


def proof(
    family: Family,
    parts: Parts,
    modules: Mapping[str, Any],
    objective: Objective,
    texts: Texts | Prompts,
    *,
    shape: tuple[int, ...],
    guidance: float,
    clip_skip: int | None = None,
) -> Proof:
    """The products of every layer, and predictions at three timesteps for the first prompt."""

    def predictions(others: Parts) -> Tensor:
        return _predict(family, others, objective, texts, shape=shape, guidance=guidance, clip_skip=clip_skip)

    magnitudes = any(MAGNITUDE in name for name in lora_tensors(modules))
    products = {f"{component}.{name}": delta for component, module in modules.items() for name, delta in trained_deltas_of(module)}
    return Proof(tuple(modules), products, predictions(parts), predictions, magnitudes)


def _predict(
    family: Family,
    parts: Parts,
    objective: Objective,
    texts: Texts | Prompts,
    *,
    shape: tuple[int, ...],
    guidance: float,
    clip_skip: int | None,
) -> Tensor:
    import torch

    count = len(objective.timesteps)
    rows = torch.tensor([count // 10, count // 2, count - 1])
    noise = torch.randn(len(rows), *shape, generator=torch.Generator().manual_seed(0))
    device, dtype = parts.device, parts.dtype
    text = texts.rows([0])
    was_training = parts.denoiser.training
    for module in (parts.denoiser, *parts.text_encoders.values()):
        module.eval()
    with torch.no_grad(), uncompiled(), _without_tf32():
        encoded = family.encode_prompts(parts, text, clip_skip=clip_skip) if isinstance(text, list) else text
        height, width = (side * parts.latent_factor for side in shape[1:])
        complete = family.complete(parts, cast(encoded, device, dtype), height=height, width=width, guidance=guidance)
        timesteps = objective.timesteps[rows].to(device, torch.float32)
        one_by_one = zip(noise.to(device, dtype)[:, None], timesteps[:, None], strict=True)  # no pass is wider than a plan counts
        found = [family.predict(parts, noisy, timestep, complete).float().cpu() for noisy, timestep in one_by_one]
    parts.denoiser.train(was_training)
    return torch.cat(found)


@contextmanager
def _without_tf32() -> Iterator[None]:
    """Convolutions in fp32 compute in fp32 on a GPU too.

    cuDNN's default rounds their inputs to 10 bits (TF32): then two ways to one product, apart by 1e-7 of it, end as far apart as two
    different files (1.7e-3 of 2.6 on an H200, `pocket`).
    """
    import torch

    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def _products(modules: Mapping[str, Any]) -> dict[str, Delta]:
    """What is added to the weight of every layer with an adapter, as peft itself or the runtimes would merge it."""
    return {f"{component}.{name}": delta for component, module in modules.items() for name, delta in deltas_of(module)}


def _same_product(product: Delta, trained: Delta, dtype: str, *, magnitudes: bool) -> bool:
    """Whether a layer's product is the trained one, up to the base's dtype, in which diffusers holds an adapter.

    DoRA's is m (W + s B A) / |W + s B A| - W: a magnitude m that is rounded to the base's dtype is off by a share of the whole weight.
    """
    largest, apart = trained.compare(product)
    rounding = MAGNITUDES[dtype] if magnitudes else ROUNDING
    return apart <= PRODUCTS[dtype] * largest + rounding * trained.size


def verify(path: Path, family: Family, fresh: Parts, kept: Proof) -> float:
    """Largest difference between the trained model's predictions and those of the file on a fresh base. Raises JobFailed."""

    if not kept.changed:
        raise JobFailed(f"The adapter does nothing: every product is zero after training. {NOT} Look at optim.lr and lora.targets.")
    if _has_factors(path):
        _verify_without_header(path, family, fresh, kept)
        products = _through_diffusers(path, family, fresh, kept)
    else:
        products = through_registry(path, family, fresh)
    if products.keys() != kept.products.keys():
        missing = sorted(kept.products.keys() ^ products.keys())
        raise JobFailed(f"The saved file does not reach the layers that were trained ({len(missing)} differ, first: {missing[0]}). {NOT}")
    dtype = str(fresh.dtype) if _has_factors(path) else "torch.float32"
    modules = _modules(family, fresh)
    wrong = [
        name
        for name, product in products.items()
        if not _same_product(product, kept.products[name].on(partial(_weight, modules, name)), dtype, magnitudes=kept.magnitudes)
    ]
    if wrong:
        raise JobFailed(
            f"The saved file gives other products than were trained in {counted(len(wrong), 'layer')} (first: {wrong[0]}). {NOT}"
        )
    if not _has_factors(path):
        change_weights(path, family, fresh)
    return verify_predictions(fresh, kept)


def _modules(family: Family, parts: Parts) -> dict[str, Any]:
    return {family.denoiser: parts.denoiser, **parts.text_encoders}


def _weight(modules: Mapping[str, Any], name: str) -> Tensor:
    """The weight of `<component>.<layer>`."""
    component, _, layer = name.partition(".")
    return weight_of(modules[component], layer)


def verify_predictions(fresh: Parts, kept: Proof) -> float:
    """Largest difference between the trained model's predictions and those of a fresh base with the files loaded. Raises JobFailed."""
    differences = kept.inputs(fresh) - kept.predictions
    apart, whole, allowed = float(differences.norm()), float(kept.predictions.norm()), _allowed(fresh)
    if not apart <= allowed * whole:  # both are 0 where the last layer of a base is
        share = apart / whole if whole else math.inf
        raise JobFailed(
            f"The saved file predicts otherwise than the trained model: {NOT} (relative difference {share:.3g}, allowed {allowed:.3g})"
            " Was optim.lr far too high? Of an adapter that large, rounding alone changes what is predicted."
        )
    return float(differences.abs().max())


def _allowed(fresh: Parts) -> float:
    """The relative difference of predictions that rounding makes: of 8-bit products, which no layer with a changed weight has, bf16's."""
    from registry.quantised.linear import QuantisedLinear

    in_8_bits = any(isinstance(layer, QuantisedLinear) and layer.product for layer in fresh.denoiser.modules())
    return TOLERANCE["torch.bfloat16" if in_8_bits else str(fresh.dtype)]


def _has_factors(path: Path) -> bool:
    """Whether a file holds LoRA factors, which diffusers reads; other kinds are read by the registry."""
    return any(key.endswith(writing_of(DIALECT).down) for key in read_header(path).tensors)


def _through_diffusers(path: Path, family: Family, fresh: Parts, kept: Proof) -> dict[str, Delta]:
    """The file on the fresh base by diffusers' loaders, and what it adds to each weight."""
    from registry.quantised.linear import shapes_alone

    state, facts = family.lora_state(path, fresh)
    modules = _modules(family, fresh)
    for component in kept.components:
        with nullcontext() if kept.magnitudes else shapes_alone():
            _load_through_diffusers(family, component, modules[component], state, facts)
    return _products({part: modules[part] for part in kept.components})


def through_registry(path: Path, family: Family, fresh: Parts) -> dict[str, Delta]:
    """The same by the registry's reader: what it adds to each weight, computed from the weight as runtimes do when it is looked at."""
    modules, found = _modules(family, fresh), {}

    def change(parts: Sequence[Part], name: str) -> Tensor:
        weight = _weight(modules, name)
        made = change_of([(weight.reshape(-1),)], parts=parts, shape=tuple(weight.shape))
        return made.chunk(0, weight.numel(), max(1, weight.numel() // weight.shape[0])).reshape(weight.shape)

    for key, parts in placed(registry_adapter(path), family, fresh).parts.items():
        name = key.replace("/", ".", 1).removesuffix(".weight")
        component, _, layer = name.partition(".")
        found[name] = of_whole(partial(change, parts, name), tuple(modules[component].get_submodule(layer).weight.shape))
    return found


def change_weights(path: Path, family: Family, fresh: Parts) -> None:
    """The file in the weights of the fresh base."""
    changes = WeightChanges(family, fresh, originals=False)
    changes.attach(ADAPTER, registry_adapter(path))
    changes.set_weights({ADAPTER: 1.0})


def _verify_without_header(path: Path, family: Family, fresh: Parts, kept: Proof) -> None:
    """Compare the products as the tensors are given to tools that ignore the header: by diffusers' own reader, or,
    for a family that diffusers has no pipeline of, by the names in the file. Raises JobFailed.

    These are the file's own numbers, fp32 whatever the base's dtype: a change that the base's dtype would round away is compared too.
    """
    import diffusers

    with importing():
        pipeline = getattr(diffusers, family.pipeline, None)
    read = read_adapter(path) if pipeline is None else pipeline.lora_state_dict(read_adapter(path))
    tensors: dict[str, Tensor] = read[0] if isinstance(read, tuple) else read
    named = {key.replace(".text_model.", "."): tensor for key, tensor in tensors.items()}
    modules, wrong = _modules(family, fresh), []
    for name, kept_product in kept.products.items():
        weight = partial(_weight, modules, name)
        product = kept_product.on(weight)
        plain = name.replace(".text_model.", ".")
        down, up = (named.get(f"{plain}.lora_{side}.weight") for side in "AB")
        found = None if down is None or up is None else of_factors(up.float(), down.float())
        magnitude = named.get(f"{plain}{MAGNITUDE}")
        if found is not None and kept.magnitudes and magnitude is not None:
            found = of_dora(found, magnitude.float(), product.shape).on(weight)
        if (
            found is None
            or (magnitude is None) == kept.magnitudes
            or math.prod(found.shape) != math.prod(product.shape)
            or not _same_product(found, product, "torch.float32", magnitudes=kept.magnitudes)
        ):
            wrong.append(name)
    if wrong:
        raise JobFailed(
            f"diffusers' own reader finds other products than were trained in {counted(len(wrong), 'layer')} (first: {wrong[0]}). {NOT}"
        )


def _load_through_diffusers(family: Family, component: str, module: Any, state: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """diffusers' own loaders: a model's for the denoiser, the pipeline's for text encoders."""
    if component == family.denoiser:
        module.load_lora_adapter(dict(state), prefix=component, adapter_name=ADAPTER, **facts)
        return
    import diffusers

    pipeline = getattr(diffusers, family.pipeline)
    with no_progress_bars():
        pipeline.load_lora_into_text_encoder(dict(state), text_encoder=module, prefix=component, adapter_name=ADAPTER, **facts)
