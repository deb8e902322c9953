"""The plan of a run: what will happen, as values and in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from registry.architectures.text.clip_chunks import MARKS
from registry.detect.few_step import FoundFewStep
from registry.printable import as_lines, counted, some
from registry.swapping.blocks import Swap
from train.adapters.ranks import Ranks, ranks_in_words
from train.adapters.start import StartAdapter
from train.choices import token_rate
from train.config import TrainConfig, to_plain
from train.data.buckets import Bucket
from train.data.dataset import ImageSet, Sample, triggers_of
from train.data.items import Item, images_by_bucket
from train.loop.batches import Order
from train.lora import kind_of
from train.masks.mask import counted_masks, summary
from train.measures.drift import draw_steps, drawn_prompts
from train.objective.preference import Preference
from train.objective.slider import Slider
from train.plan.base import Base
from train.plan.compiled import compile_rows
from train.plan.compute import compute_rows
from train.plan.estimate import Estimate, human_bytes, human_seconds
from train.plan.memory import MemoryPlan
from train.plan.quantised import quantised_rows
from train.plan.swap import swap_json
from train.preference.rows import loss_in_words, preference_json, preference_rows
from train.prior.drawn import DrawnImages
from train.prior.rows import prior_json, prior_rows
from train.rate import learning_rate, warmup_steps
from train.settings.tokens import vector_steps
from train.slider.dataset import is_drawn
from train.tokens.captions import token_counts
from train.tokens.new_token import LOADS_IN, NewToken
from train.tokens.rows import token_rows, tokens_json
from train.training_adapter import TrainingAdapter

LISTED = 12  # prompts that are printed; the JSON has all


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run will do. `config` is resolved: every default is a value, every path absolute."""

    config: TrainConfig
    base: Base
    train: tuple[Sample, ...]
    heldout: tuple[Sample, ...]
    items: tuple[Item, ...]  # of `train`
    heldout_items: tuple[Item, ...]  # one an image of `heldout`
    order: Order
    streams: bool  # encoded images stay in the cache: they are more than data.memory
    heldout_source: str  # in words: where the held-out pairs come from, or why there are none
    prompts: tuple[str, ...]  # of `train`, in order: the plain ones
    variants: tuple[tuple[str, ...], ...]  # of each of `train`, the prompts that a step chooses from
    heldout_prompts: tuple[str, ...]
    dataset: ImageSet
    targets: str | list[str]
    encoders: tuple[str, ...]  # text encoders that learn
    layers: int
    parameters: int
    ranks: Ranks  # of every layer
    shown: tuple[str, ...]  # prompts as tokenised
    truncated: tuple[str, ...]
    prompt_tokens: int  # that fit in a prompt, BOS and EOS included
    estimate: Estimate
    free_bytes: int
    disk_bytes: int
    training: TrainingAdapter | None  # fused into the base while training
    start: StartAdapter | None  # that is continued
    few_step: FoundFewStep | None  # what kind of few-step build the base is, and by what it is known
    slider: Slider | None
    preference: Preference | None  # learned from votes
    class_images: DrawnImages | None  # that the base draws before the run
    tokens: tuple[NewToken, ...]  # that are trained
    processes: int  # that share the work, each with batches of its own
    quantised: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # component -> dtype -> its layers that are kept in it
    memory: MemoryPlan | None = None  # the settings that were found for it
    compiled: Counter[str] = field(default_factory=Counter)  # kind of block -> how many are compiled
    shifts: Mapping[Bucket, float] = field(default_factory=dict)  # time shift by size, where sizes have several
    notes: tuple[str, ...] = field(default=())

    @property
    def fresh_texts(self) -> bool:
        """Whether prompts are encoded again in each step: text encoders or vectors of tokens learn."""
        return bool(self.encoders or self.tokens)

    @property
    def token_counts(self) -> dict[str, int]:
        """New token -> how many training images have it in their prompt."""
        return token_counts(self.tokens, self.train, self.config.data)

    @property
    def epochs(self) -> float:
        """How often each item is trained on."""
        return self.config.steps / self.order.epoch_steps

    @property
    def unit(self) -> str:
        """What a batch is of."""
        return "image" if self.preference is None else "pair"

    @property
    def drawn(self) -> bool:
        """Whether there are no images: a slider's noisy latents are drawn by the model."""
        return self.slider is not None and is_drawn(self.dataset)

    @property
    def buckets(self) -> dict[Bucket, list[str]]:
        """The names of the images that are trained at each size."""
        return images_by_bucket(self.items)

    def to_json(self) -> dict[str, Any]:
        """Plain values, stable keys."""
        return {
            "config": to_plain(self.config),
            "base": {"name": self.base.name, "family": self.base.family.name, "path": str(self.base.path)},
            "pictures": 0 if self.drawn else len(self.train),
            "heldout": {"pictures": len(self.heldout), "source": self.heldout_source},
            "few_step": few_step_json(self.few_step),
            "training_adapter": self.training.record.name if self.training else None,
            "start_adapter": self.start.record.name if self.start else None,
            "epochs": self.epochs,
            "text_encoders": list(self.encoders),
            "layers": self.layers,
            "parameters": self.parameters,
            "tokens": tokens_json(self.tokens, self.token_counts),
            "loads_in": _loads_in(self),
            "prompts": list(self.shown),
            "texts": self.texts,
            "sets": self.sets,
            "truncated": list(self.truncated),
            "buckets": [
                {"width": bucket.width, "height": bucket.height, "images": len(names), "names": names}
                for bucket, names in self.buckets.items()
            ],
            "cropped_share": self.cropped,
            "cropped_share_square": self.cropped_square,
            "upscaled": [sample.name for sample in self.upscaled],
            "memory": self.memory.to_json() if self.memory else None,
            "memory_bytes": {**self.estimate.memory, "activations": self.estimate.activations},
            "memory_stages": dict(self.estimate.stages),
            "memory_process": self.estimate.process,
            "quantised_layers": {name: dict(kept) for name, kept in self.quantised.items()},
            "compiled_blocks": dict(self.compiled),
            "memory_peak": self.estimate.total,
            "swap": None if self.estimate.swap is None else swap_json(self.estimate.swap),
            "seconds_estimate": self.seconds,
            "seconds_parts": None if self.estimate.seconds is None else dict(self.estimate.seconds),
            "prior": prior_json(self.train, self.items, self.class_images),
            "preferences": preference_json(self.dataset),
            "masks": counted_masks([sample.mask for sample in self.train]),
            "disk_bytes": self.disk_bytes,
            "notes": list(self.notes),
        }

    @property
    def texts(self) -> int | None:
        """Distinct prompts of the training images that are encoded; None: text encoders or tokens learn, and each step has its own."""
        return None if self.fresh_texts else len({prompt for several in self.variants for prompt in several})

    @property
    def sets(self) -> list[dict[str, Any]]:
        """The sets that the images are of, with their share of the images that the steps train on."""
        counts = Counter(sample.set for sample in self.train)
        shown: Counter[str] = Counter()
        for item in self.items:
            shown[item.sample.set] += item.sample.repeats
        first = {sample.set: sample for sample in reversed(self.train)}
        return [
            {"name": name or None, "images": counts[name], "share": shown[name] / shown.total()}
            | {key: getattr(first[name], key) for key in ("repeats", "weight", "trigger", "prior")}
            for name in dict.fromkeys(sample.set for sample in self.train)
        ]

    @property
    def cropped(self) -> float:
        """Mean share of an image that its crop leaves out."""
        return sum(item.cropped for item in self.items) / len(self.items)

    @property
    def cropped_square(self) -> float:
        """The same if every image were cropped to a square."""
        return sum(sample.size.cropped for sample in self.train) / len(self.train)

    @property
    def upscaled(self) -> list[Sample]:
        """Images with fewer pixels than they are trained or measured with."""
        return list({item.sample.name: item.sample for item in (*self.items, *self.heldout_items) if item.enlarged}.values())

    @property
    def seconds(self) -> float | None:
        """The whole run, from its plan to its report."""
        return None if self.estimate.seconds is None else sum(self.estimate.seconds.values())

    def to_text(self) -> str:
        """The plan for a person."""
        return _text(self)


def few_step_json(found: FoundFewStep | None) -> dict[str, Any] | None:
    """What kind of few-step build a base is; None: it is not known to be one."""
    if found is None:
        return None
    kind = found.kind
    return {
        "kind": kind.title,
        "evidence": found.evidence,
        "steps": kind.steps,
        "guidance": kind.guidance,
        "train_on": kind.instead,
        "training_adapter": kind.training_adapter,
    }


def _text(plan: Plan) -> str:
    """Lines of 'what   value', then lists where there is something to list."""
    config = plan.config
    rows = [
        ("run", f"{config.name}, into {config.out}"),
        ("base", f"{plan.base.name} ({plan.base.family.title}), {plan.base.path}"),
        *_slider(plan),
        *([("images", f"none: {plan.dataset.path}, {_sizes(plan)}")] if plan.drawn else _image_rows(plan)),
        ("held out", plan.heldout_source),
        ("steps", f"{config.steps} of {_images(plan)} {plan.unit}s: {_epochs(plan)}"),
        ("trains", _trained(plan)),
        ("loads in", _loads_in(plan)),
        *_tokens(plan),
        ("rate", _rate(config)),
        ("timesteps", _timesteps(plan)),
        ("loss", loss_in_words(plan.preference, config)),
        *_noise(config),
        *_preserves(config),
        (
            "precision",
            f"{config.precision.name} ({_learned(plan)} fp32){', gradient checkpointing' if config.gradient_checkpointing else ''}",
        ),
        *quantised_rows(plan.quantised),
        *compute_rows(config),
        *compile_rows(config, plan.compiled),
        *_swap(plan.estimate.swap),
        ("memory", _memory(plan)),
        *(plan.memory.rows() if plan.memory else []),
        ("time", _time(plan)),
        ("disk", f"{human_bytes(plan.disk_bytes)} of {human_bytes(plan.free_bytes)} free"),
        ("saves", _saves(plan)),
        ("previews", _previews(plan)),
        *_generic(plan),
        ("trigger", _trigger(plan)),
        *_captions(plan),
        *_clip_skip(plan),
        *_chunks(plan),
        *_training(plan),
        *([("starts", plan.start.sentence())] if plan.start else []),
    ]
    lines = [f"{name:<10} {value}" for name, value in rows]
    lines += ["prompts as tokenised:", *(f"  {shown}" for shown in plan.shown)]
    if plan.truncated:
        lines += [
            f"{counted(len(plan.truncated), 'prompt exceeds', 'prompts exceed')} the base's token limit:",
            *(f"  {note}" for note in plan.truncated[:LISTED]),
        ]
        lines += [f"  and {len(plan.truncated) - LISTED} more"] if len(plan.truncated) > LISTED else []
    if plan.upscaled:
        lines += [f"{counted(len(plan.upscaled), 'image is', 'images are')} enlarged:"]
        lines += [f"  {sample.name} ({sample.size.width}x{sample.size.height})" for sample in plan.upscaled]
    if plan.notes:
        lines += ["notes:", *(f"  {note}" for note in plan.notes)]
    return as_lines(lines)


def _image_rows(plan: Plan) -> list[tuple[str, str]]:
    """Where the images are from, their sizes and crops."""
    rows = [(f"{plan.unit}s", f"{len(plan.train)} from {plan.dataset.path}, {_sizes(plan)}"), *preference_rows(plan.dataset)]
    prior = prior_rows(plan.train, plan.items, plan.class_images)
    return [*rows, *_sets(plan), *prior, *_buckets(plan), ("cropped", _cropped(plan)), *_masks(plan)]


def _slider(plan: Plan) -> list[tuple[str, str]]:
    slider = plan.slider
    if slider is None:
        return []
    if not slider.by_text:
        return [("slider", f"{len(plan.train) // 2} pairs of images: positive/ at weight +1, negative/ at -1")]
    held = f", {' and '.join(map(repr, slider.preserve))} held" if slider.preserve else ""
    on = repr(slider.target) if slider.target else "whatever is drawn"
    return [("slider", f"{slider.positive!r} at weight +1, {slider.negative!r} at -1, {slider.guidance:g} apart, on {on}{held}")]


def _sizes(plan: Plan) -> str:
    """at 512x512 pixels; at 64 to 128 pixels a side in 5 buckets."""
    buckets = list(plan.buckets)
    if len(buckets) == 1:
        return f"at {buckets[0].width}x{buckets[0].height} pixels"
    sides = " and ".join(f"{side}x{side}" for side in plan.config.sides)
    return f"in {len(buckets)} buckets of the area of {sides} pixels"


def _sets(plan: Plan) -> list[tuple[str, str]]:
    """A line for each set, where there are several."""
    if len(plan.sets) == 1:
        return []
    lines = []
    for one in plan.sets:
        text = f"{one['name'] or 'data.path'}: {counted(one['images'], 'image')} x {one['repeats']}, {one['share']:.1%} of the steps"
        text += f", weight {one['weight']:g}" if one["weight"] != 1.0 else ""
        text += f", trigger {one['trigger']!r}" if one["trigger"] else ""
        lines.append(text + (", regularisation" if one["prior"] else ""))
    return [("sets" if not number else "", line) for number, line in enumerate(lines)]


def _captions(plan: Plan) -> list[tuple[str, str]]:
    """What is drawn of captions and views in each step, where something is."""
    data = plan.config.data
    rows = []
    several = [variants for variants in plan.variants if len(variants) > 1]
    if several:
        number = "a new one each time" if plan.texts is None else f"{plan.texts} are encoded, up to {max(map(len, several))} an image"
        rows.append(("captions", f"the prompts of {counted(len(several), 'image')} are drawn in each step: {number}"))
    if data.caption_dropout:
        rows.append(("dropout", f"{data.caption_dropout:.1%} of the images of a step have the empty prompt"))
    views = [len(item.views) for item in plan.items]
    if max(views) > 1:
        kinds = f"{'up to ' if len(set(views)) > 1 else ''}{max(views)} of each image at each size"
        rows.append(("views", f"{sum(views)} crops{' and mirror images' if data.flip else ''} are encoded, {kinds}; a step draws one"))
    return rows


def _buckets(plan: Plan) -> list[tuple[str, str]]:
    """How many images are trained at each size, where there are several."""
    if len(plan.buckets) == 1:
        return []
    short = sum(len(names) % plan.config.batch_size for names in plan.buckets.values())
    rows = [f"{bucket.width}x{bucket.height}: {len(names)}" for bucket, names in plan.buckets.items()]
    full = f"; {counted(short, 'image')} of an epoch in a batch of fewer than {plan.config.batch_size}" if short else ""
    return [("buckets", f"{some(rows, LISTED)}{full}")]


def _cropped(plan: Plan) -> str:
    """What the crops leave out; with buckets, also what squares would."""
    square = plan.cropped_square
    if not square:
        return "nothing, every image is square"
    now = f"{plan.cropped:.1%} of the image area on average" if plan.cropped else "nothing"
    if plan.config.data.buckets:
        return f"{now}; as squares (data.buckets=false) it would be {square:.1%}"
    return f"{now}; data.buckets=true crops less"


def _preserves(config: TrainConfig) -> list[tuple[str, str]]:
    name, weight = config.objective.preserve_class, config.objective.preserve_weight
    if name is None:
        return []
    return [("preserves", f"the base's own answer to {name!r} in place of the trigger, weight {weight:g}: two more passes an image")]


def _masks(plan: Plan) -> list[tuple[str, str]]:
    masks = [sample.mask for sample in plan.train if sample.mask is not None]
    if not masks:
        return []
    data = plan.config.data
    rest = f"what they leave out has weight {data.unmasked_weight:g}"
    return [("masks", f"{summary(masks)}; {rest}{'' if data.normalize_masked_loss else ', an image counts by the share that is kept'}")]


def _epochs(plan: Plan) -> str:
    """How often each image is seen, and the steps of an epoch."""
    if plan.drawn:
        return "each is drawn anew"
    at = " at each of its sizes" if len(plan.items) > len(plan.train) else ""
    return f"each {plan.unit} is seen {plan.epochs:.1f} times{at} (an epoch is {plan.order.epoch_steps:.4g} steps)"


def _images(plan: Plan) -> str:
    """batch x accumulate, and the processes where there are several."""
    factors = f"{plan.config.batch_size} x {plan.config.accumulate}"
    return f"{factors} x {plan.processes} processes'" if plan.processes > 1 else factors


def _clip_skip(plan: Plan) -> list[tuple[str, str]]:
    skip = plan.config.clip_skip
    if not skip:
        return []
    return [
        (
            "clip skip",
            f"{skip}: the text encoders' last {counted(skip, 'layer is', 'layers are')} left out (clip "
            f"skip {skip + 1} in kohya's and A1111's count)",
        )
    ]


def _chunks(plan: Plan) -> list[tuple[str, str]]:
    chunks, tokens = plan.config.prompt_chunks, plan.prompt_tokens - MARKS
    if chunks == 1:
        return []
    return [("chunks", f"{chunks} of {tokens // chunks} tokens a prompt (max_token_length {tokens} in kohya's count)")]


def _training(plan: Plan) -> list[tuple[str, str]]:
    if plan.training is None:
        return []
    return [("fused", f"{plan.training.record.name} while training; previews, held-out loss and the saved adapter are without it")]


def _tokens(plan: Plan) -> list[tuple[str, str]]:
    config = plan.config
    rate, steps = config.optim.lr * token_rate(config), vector_steps(config.tokens, config.steps)
    return token_rows(plan.tokens, plan.token_counts, images=len(plan.train), rate=rate, steps=steps, of=config.steps)


def _learned(plan: Plan) -> str:
    """What has gradients."""
    if not plan.layers:
        return "vectors"
    return "LoRA weights and vectors" if plan.tokens else "LoRA weights"


def _trained(plan: Plan) -> str:
    lora = plan.config.lora
    if not kind_of(lora).layers:
        return f"the vectors of {counted(len(plan.tokens), 'token')} alone (textual inversion), no adapter"
    where = f" of {' and '.join((plan.base.family.denoiser, *plan.encoders))}" if plan.encoders else ""
    return f"{kind_of(lora).title}, {plan.parameters:,} weights on {counted(plan.layers, 'layer')}{where}, {_rank(plan)}"


def _rank(plan: Plan) -> str:
    """The rank and its scale, or those of each pattern; the size of OFT's blocks."""
    lora, kind = plan.config.lora, kind_of(plan.config.lora)
    if lora.ranks or lora.alphas:
        patterns = [f"{name} {value}" for given in (lora.ranks, lora.alphas) for name, value in (given or {}).items()]
        return f"rank {ranks_in_words(plan.ranks)} (by {', '.join(patterns)})"
    if not kind.alpha:
        return f"rank {lora.rank}" if lora.kind != "oft" else f"blocks of up to {lora.params.block_size or lora.rank} outputs"
    if kind.stabilised:
        return f"rank {lora.rank}, alpha / sqrt(rank) {kind.scale(lora.rank, plan.config.alpha):g}"
    return f"rank {lora.rank}, alpha / rank {plan.config.alpha / lora.rank:g}"


def _loads_in(plan: Plan) -> str:
    """The tools that read what is saved."""
    kind = kind_of(plan.config.lora)
    if not kind.layers:
        return LOADS_IN
    return kind.loads_in if plan.base.family.denoiser == "unet" else kind.loads_in_transformer


def _rate(config: TrainConfig) -> str:
    warm, end = warmup_steps(config), learning_rate(config, config.steps - 1)
    ratio = config.optim.loraplus_lr_ratio
    plus = "" if ratio is None else f"; the up matrices (B) at {ratio:g} times that (LoRA+)"
    return f"peak {config.optim.lr:g}, {config.schedule.name}, {counted(warm, 'step')} of warmup, {end:.2g} at the end{plus}"


def _timesteps(plan: Plan) -> str:
    objective, shifts = plan.config.objective, sorted(plan.shifts.values())
    shift = f"{shifts[0]:.3g} to {shifts[-1]:.3g} by size" if shifts else f"{objective.shift:.3g}" if objective.shift is not None else None
    low, high = objective.min_timestep, objective.max_timestep
    band = "" if low is None and high is None else f", from {low or 0:g} to {'the last' if high is None else f'{high:g}'} alone"
    return f"{objective.timesteps}{f', shifted by {shift}' if shift else ''}{band}"


def _noise(config: TrainConfig) -> list[tuple[str, str]]:
    """Noise that is not plain, and rescaled betas."""
    objective = config.objective
    rows = [] if objective.noise == "normal" else [("noise", objective.noise)]
    return [*rows, ("betas", "rescaled to zero terminal SNR, in previews too")] if objective.zero_terminal_snr else rows


def _time(plan: Plan) -> str:
    if plan.seconds is None or plan.estimate.seconds is None:
        return "unknown before the first steps"
    parts = ", ".join(f"{name} {human_seconds(seconds)}" for name, seconds in plan.estimate.seconds.items())
    return f"about {human_seconds(plan.seconds)} if the machine does nothing else (estimate): {parts}"


def _previews(plan: Plan) -> str:
    preview = plan.config.preview
    prompts = len(preview.prompts or [])
    if not prompts:
        return "none"
    tiles = f", decoded in tiles of {preview.vae_tiling} pixels" if preview.vae_tiling else ""
    when = f"before training and every {counted(preview.every, 'step')}"
    return f"{counted(prompts, 'prompt')} of {counted(preview.steps, 'step')}, {when}, at guidance {preview.guidance:g}{tiles}"


def _generic(plan: Plan) -> list[tuple[str, str]]:
    """The generic captions that are measured, where there are any."""
    prompts = drawn_prompts(plan.config, len(plan.heldout))
    if not prompts:
        return []
    return [
        (
            "drift",
            f"of {some(map(repr, prompts), LISTED)}, drawn once by the base in "
            f"{counted(draw_steps(plan.config), 'step')}, with checkpoints",
        )
    ]


def _saves(plan: Plan) -> str:
    settings = plan.config.checkpoint
    return f"a checkpoint every {counted(settings.every, 'step')}, the newest {settings.keep}{' and the best' if plan.heldout else ''}"


def _swap(swap: Swap | None) -> list[tuple[str, str]]:
    """The swapped blocks, where there are any."""
    if swap is None or not swap.swapped:
        return []
    where = f"{len(swap.swapped)} of {counted(len(swap.sizes), 'block')} ({human_bytes(swap.host_bytes)}) in main memory"
    slots = f"{counted(swap.slots, 'slot')} of {human_bytes(swap.slot_bytes)}"
    return [("swap", f"{where}, fetched in turn into {slots} on the device, for each forward and each backward pass")]


def _memory(plan: Plan) -> str:
    found = plan.estimate
    items = [f"this process and its libraries {human_bytes(found.process)}"] if found.process else []
    items += [f"{name.replace('LoRA weights', _learned(plan))} {human_bytes(count)}" for name, count in found.memory.items()]
    items.append("activations not known" if found.activations is None else f"activations {human_bytes(found.activations)}")
    if not found.on_device and found.activations is not None and found.passing > found.activations:
        items.append(f"in their place without gradients {human_bytes(found.passing)} (held-out losses, previews, encoding)")
    stages = [f"{human_bytes(count)} while {name}" for name, count in found.stages.items()] if found.on_device else []
    where = f" on the {plan.config.device if plan.config.device != 'auto' else 'GPU'}: {', '.join(stages)}; " if stages else ": "
    return f"about {human_bytes(found.total)} (estimate){where}{', '.join(items)}"


def _trigger(plan: Plan) -> str:
    triggers = triggers_of(plan.train, plan.config.data)
    if len(triggers) > 1:
        return f"{', '.join(map(repr, triggers))}: each is prepended to the captions of its images that lack it"
    trigger = next(iter(triggers), None)
    if trigger is None:
        return "none; captions are used unchanged"
    if not any(sample.caption for sample in plan.train):
        return f"{trigger!r} alone is the caption of every image"
    return f"{trigger!r} is prepended to each caption that lacks it: '{trigger}, <caption>'"
