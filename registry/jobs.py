"""The registry's jobs as one call each, for notebooks and scripts: merge, fuse_lora, combine_loras, extract_lora, convert.

Each plans and runs what its command does. References are those of the command line: `name`, `name@alias`, `sha256:<prefix>`, a path;
adapters take a weight, `ink:0.6`. `store` is the home's own unless one is given. What was given is refused before anything is written
(Faults, with every fault), a failure (JobFailed) leaves no file behind, and an existing output is never replaced.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from registry.adapters.combine import plan_combine, run_combine
from registry.adapters.extract import plan_extract, run_extract
from registry.adapters.factors import Keep
from registry.adapters.fuse import plan_fuse, run_fuse
from registry.adapters.result import AdapterResult
from registry.converting.job import Converted, ConvertRequest, plan_convert, run_convert
from registry.home import expanded
from registry.merging import job as merging
from registry.merging.job import Merged
from registry.merging.recipe import Recipe, read_recipe, recipe_of
from registry.progress import Report, silent
from registry.references import Weighted, parse_adapters
from registry.store import Store

RecipeLike = Recipe | Mapping[str, Any] | Path | str


def merge(
    recipe: RecipeLike,
    output: Path | str,
    *,
    memory_mib: int = 512,
    threads: int | None = None,
    store: Store | None = None,
    report: Report = silent,
) -> Merged:
    """Checkpoints of one family merged into `output`, registered with recipe, parents and licence.

    `recipe` is a Recipe, its plain form ({"method": "weighted_sum", "sources": ["a", "b"], "params": {"alpha": 0.3}}) or a YAML file of
    that form. `memory_mib` bounds the memory beyond mapped pages; neither it nor `threads` changes the bytes.
    """
    if isinstance(recipe, (str, Path)):
        recipe = read_recipe(expanded(recipe))
    elif not isinstance(recipe, Recipe):
        recipe = recipe_of(recipe)
    return merging.merge(recipe, store or Store(), output, memory_mib=memory_mib, threads=threads, report=report)


def fuse_lora(
    base: str,
    adapters: str | Sequence[str],
    output: Path | str,
    *,
    dtype: str | None = None,
    coverage: float = 1.0,
    name: str | None = None,
    memory_mib: int = 512,
    threads: int | None = None,
    store: Store | None = None,
    report: Report = silent,
) -> Merged:
    """A checkpoint with adapters fused in: base + weight * delta of each ("ink:0.8", or several).

    `dtype` is fp32, fp16, bf16, fp8_e4m3 or fp8_e5m2 (None: the base's, tensor by tensor); `coverage` is the share, 0 to 1, of the
    adapters' modules that must be in the base. The result's `retained` is the share of the change that is left after rounding.
    """
    store = store or Store()
    plan = plan_fuse(
        base,
        _weighted(adapters),
        store,
        output,
        dtype=dtype,
        coverage=coverage,
        name=name,
        memory_mib=memory_mib,
        threads=threads,
    )
    return run_fuse(plan, store, report=report)


def combine_loras(
    adapters: str | Sequence[str],
    output: Path | str,
    *,
    rank: int | None = None,
    average: bool = False,
    dtype: str | None = None,
    name: str | None = None,
    store: Store | None = None,
    report: Report = silent,
) -> AdapterResult:
    """One adapter for several: the weighted sum of their deltas (["ink:0.6", "hat:0.4"], "ink@step-*").

    `rank` None is the exact sum, of the sum of the ranks; a number cuts each layer by its singular values (one adapter alone is resized).
    `average` divides the weights by their sum. `dtype` is fp32, fp16 or bf16 (None: the adapters' own, fp32 where they differ).
    """
    store = store or Store()
    keep = None if rank is None else Keep(rank=rank)
    plan = plan_combine(_weighted(adapters), store, output, keep=keep, dtype=dtype, average=average, name=name)
    return run_combine(plan, store, report=report)


def extract_lora(
    tuned: str,
    base: str,
    output: Path | str,
    *,
    rank: int | None = None,
    energy: float | None = None,
    components: Sequence[str] | None = None,
    seed: int = 0,
    dtype: str = "fp16",
    biases: bool = False,
    name: str | None = None,
    store: Store | None = None,
    report: Report = silent,
) -> AdapterResult:
    """What a fine-tuned checkpoint changed of its base, as a LoRA: the SVD of each layer's difference.

    `energy` keeps this share, above 0 to 1, of each layer's squared Frobenius norm; `rank` is the rank, or beside `energy` the largest
    one. One of them is needed. `components` (denoiser, text_encoder, text_encoder_2) is all of them by default.
    `biases` writes the changes of biases (diff_b) and norms (diff) too, which ComfyUI applies.
    """
    store = store or Store()
    keep = Keep(rank=rank, energy=energy)
    chosen = None if components is None else tuple(components)
    plan = plan_extract(tuned, base, store, output, keep=keep, components=chosen, seed=seed, dtype=dtype, biases=biases, name=name)
    return run_extract(plan, store, report=report)


def convert(
    reference: Path | str,
    output: Path | str,
    *,
    to: str,
    base: str | None = None,
    family: str | None = None,
    dtype: str | None = None,
    name: str | None = None,
    register: bool = True,
    store: Store | None = None,
    report: Report = silent,
) -> Converted:
    """A model in another form, proven equal before it is saved.

    `to` is kohya, diffusers or peft for adapters; single-file or folder for checkpoints; safetensors for a pickle or another dtype.
    `base` is a checkpoint of the same build where the conversion needs its sizes or configs, `family` what cannot be detected.
    """
    store = store or Store()
    request = ConvertRequest(
        reference=str(reference),
        target=to,
        output=expanded(output).absolute(),
        base=base,
        family=family,
        dtype=dtype,
        name=name,
        register=register,
    )
    return run_convert(plan_convert(request, store), store, report=report)


def _weighted(adapters: str | Sequence[str]) -> list[Weighted]:
    texts = [adapters] if isinstance(adapters, str) else adapters
    return [one for text in texts for one in parse_adapters(text)]
