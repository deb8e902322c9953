"""The settings of `loraloom merge`: a plain dataclass that Hydra fills. Its `params` are the options of all methods."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, make_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from registry.errors import Faults
from registry.merging.method import Option
from registry.merging.methods import METHODS
from registry.merging.recipe import DTYPES, Recipe, read_recipe, recipe_of


def says(meaning: str, *, word: bool = False) -> dict[str, Any]:
    """The metadata of a setting: what it means; `word` when it names an entry of a table."""
    return {"help": meaning, "word": word}


def all_options() -> dict[str, Option]:
    """The options of all methods under one name each, in the order of the table: the schema of `params`."""
    return {name: option for method in METHODS.values() for name, option in method.options.items()}


if TYPE_CHECKING:
    Params: TypeAlias = Any  # built below; no type checker can see its fields
else:
    Params = make_dataclass(
        "Params",
        [(option.name, Any, field(default=None, metadata=says(option.meaning))) for option in all_options().values()],
        kw_only=True,
        namespace={"__doc__": "The options of all methods; null is the method's own default.", "__module__": __name__},
    )


@dataclass(kw_only=True)
class MergeConfig:
    """All settings of `loraloom merge`."""

    method: str | None = field(default=None, metadata=says(f"how: {', '.join(METHODS)}", word=True))
    sources: Any = field(default=None, metadata=says("the models, by name or path: [anime,photo]; the first one gives the layout"))
    params: Params = field(default_factory=Params, metadata=says("the method's options: params.alpha=0.3"))
    weights: Any = field(default=None, metadata=says("alpha by block: a preset (grad_v), a list with a number a block, {gradient:[0,1,0]}"))
    rules: Any = field(
        default=None,
        metadata=says("in order: [{match: REGEX, alpha: 0.3}, {match: REGEX, take: 2}, {match: REGEX, drop: true, optional: true}]"),
    )
    components: Any = field(
        default=None, metadata=says("merge these only, copy the rest from the first source: [denoiser,text_encoder,vae]")
    )
    dtype: str | None = field(default=None, metadata=says(f"of the result: {', '.join(DTYPES)} (default: the first source's)", word=True))
    precision: str | None = field(default=None, metadata=says("of the arithmetic: fp32 or fp64 (default: fp32)", word=True))
    missing: str | None = field(
        default=None,
        metadata=says("keys that only some sources have: refuse, or first = keep the first source's (default: refuse)", word=True),
    )
    mismatch: str | None = field(
        default=None, metadata=says("tensors of different shapes: refuse, first = copy it, overlap = merge the shared part", word=True)
    )
    mixed_prediction: bool | None = field(default=None, metadata=says("allow sources of different prediction types (default: false)"))
    shard_mib: int | None = field(
        default=None, metadata=says("shards of at most this size, in a folder; 0 = one file a component (default: as the first)")
    )
    name: str | None = field(default=None, metadata=says("registered name (default: the output's)"))
    output: str | None = field(default=None, metadata=says("the file or folder to write (default: in the run folder)"))
    recipe: str | None = field(default=None, metadata=says("a recipe file; settings given beside it take its place"))
    memory_mib: int = field(default=512, metadata=says("memory beyond the mapped pages of the sources, at most"))
    threads: int | None = field(default=None, metadata=says("threads (default: one a core, at most 4); the bytes do not depend on it"))
    out: str = field(default="runs", metadata=says("folder that receives merge/<stamp>/"))
    dry_run: bool = field(default=False, metadata=says("print the plan and stop"))

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
    params = {item.name: getattr(config.params, item.name) for item in fields(config.params)}
    params = {name: tuple(value) if isinstance(value, list) else value for name, value in params.items() if value is not None}
    if config.recipe is None:
        return recipe_of({**given, "params": params}, where="This merge")
    file = read_recipe(Path(config.recipe).expanduser())
    own: Mapping[str, Any] = file.params if given.get("method", file.method) == file.method else {}
    merged = recipe_of({**file.to_plain(), **given, "params": {**own, **params}}, where="This merge")
    return merged if "sources" in given else replace(merged, sources=file.sources)
