"""The settings of a training run: plain dataclasses with ranges, no torch. `help` in a field's metadata is its meaning.

Ranges are checked here, all faults together, each with its dotted name; what needs the disk is checked by the plan.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from enum import Enum
from math import isfinite
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import yaml

from registry.architectures.text.clip_chunks import MOST
from registry.budget.text import budget_fault
from registry.errors import Faults, Refused
from registry.names import DEVICE, DEVICES, suggest
from registry.plain_values import from_yaml
from registry.printable import counted
from registry.references import LONGEST
from registry.settings import setting, word
from registry.typed_values import fitted, shown
from train.settings.adapter import AdapterConfig
from train.settings.checkpoint import CheckpointConfig
from train.settings.data import DataConfig
from train.settings.ema import EmaConfig
from train.settings.heldout import HeldoutConfig
from train.settings.lora import LoraConfig
from train.settings.objective import ObjectiveConfig, ObjectiveParams
from train.settings.optim import OptimConfig, OptimParams
from train.settings.preferences import preference_rules
from train.settings.preview import PreviewConfig
from train.settings.quantised import BASE_HELP, COMPUTE_HELP, TEXT_HELP, quantised_rules
from train.settings.rules import LARGEST, Rule, counts, texts
from train.settings.schedule import ScheduleConfig, ScheduleParams
from train.settings.tokens import TokensConfig, token_rules

__all__ = [
    "AdapterConfig",
    "CheckpointConfig",
    "DataConfig",
    "HeldoutConfig",
    "LoraConfig",
    "ObjectiveConfig",
    "ObjectiveParams",
    "OptimConfig",
    "OptimParams",
    "Precision",
    "PreviewConfig",
    "ScheduleConfig",
    "ScheduleParams",
    "TokensConfig",
    "TrainConfig",
    "changed",
    "dotted_names",
    "from_plain",
    "get",
    "read_yaml",
    "to_plain",
    "to_yaml",
]

C = TypeVar("C")

WITH_UP = ("lora", "dora")  # kinds whose weights are a down and an up matrix
MULTIPLIED = ("dora", "oft")  # kinds that are not added to the base's weights

# A name is a folder, and a reference in which @ + : / have a meaning; a sweep's run has its override behind an @.
NAME = re.compile(r"[^\s.@+:/\\\x00-\x1f-][^@+:/\\\x00-\x1f]*(@[^@+:/\\\x00-\x1f]*=[^@+:/\\\x00-\x1f]*)?")


class Precision(Enum):
    """The base's weights and the arithmetic; LoRA weights are always fp32."""

    auto = "auto"  # bf16 on a GPU that has it, else fp32
    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


@dataclass(kw_only=True)
class TrainConfig:
    """All settings of a training run. config.yaml of a run folder is one of these, resolved."""

    name: str | None = setting(None, "name of the run and of its adapter (default: the data folder's name)")
    base: str = setting("pocket", "model to train on: a registered name, a path, a sha256: prefix")
    base_config: str | None = setting(
        None, "diffusers folder with component configs and tokenizers, for single files of families that carry none"
    )
    prediction: str | None = setting(
        None, "prediction type of the base, epsilon or v_prediction, where its file has none or a wrong one (default: as detected)"
    )
    data: DataConfig = field(default_factory=DataConfig)
    resolution: Any = setting(
        None,
        "pixels a side of the square whose area images are trained at (default: the base's own); a list trains each image at every one "
        "that it is large enough for: [512,768,1024]",
    )
    clip_skip: int | None = setting(
        None,
        "last layers of the CLIP text encoders that are left out, in training and previews, as diffusers counts: 1 is kohya's clip skip 2",
    )
    prompt_chunks: int = setting(
        1,
        "context lengths of CLIP (75 tokens each) that every prompt is read in, in training, measuring and previews:"
        " 3 is kohya's max_token_length 225",
    )
    batch_size: int = setting(4, "batch size per device")
    accumulate: int = setting(1, "gradient accumulation steps")
    steps: int = setting(1000, "optimizer steps")
    epochs: float | None = setting(
        None, "how often each image is trained on; the plan makes it the least number of steps that do (default: steps)"
    )
    seed: int = setting(0, "seed of the LoRA's initial weights, the order of images and all noise")
    lora: LoraConfig = field(default_factory=LoraConfig)
    tokens: TokensConfig = field(default_factory=TokensConfig)
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    ema: EmaConfig = field(default_factory=EmaConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    precision: Precision = setting(Precision.auto, "precision of the base and of the arithmetic: auto, fp32, bf16, fp16")
    base_dtype: str | None = word(None, BASE_HELP)
    text_encoder_dtype: str | None = word(None, TEXT_HELP)
    compute: str | None = word(None, COMPUTE_HELP)
    compile: str | None = word(
        None,
        "blocks: compile the denoiser's repeated blocks by torch.compile, one code for all of a kind (default: nothing is compiled)",
        among=("blocks",),
    )
    gradient_checkpointing: bool = setting(
        False, "recompute activations in the backward pass (gradient checkpointing): less memory, about a third slower"
    )
    swap_blocks: int = setting(
        0,
        "blocks of the denoiser that lie in main memory, of those that the plan lists, and are fetched for their forward and backward pass:"
        " less memory on the device, the same bytes. It needs gradient_checkpointing=true",
    )
    offload_activations: bool = setting(
        False,
        "keep what gradient checkpointing keeps (the inputs of its blocks) in main memory between forward and backward pass: less memory on"
        " the device, the same bytes. It needs gradient_checkpointing=true",
    )
    memory: str | None = word(
        None,
        "memory that the run may take of its device, such as 12GiB, 12GB, or auto for what is free: the plan finds the cheapest settings"
        " that fit (gradient_checkpointing, text_encoder_dtype, base_dtype, batch_size and accumulate, swap_blocks,"
        " offload_activations); those that are given stay",
    )
    device: str = word("auto", "auto, cpu, cuda, cuda:1, mps", among=("auto", "cpu", "cuda", "mps"))
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    heldout: HeldoutConfig = field(default_factory=HeldoutConfig)
    preview: PreviewConfig = field(default_factory=PreviewConfig)
    tracker: str = word("jsonl", "logging beside metrics.jsonl, which is always written: jsonl, wandb, tensorboard, or several joined by +")
    out: str = setting("runs", "output folder; a run gets <name>/<stamp>/ in it")
    dry_run: bool = setting(False, "print the plan and stop")
    resume: str | None = setting(None, "run folder to resume, with its own settings; `latest` is the newest of that name")

    def __post_init__(self) -> None:
        faults = [f"{name} {must}, got {value!r}." for name, value, good, must in self._rules() if not good]
        if faults:
            raise Faults("These settings are out of range:", faults)

    def _rules(self) -> Iterable[tuple[str, Any, bool, str]]:
        """(dotted name, value, is it good, what it must be) of every setting with a range."""
        yield from self._own()
        for item in fields(self):
            group = getattr(self, item.name)
            if is_dataclass(group):
                yield from ((f"{item.name}.{name}", *rest) for name, *rest in group.rules())  # type: ignore[union-attr]
        yield from token_rules(self)
        yield from quantised_rules(self)
        yield from preference_rules(self)
        text_lr = self.optim.text_lr
        yield "optim.text_lr", text_lr, text_lr is None or self.lora.text_encoder, "needs lora.text_encoder=true: no text encoder learns"
        kind, ratio = self.lora.kind, self.optim.loraplus_lr_ratio
        yield (
            "optim.loraplus_lr_ratio",
            ratio,
            ratio is None or kind in WITH_UP,
            "needs lora.kind=lora or dora: only these have an up matrix (B)",
        )
        good = self.adapter.training is None or kind not in MULTIPLIED
        must = "must be lora, lokr or loha beside adapter.training: it depends on the base's weights, and these are others once it is out"
        yield "lora.kind", kind, good, must
        warm = self.schedule.warmup_steps
        good = warm is None or self.epochs is not None or warm < self.steps  # of epochs the plan makes steps
        yield "schedule.warmup_steps", warm, good, f"must be fewer than the {counted(self.steps, 'step')}"

    def _own(self) -> Iterable[Rule]:
        """The rules of the settings outside of the groups."""
        yield from counts(self, "batch_size", "accumulate", "steps")
        sides = self.resolution if isinstance(self.resolution, (list, tuple)) else [self.resolution]
        whole = all(isinstance(side, int) and not isinstance(side, bool) and 1 <= side < LARGEST for side in sides)
        good = self.resolution is None or (bool(sides) and whole and len(set(sides)) == len(sides))
        must = "must be a number of pixels from 1, a list of different ones, or null for the default"
        yield "resolution", self.resolution, good, must
        yield "clip_skip", self.clip_skip, self.clip_skip is None or self.clip_skip >= 0, "must be 0 or more, or null for none"
        yield "prompt_chunks", self.prompt_chunks, 1 <= self.prompt_chunks <= MOST, f"must be 1 to {MOST}"
        yield "swap_blocks", self.swap_blocks, 0 <= self.swap_blocks < LARGEST, "must be 0 or more"
        good = self.swap_blocks == 0 or self.gradient_checkpointing
        must = (
            "needs gradient_checkpointing=true: without it the backward pass reads the weights of every block as the forward pass left them"
        )
        yield "swap_blocks", self.swap_blocks, good, must
        good = not self.offload_activations or self.gradient_checkpointing
        must = "needs gradient_checkpointing=true: what that keeps of the forward pass is what lies in main memory"
        yield "offload_activations", self.offload_activations, good, must
        fault = None if self.memory is None else budget_fault(self.memory)
        yield "memory", self.memory, fault is None, fault or ""
        yield "compile", self.compile, self.compile in (None, "blocks"), "must be blocks, or null"
        yield "seed", self.seed, 0 <= self.seed < 2**63, "must be in 0 .. 2^63 - 1"
        good = self.epochs is None or (isfinite(self.epochs) and self.epochs > 0)
        yield "epochs", self.epochs, good, "must be above 0, or null for steps"
        must = "names a folder and is used in references: it must be without @ + : / \\, and not start with `.`, `-` or a space"
        yield "name", self.name, self.name is None or (NAME.fullmatch(self.name) is not None and self.name == self.name.strip()), must
        length = 0 if self.name is None else len(self.name.encode("utf-8", "surrogatepass"))
        yield "name", self.name, length <= LONGEST, f"must have at most {LONGEST} bytes: files and folders are called by it"
        yield "device", self.device, DEVICE.fullmatch(self.device) is not None, f"must be {DEVICES}"
        yield from texts(self, "base", "base_config", "out", "resume")

    @property
    def alpha(self) -> float:
        """The LoRA's alpha: the one given, else the rank."""
        return float(self.lora.rank if self.lora.alpha is None else self.lora.alpha)

    @property
    def sides(self) -> tuple[int, ...]:
        """The resolutions, the smallest first; none where the base's own is meant."""
        given = self.resolution if isinstance(self.resolution, (list, tuple)) else [self.resolution]
        return tuple(sorted(side for side in given if side is not None))

    @property
    def images_a_pass(self) -> int:
        """Images of a pass without gradients: no more than need about what a step of a batch takes, which keeps what its gradients need."""
        return 2 * self.batch_size

    @property
    def images_per_step(self) -> int:
        """Most images of one process that make one optimizer step; batches that are short have fewer."""
        return self.batch_size * self.accumulate


def get(config: object, name: str) -> Any:
    """The value of a dotted name."""
    for part in name.split("."):
        config = getattr(config, part)
    return config


def to_plain(config: object) -> dict[str, Any]:
    """The settings as plain values, Enums by name, in the order of the fields."""
    out: dict[str, Any] = {}
    for item in fields(config):  # type: ignore[arg-type]  # a dataclass by construction
        value = getattr(config, item.name)
        if is_dataclass(value):
            out[item.name] = to_plain(value)
        elif isinstance(value, Enum):
            out[item.name] = value.name
        else:
            out[item.name] = list(value) if isinstance(value, (list, tuple)) else value
    return out


def from_plain(plain: Any, kind: type[C] = TrainConfig) -> C:  # type: ignore[assignment]
    """The settings back from plain values. Raises Faults with every unknown name, value of another type and value out of range."""
    faults: list[str] = []
    config = _filled(plain, kind, "", faults)
    if faults or config is None:
        raise Faults("These settings are refused:", faults)
    return config


def _filled(plain: Any, kind: type[C], prefix: str, faults: list[str]) -> C | None:
    """The settings of one group; faults are added, and what has them is left at its default."""
    if not isinstance(plain, Mapping):
        faults.append(f"{prefix.rstrip('.') or 'the file'} must be a group of settings, got {shown(plain)}.")
        return kind()
    hints = get_type_hints(kind)
    values: dict[str, Any] = {}
    for name, value in plain.items():
        if name not in hints:
            faults.append(f"{prefix}{name} is no setting. {suggest(str(name), hints)}")
        elif is_dataclass(hints[name]):
            values[name] = _filled(value, hints[name], f"{prefix}{name}.", faults)
        else:
            try:
                values[name] = fitted(value, hints[name])
            except ValueError as error:
                faults.append(f"{prefix}{name} {error}.")
    try:
        return kind(**values)
    except Faults as error:
        faults += error.faults
        return None


def changed(config: TrainConfig, changes: Mapping[str, Any]) -> TrainConfig:
    """A copy with dotted names set anew, checked like any other."""
    plain = to_plain(config)
    for name, value in changes.items():
        *groups, last = name.split(".")
        place = plain
        for group in groups:
            place = place.get(group) if isinstance(place.get(group), dict) else {}  # type: ignore[assignment]
        if last not in place:
            raise Refused(f"{name} is no setting. {suggest(name, dotted_names())}")
        place[last] = value.name if isinstance(value, Enum) else value
    return from_plain(plain)


def dotted_names(kind: type = TrainConfig, prefix: str = "") -> list[str]:
    """Every setting's dotted name."""
    hints = get_type_hints(kind)
    names: list[str] = []
    for item in fields(kind):
        inner = hints[item.name]
        names += dotted_names(inner, f"{prefix}{item.name}.") if is_dataclass(inner) else [f"{prefix}{item.name}"]  # type: ignore[arg-type]
    return names


def to_yaml(config: TrainConfig) -> str:
    """The settings as YAML, as config.yaml of a run holds them."""
    text: str = yaml.safe_dump(to_plain(config), sort_keys=False, allow_unicode=True, width=160)
    return text


def read_yaml(path: Path) -> TrainConfig:
    """The settings of a run's config.yaml. Raises Refused."""
    try:
        plain = from_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Refused(f"{path} cannot be read as a run's settings: {error}") from error
    if not isinstance(plain, dict):
        raise Refused(f"{path} does not hold a run's settings.")
    try:
        return from_plain(plain)
    except Faults as error:
        raise Faults(f"{path} is refused; correct these lines of it:", error.faults) from error
