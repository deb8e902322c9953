"""The arguments of a run: its base, steps, loss, precision, checkpoints and previews."""

import math

from loraloom.hydra.aliases import Alias, Answer
from loraloom.kohya.arguments import Values
from loraloom.kohya.converted import Converted
from loraloom.kohya.objective import convert_objective
from loraloom.kohya.previews import convert_previews
from loraloom.kohya.scripts import Script
from loraloom.training_values import PRECISION, TRACKER

SAME = {  # argument -> setting with the same value
    "train_batch_size": "batch_size",
    "gradient_accumulation_steps": "accumulate",
    "gradient_checkpointing": "gradient_checkpointing",
    "max_grad_norm": "optim.clip",
    "save_every_n_steps": "checkpoint.every",
    "sample_every_n_steps": "preview.every",
    "validation_split": "heldout.share",
    "validate_every_n_steps": "heldout.every",
    "output_name": "name",
    "output_dir": "out",
}
OFFLOAD = ("cpu_offload_checkpointing", "unsloth_offload_checkpointing")
CLIP_TOKENS = 75


def convert_training(values: Values, to: Converted, *, script: Script, penultimate: bool) -> None:
    """Everything but the adapter, the optimizer and the images. `penultimate`: the base reads CLIP's last but one layer, as SDXL."""
    for name, setting in SAME.items():
        if (value := values[name]) is not None:
            to.set(setting, value, name)
    _swap(values, to)
    _offload(values, to)
    if values["torch_compile"]:
        to.set("compile", "blocks", "torch_compile")
    _base(values, to, script)
    _steps(values, to)
    _text(values, to, penultimate=penultimate)
    _words(values, to)
    convert_objective(values, to, script)
    _quantised(values, to)
    _saves(values, to)
    convert_previews(values, to, embedded="guidance_scale" in script.acts)


def _swap(values: Values, to: Converted) -> None:
    """Swapped blocks, which need gradient checkpointing here: the bytes stay the same."""
    count = values["blocks_to_swap"]
    if not count:
        return
    to.set("swap_blocks", count, "blocks_to_swap")
    to.notes.append("blocks_to_swap: every block counts as one here; sd-scripts counts two of FLUX.1's single blocks as one")
    if not values["gradient_checkpointing"]:
        to.set("gradient_checkpointing", True, "blocks_to_swap")
        to.notes.append("blocks_to_swap: gradient_checkpointing is on, which swap_blocks needs")


def _offload(values: Values, to: Converted) -> None:
    """Checkpointed activations in main memory; the scripts act on it beside gradient_checkpointing alone."""
    asked = next((name for name in OFFLOAD if values[name]), None)
    if asked is not None and values["gradient_checkpointing"]:
        to.set("offload_activations", True, asked)
    elif asked is not None:
        to.notes.append(f"{asked}: without gradient_checkpointing the scripts keep nothing of it in main memory, and so it is here")


def _base(values: Values, to: Converted, script: Script) -> None:
    base = values["pretrained_model_name_or_path"]
    if base is None:
        to.fault("pretrained_model_name_or_path is missing: the base. Give base=NAME or a path.", unless=("base",))
    else:
        to.set("base", base, "pretrained_model_name_or_path")
    if values["v_parameterization"] and "v_parameterization" in script.acts:
        to.set("prediction", "v_prediction", "v_parameterization")
    if apart := [name for name in ("clip_l", "t5xxl", "ae") if values[name] is not None]:
        to.fault(
            f"{', '.join(apart)}: text encoders and VAE are not given file by file. Give a diffusers folder as base, or base_config=FOLDER"
            " with them.",
            unless=("base", "base_config"),
        )
    if values["seed"] is None:
        to.notes.append("seed: sd-scripts draws one at random where none is given; here it is 0")
    else:
        to.set("seed", values["seed"], "seed")


def _steps(values: Values, to: Converted) -> None:
    """Epochs win over steps, as in sd-scripts."""
    epochs, steps = values["max_train_epochs"], values["max_train_steps"]
    if {"steps", "epochs"} & set(to.chosen):
        return
    if epochs is not None:
        to.set("epochs", epochs, "max_train_epochs")
        if values.gives("max_train_steps"):
            to.ignored["max_train_steps"] = "max_train_epochs sets the steps"
    else:
        to.set("steps", steps, "max_train_steps")


def _text(values: Values, to: Converted, *, penultimate: bool) -> None:
    skip, length = values["clip_skip"], values["max_token_length"]
    if skip is not None and skip > 1:
        if penultimate:
            to.ignored["clip_skip"] = "sd-scripts trains this base on CLIP's last but one layer, whatever it is"
        else:
            to.set("clip_skip", int(skip) - 1, "clip_skip")
    if length is not None:
        to.set("prompt_chunks", max(1, math.ceil(length / CLIP_TOKENS)), "max_token_length")


def _answered(to: Converted, alias: Alias, name: str, value: str) -> None:
    """What a table of names answers: our settings, or a fault."""
    answer = alias(value, {})
    if not answer.settings:
        to.fault(f"{name}={value}: {answer.note}.")
    _take(to, answer, name)


def _take(to: Converted, answer: Answer, source: str) -> None:
    for setting in answer.settings:
        name, _, text = setting.partition("=")
        to.set(name, text, source)


def _words(values: Values, to: Converted) -> None:
    _answered(to, PRECISION, "mixed_precision", values["mixed_precision"])
    for name, precision in (("full_bf16", "bf16"), ("full_fp16", "fp16")):
        if values[name]:
            to.set("precision", precision, name)
            to.notes.append(f"{name}: LoRA weights stay fp32 here")
    if values["log_with"] is not None:
        _answered(to, TRACKER, "log_with", values["log_with"])


def _quantised(values: Values, to: Converted) -> None:
    """fp8_base is of the denoiser and of text encoders that do not learn; fp8_base_unet, beside it or alone, of the denoiser."""
    denoiser = [name for name in ("fp8_base", "fp8_base_unet", "fp8_scaled") if values[name]]
    text = [name for name in ("fp8_vl", "fp8_base") if values[name] and not (name == "fp8_base" and values["fp8_base_unet"])]
    for setting, names in (("base_dtype", denoiser), ("text_encoder_dtype", text)):
        if names:
            to.set(setting, "fp8", names[0])
            to.notes.append(f"{names[0]}: here the linear layers of the blocks are kept in fp8, with a scale a row; the rest as precision")


def _saves(values: Values, to: Converted) -> None:
    """Counts of epochs become counts of steps once these are known."""
    for name, setting in (("save_every_n_epochs", "checkpoint.every"), ("sample_every_n_epochs", "preview.every")):
        if (every := values[name]) is not None and setting not in to.chosen:
            to.later.append(lambda steps, epochs, every=every, setting=setting: {setting: max(1, round(every * steps / epochs))})  # type: ignore[misc]
            to.sources[setting] = name
    for unit in ("steps", "epochs"):
        span, every = values[f"save_last_n_{unit}"], values[f"save_every_n_{unit}"]
        if span is None:
            continue
        if every:
            to.set("checkpoint.keep", max(1, math.ceil(span / every)), f"save_last_n_{unit}")
        else:
            to.ignored[f"save_last_n_{unit}"] = f"save_every_n_{unit} is not given"
