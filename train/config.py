"""The settings of a training run: plain dataclasses with ranges, no torch. `help` in a field's metadata is its meaning.

Ranges are checked here, all faults together, each with its dotted name; what needs the disk is checked by the plan.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from enum import Enum
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, get_type_hints

import yaml

from registry.errors import Faults, Refused
from registry.names import DEVICE, suggest
from registry.plain_values import from_yaml
from registry.settings import params_schema, setting, word
from registry.typed_values import fitted, shown
from train.objective.losses import LOSSES
from train.objective.timesteps import TIMESTEPS
from train.objective.weighting import WEIGHTINGS
from train.optim import OPTIMIZERS
from train.schedule import SCHEDULES

C = TypeVar("C")

# A name is a folder, and a reference in which @ + : / have a meaning; a sweep's run has its override behind an @.
NAME = re.compile(r"[^\s.@+:/\\\x00-\x1f-][^@+:/\\\x00-\x1f]*(@[^@+:/\\\x00-\x1f]*=[^@+:/\\\x00-\x1f]*)?")


class Precision(Enum):
    """The base's weights and the arithmetic; LoRA weights are always fp32."""

    auto = "auto"  # bf16 on a GPU that has it, else fp32
    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


@dataclass(kw_only=True)
class DataConfig:
    path: str | None = setting(
        None,
        "folder of images with captions (NAME.png + NAME.txt or NAME.png.txt, or metadata.jsonl/csv/parquet), or anything"
        " datasets.load_dataset opens",
    )
    trigger: str | None = setting(
        None,
        "trigger word: prepended to every caption that lacks it; alone it is the caption of a set without captions",
    )
    split: str = setting("train", "the split, where load_dataset is used")
    image_column: str | None = setting(None, "column with the image (default: file_name in metadata files, the one image column elsewhere)")
    caption_column: str | None = setting(
        None, "column with the caption (default: text, caption or prompt, whichever there is); none: the set has no captions"
    )


@dataclass(kw_only=True)
class LoraConfig:
    rank: int = setting(16, "LoRA rank (dim)")
    alpha: float | None = setting(None, "LoRA alpha: the product is scaled by alpha / rank (default: rank)")
    targets: Any = setting(
        "attention",
        "a preset (attention, attention_mlp, convolutions), a list of module names, or a regular expression in slashes: /.*attn2.*/",
    )
    text_encoder: bool = setting(
        False, "train the attention of the CLIP text encoders too: they stay in memory and encode the prompts in every step"
    )


if TYPE_CHECKING:  # built from the tables; no type checker can see their fields
    OptimParams: TypeAlias = Any
    ScheduleParams: TypeAlias = Any
    ObjectiveParams: TypeAlias = Any
else:
    OptimParams = params_schema("OptimParams", [OPTIMIZERS], module=__name__, besides=("weight_decay", "betas"))
    ScheduleParams = params_schema("ScheduleParams", [SCHEDULES], module=__name__)
    ObjectiveParams = params_schema("ObjectiveParams", [TIMESTEPS, WEIGHTINGS, LOSSES], module=__name__)


@dataclass(kw_only=True)
class OptimConfig:
    name: str = word("adamw", f"optimizer: {', '.join(OPTIMIZERS)}, or the import path of a class: torch.optim.RMSprop")
    lr: float = setting(1e-4, "peak learning rate")
    text_lr: float | None = setting(None, "peak learning rate of the text encoders (default: optim.lr)")
    weight_decay: float | None = setting(None, "weight decay (default: the optimizer's own; adamw 0.01)")
    betas: list[float] | None = setting(None, "decay of the first and the second moment (default: the optimizer's own; adamw [0.9, 0.999])")
    clip: float = setting(1.0, "largest gradient norm over all LoRA weights (gradient clipping); 0 does not clip")
    params: OptimParams = setting(OptimParams, "options of the optimizer")
    args: Any = setting(None, "more arguments of a class named by its import path: {alpha: 0.95}")


@dataclass(kw_only=True)
class ScheduleConfig:
    name: str = word(
        "cosine", f"LR schedule after warmup: {', '.join(SCHEDULES)}, or the import path of a class: torch.optim.lr_scheduler.StepLR"
    )
    warmup: float = setting(0.05, "share of the steps in which the learning rate rises from 0")
    params: ScheduleParams = setting(ScheduleParams, "options of the schedule")
    args: Any = setting(None, "arguments of a class named by its import path: {step_size: 100}")


@dataclass(kw_only=True)
class ObjectiveConfig:
    timesteps: str | None = word(None, f"distribution of the training timesteps: {', '.join(TIMESTEPS)} (default: the family's)")
    weighting: str = word("none", f"loss weights by timestep: {', '.join(WEIGHTINGS)}")
    loss: str = word("mse", f"loss: {', '.join(LOSSES)}")
    shift: float | None = setting(
        None, "time shift of a flow model's timesteps, above 1 towards noise; 1 is none (default: that of sampling at this resolution)"
    )
    guidance: float | None = setting(None, "embedded guidance while training, for families that have it (default: the family's)")
    params: ObjectiveParams = setting(ObjectiveParams, "options of timesteps, weighting and loss")


@dataclass(kw_only=True)
class CheckpointConfig:
    every: int | None = setting(None, "steps between checkpoints (default: a fifth of the steps); there is always one of the last step")
    keep: int = setting(3, "number of newest checkpoints to keep, beside the one with the lowest held-out loss")
    load_best_at_end: bool | None = setting(
        None,
        "register the checkpoint with the lowest held-out loss under the run's name where it is better than the last step beyond chance: "
        "true, false (always the last step), or null: only where the last step is not better than the base either",
    )


@dataclass(kw_only=True)
class HeldoutConfig:
    path: str | None = setting(None, "folder of held-out images with captions, never trained on (default: heldout/ in data.path)")
    share: float = setting(0.0, "share of data.path split off for validation, by content, when there is no such folder")
    every: int | None = setting(None, "steps between held-out measurements (default: a tenth of the steps)")


@dataclass(kw_only=True)
class PreviewConfig:
    prompts: list[str] | None = setting(
        None, "prompts of the sample images (default: the first held-out captions, else training captions); [] draws none", prose=True
    )
    every: int | None = setting(None, "steps between previews (default: with each checkpoint)")
    seed: int = setting(0, "seed of the first prompt's image; each further prompt has the next seed")
    steps: int | None = setting(None, "sampling steps (default: 20, or the family's default if lower)")
    guidance: float | None = setting(None, "guidance (default: the family's)")


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
    resolution: int | None = setting(
        None, "pixels a side: images are scaled by their short side and cropped at the centre (default: the base's own)"
    )
    clip_skip: int | None = setting(
        None,
        "last layers of the CLIP text encoders that are left out, in training and previews, as diffusers counts: 1 is kohya's clip skip 2",
    )
    batch_size: int = setting(4, "batch size per device")
    accumulate: int = setting(1, "gradient accumulation steps")
    steps: int = setting(1000, "optimizer steps")
    epochs: float | None = setting(
        None, "how often each image is trained on; the plan makes it the least number of steps that do (default: steps)"
    )
    seed: int = setting(0, "seed of the LoRA's initial weights, the order of images and all noise")
    lora: LoraConfig = field(default_factory=LoraConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    precision: Precision = setting(Precision.auto, "precision of the base and of the arithmetic: auto, fp32, bf16, fp16")
    gradient_checkpointing: bool = setting(
        False, "recompute activations in the backward pass (gradient checkpointing): less memory, about a third slower"
    )
    device: str = word("auto", "auto, cpu, cuda, cuda:1, mps")
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
        yield from self._counts()
        yield from self._reals()
        yield from self._words()

    def _counts(self) -> Iterable[tuple[str, Any, bool, str]]:
        for name in ("batch_size", "accumulate", "steps", "lora.rank", "checkpoint.keep"):
            yield name, (value := get(self, name)), value >= 1, "must be at least 1"
            yield name, value, value < 2**31, "must be below 2^31"
        for name in ("resolution", "checkpoint.every", "heldout.every", "preview.every", "preview.steps"):
            value = get(self, name)
            yield name, value, value is None or value >= 1, "must be at least 1, or null for the default"
            yield name, value, value is None or value < 2**31, "must be below 2^31"
        yield "clip_skip", self.clip_skip, self.clip_skip is None or self.clip_skip >= 0, "must be 0 or more, or null for none"
        for name in ("seed", "preview.seed"):
            yield name, (value := get(self, name)), 0 <= value < 2**63, "must be in 0 .. 2^63 - 1"

    def _reals(self) -> Iterable[tuple[str, Any, bool, str]]:
        alpha, lr, betas = self.lora.alpha, self.optim.lr, self.optim.betas
        yield (
            "lora.alpha",
            alpha,
            alpha is None or (isfinite(alpha) and alpha > 0),
            "must be above 0 (0 learns nothing), or null for the rank",
        )
        yield "optim.lr", lr, 0 < lr <= 1, "must be above 0 and at most 1 (1e-4 suits rank 16)"
        text_lr = self.optim.text_lr
        yield "optim.text_lr", text_lr, text_lr is None or 0 < text_lr <= 1, "must be above 0 and at most 1, or null for optim.lr"
        yield "optim.text_lr", text_lr, text_lr is None or self.lora.text_encoder, "needs lora.text_encoder=true: no text encoder learns"
        decay, clip = self.optim.weight_decay, self.optim.clip
        yield (
            "optim.weight_decay",
            decay,
            decay is None or (isfinite(decay) and decay >= 0),
            "must be 0 or more, or null for the optimizer's own",
        )
        yield "optim.clip", clip, isfinite(clip) and clip >= 0, "must be 0 or more"
        good = betas is None or (len(betas) == 2 and all(0 <= beta < 1 for beta in betas))
        yield "optim.betas", betas, good, "must be two numbers in [0, 1), or null for the optimizer's own"
        yield (
            "epochs",
            self.epochs,
            self.epochs is None or (isfinite(self.epochs) and self.epochs > 0),
            "must be above 0, or null for steps",
        )
        shift = self.objective.shift
        yield "objective.shift", shift, shift is None or (isfinite(shift) and shift > 0), "must be above 0, or null for the base's own"
        yield "schedule.warmup", self.schedule.warmup, 0 <= self.schedule.warmup < 1, "is a share of the steps and must be in [0, 1)"
        yield "heldout.share", self.heldout.share, 0 <= self.heldout.share < 1, "is a share of the images and must be in [0, 1)"
        for name in ("preview.guidance", "objective.guidance"):
            value = get(self, name)
            yield name, value, value is None or (isfinite(value) and value >= 0), "must be 0 or more, or null for the family's"

    def _words(self) -> Iterable[tuple[str, Any, bool, str]]:
        must = "names a folder and is used in references: it must be without @ + : / \\, and not start with `.`, `-` or a space"
        yield "name", self.name, self.name is None or (NAME.fullmatch(self.name) is not None and self.name == self.name.strip()), must
        yield "device", self.device, DEVICE.fullmatch(self.device) is not None, "must be auto, cpu, mps, cuda or cuda:NUMBER"
        for name in ("data.path", "data.trigger", "base", "base_config", "heldout.path", "out", "resume"):
            value = get(self, name)
            yield name, value, value is None or bool(value.strip()), "must not be empty"
        for name in ("optim.args", "schedule.args"):
            value = get(self, name)
            yield (
                name,
                value,
                value is None or (isinstance(value, dict) and all(isinstance(key, str) for key in value)),
                "must be {NAME: VALUE}",
            )
        targets = self.lora.targets
        good = (isinstance(targets, str) and bool(targets)) or (
            isinstance(targets, (list, tuple)) and len(targets) > 0 and all(isinstance(t, str) and t for t in targets)
        )
        yield "lora.targets", targets, good, "must be a preset, a list of module names, or a /regular expression/"

    @property
    def alpha(self) -> float:
        """The LoRA's alpha: the one given, else the rank."""
        return float(self.lora.rank if self.lora.alpha is None else self.lora.alpha)

    @property
    def images_per_step(self) -> int:
        """Images of one process that make one optimizer step."""
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
