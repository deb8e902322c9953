"""A run's settings and captions under sd-scripts' metadata keys, which A1111, Forge, LoRA managers and Civitai show.

Every value is text; objects are JSON, as sd-scripts writes them and A1111 parses them (a value that begins with a brace). No date and
no path: a run that is resumed writes the same.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

from registry.architectures.text.clip_chunks import MARKS
from train.config import Precision, TrainConfig
from train.data.captions import tag_frequency
from train.lora import kind_of
from train.objective.noise import noise_names
from train.plan.plan import Plan

KOHYA_LOSSES = {"l1": "l1", "pseudo_huber": "huber"}  # beside l2; its smooth_l1 is another function
LARGEST = 16 << 20  # bytes of the tag frequencies in a header; more are left out, and the plan says so


def training_metadata(plan: Plan, step: int, *, base_sha256: str | None) -> dict[str, str]:
    """The entries of an adapter after `step` steps. `base_sha256` is that of the base's file, None for a folder."""
    digest = {"ss_new_sd_model_hash": base_sha256} if base_sha256 else {}
    return {**_settings(plan), **_progress(plan, step), **_dataset(plan), "ss_sd_model_name": plan.base.path.name, **digest}


def _settings(plan: Plan) -> dict[str, str]:
    config = plan.config
    text_rate = (config.optim.text_lr or config.optim.lr) if plan.encoders else None
    gamma = config.objective.params.gamma if config.objective.weighting == "min_snr" else None
    return {
        "ss_output_name": str(config.name),
        "ss_learning_rate": str(config.optim.lr),
        "ss_unet_lr": str(config.optim.lr),
        "ss_text_encoder_lr": str(text_rate),
        "ss_optimizer": config.optim.name,
        "ss_max_grad_norm": str(config.optim.clip),
        "ss_lr_scheduler": config.schedule.name,
        "ss_lr_warmup_steps": str(round(config.schedule.warmup * config.steps)),
        "ss_min_snr_gamma": str(gamma),
        "ss_mixed_precision": "no" if config.precision is Precision.fp32 else config.precision.name,
        "ss_gradient_checkpointing": str(config.gradient_checkpointing),
        "ss_clip_skip": str(plan.base.family.clip_layer + config.clip_skip if config.clip_skip else None),  # counted from the end, from 1
        **_token_length(plan),
        **_network(plan),
        "ss_seed": str(config.seed),
        "ss_cache_latents": "True",
        **_objective(config),
    }


def _objective(config: TrainConfig) -> dict[str, str]:
    """What is not sd-scripts' default of noise, loss and timesteps."""
    objective, params = config.objective, config.objective.params
    names = noise_names(objective.noise)
    found = {
        "ss_zero_terminal_snr": objective.zero_terminal_snr or None,
        "ss_debiased_estimation": objective.weighting == "debiased" or None,
        "ss_noise_offset": params.offset if "offset" in names else None,
        "ss_noise_offset_random_strength": params.offset_random if "offset" in names else None,
        "ss_adaptive_noise_scale": (params.offset_adaptive or None) if "offset" in names else None,
        "ss_multires_noise_iterations": params.iterations if "pyramid" in names else None,
        "ss_multires_noise_discount": params.discount if "pyramid" in names else None,
        "ss_ip_noise_gamma": params.perturbation if "perturbation" in names else None,
        "ss_ip_noise_gamma_random_strength": params.perturbation_random if "perturbation" in names else None,
        "ss_loss_type": KOHYA_LOSSES.get(objective.loss),
        "ss_huber_schedule": params.schedule if objective.loss == "pseudo_huber" else None,
        "ss_huber_c": params.c if objective.loss == "pseudo_huber" else None,
        "ss_min_timestep": objective.min_timestep,
        "ss_max_timestep": objective.max_timestep,
    }
    return {name: str(value) for name, value in found.items() if value is not None}


def _token_length(plan: Plan) -> dict[str, str]:
    """ss_max_token_length where a prompt is read in several chunks: tokens without BOS and EOS, as sd-scripts counts them."""
    return {"ss_max_token_length": str(plan.prompt_tokens - MARKS)} if plan.config.prompt_chunks > 1 else {}


def _network(plan: Plan) -> dict[str, str]:
    """LyCORIS's network module, dim, alpha and args for a kind that is none of sd-scripts' own; a LoRA's are written from its factors."""
    lora, kind = plan.config.lora, kind_of(plan.config.lora)
    if not kind.layers:
        return {}
    if kind.factors:
        ratio = plan.config.optim.loraplus_lr_ratio
        return {} if ratio is None else {"ss_network_args": json.dumps({"loraplus_lr_ratio": str(ratio)})}
    return {
        "ss_network_module": kind.module,
        "ss_network_dim": str(lora.rank),
        "ss_network_alpha": str(plan.config.alpha if kind.alpha else None),
        "ss_network_args": json.dumps({name: str(value) for name, value in kind.args.items()}),
    }


def _progress(plan: Plan, step: int) -> dict[str, str]:
    config = plan.config
    images, regularisation = (sum(sample.repeats for sample in plan.train if sample.prior is prior) for prior in (False, True))
    together = config.images_per_step * plan.processes
    batches = plan.order.epoch_steps * config.accumulate
    return {
        "ss_steps": str(step),
        "ss_max_train_steps": str(config.steps),
        "ss_epoch": str(math.ceil(step / plan.order.epoch_steps)),
        "ss_num_epochs": str(math.ceil(plan.epochs)),
        "ss_num_batches_per_epoch": str(math.ceil(batches)),
        "ss_batch_size_per_device": str(config.batch_size),
        "ss_total_batch_size": str(together),
        "ss_gradient_accumulation_steps": str(config.accumulate),
        "ss_num_train_images": str(0 if plan.drawn else images),
        "ss_num_reg_images": str(regularisation),
    }


def _dataset(plan: Plan) -> dict[str, str]:
    side = max(plan.config.sides)
    buckets = {
        str(number): {"resolution": [bucket.width, bucket.height], "count": len(names)}
        for number, (bucket, names) in enumerate(plan.buckets.items())
    }
    folder = set_name(plan.dataset.path)
    sets, prior = (
        {str(one["name"] or folder): {"n_repeats": one["repeats"], "img_count": one["images"]} for one in plan.sets if one["prior"] is kind}
        for kind in (False, True)
    )
    tags = tags_json([sample.set or folder for sample in plan.train], plan.prompts)
    return {
        "ss_resolution": f"({side}, {side})",
        "ss_enable_bucket": str(plan.config.data.buckets),
        "ss_bucket_info": json.dumps({"buckets": buckets, "mean_img_ar_error": _aspect_error(plan)}),
        "ss_dataset_dirs": json.dumps(sets),
        **({"ss_reg_dataset_dirs": json.dumps(prior)} if prior else {}),
    } | ({"ss_tag_frequency": tags} if len(tags) <= LARGEST else {})


def _aspect_error(plan: Plan) -> float:
    """Mean difference of an image's aspect ratio and its bucket's, width / height, as sd-scripts gives it."""
    errors = [abs(item.sample.size.width / item.sample.size.height - item.bucket.width / item.bucket.height) for item in plan.items]
    return math.fsum(errors) / len(errors)


def set_name(path: str) -> str:
    """The set's last name: no path of this machine goes into a file."""
    return Path(path).name or path


def tags_json(folders: Sequence[str], prompts: Sequence[str]) -> str:
    """ss_tag_frequency: {folder: {tag: how many prompts have it}}, of the prompts of each folder."""
    by_folder: dict[str, list[str]] = {folder: [] for folder in folders}
    for folder, prompt in zip(folders, prompts, strict=True):
        by_folder[folder].append(prompt)
    return json.dumps({folder: tag_frequency(some) for folder, some in by_folder.items()})
