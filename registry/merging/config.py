"""The settings of `loraloom merge`: a plain dataclass that Hydra fills. Its `params` are the options of all methods."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from registry.errors import Faults
from registry.home import expanded
from registry.merging.methods import METHODS
from registry.merging.recipe import DTYPES, Recipe, read_recipe, recipe_of
from registry.settings import given_params, params_schema, setting, word

if TYPE_CHECKING:
    Params: TypeAlias = Any  # built below; no type checker can see its fields
else:
    Params = params_schema("Params", [METHODS], module=__name__, typed=False)


@dataclass(kw_only=True)
class MergeConfig:
    """All settings of `loraloom merge`."""

    method: str | None = word(None, f"how: {', '.join(METHODS)}")
    sources: Any = setting(None, "the models, by name or path: [anime,photo]; the first one gives the layout")
    params: Params = setting(Params, "the method's options: params.alpha=0.3")
    weights: Any = setting(None, "alpha by block: a preset (grad_v), a list with a number a block, {gradient:[0,1,0]}")
    rules: Any = setting(
        None, "in order: [{match: REGEX, alpha: 0.3}, {match: REGEX, take: 2}, {match: REGEX, drop: true, optional: true}]"
    )
    components: Any = setting(None, "merge these only, copy the rest from the first source: [denoiser,text_encoder,vae]")
    dtype: str | None = word(None, f"of the result: {', '.join(DTYPES)} (default: the first source's)")
    precision: str | None = word(None, "of the arithmetic: fp32 or fp64 (default: fp32)")
    missing: str | None = word(None, "keys that only some sources have: refuse, or first = keep the first source's (default: refuse)")
    mismatch: str | None = word(None, "tensors of different shapes: refuse, first = copy it, overlap = merge the shared part")
    mixed_prediction: bool | None = setting(None, "allow sources of different prediction types (default: false)")
    shard_mib: int | None = setting(None, "shards of at most this size, in a folder; 0 = one file a component (default: as the first)")
    name: str | None = setting(None, "registered name (default: the output's)")
    output: str | None = setting(None, "the file or folder to write (default: in the run folder)")
    recipe: str | None = setting(None, "a recipe file; settings given beside it take its place")
    memory_mib: int = setting(512, "memory beyond the mapped pages of the sources, at most")
    threads: int | None = setting(None, "threads (default: one a core, at most 4); the bytes do not depend on it")
    out: str = setting("runs", "folder that receives merge/<stamp>/")
    dry_run: bool = setting(False, "print the plan and stop")

    def __post_init__(self) -> None:
        faults = []
        if self.threads is not None and not 1 <= self.threads <= 256:
            faults.append(f"threads must be in 1 .. 256, got {self.threads}.")
        if not 16 <= self.memory_mib <= 1 << 24:
            faults.append(f"memory_mib must be in 16 .. {1 << 24}, got {self.memory_mib}.")
        faults += [f"{name} must not be empty." for name in ("out", "output", "recipe") if getattr(self, name) == ""]
        if faults:
            raise Faults("These settings are out of range:", faults)


OF_THE_JOB = ("output", "recipe", "memory_mib", "threads", "out", "dry_run")  # settings that are no part of a recipe


def recipe_from(config: MergeConfig) -> Recipe:
    """The recipe of these settings: the file's, if one is named, with what is given in their place. Raises Faults."""
    given = {item.name: getattr(config, item.name) for item in fields(config) if item.name not in (*OF_THE_JOB, "params")}
    given = {name: value for name, value in given.items() if value is not None}
    params = given_params(config.params)
    if config.recipe is None:
        return recipe_of({**given, "params": params}, where="This merge")
    file = read_recipe(expanded(config.recipe))
    own: Mapping[str, Any] = file.params if given.get("method", file.method) == file.method else {}
    merged = recipe_of({**file.to_plain(), **given, "params": {**own, **params}}, where="This merge")
    return merged if "sources" in given else replace(merged, sources=file.sources)
