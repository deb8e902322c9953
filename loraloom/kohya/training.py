"""The arguments of a run: its base, steps, loss, precision, checkpoints and previews."""

import math
from typing import Any

from loraloom.hydra.aliases import Alias, Answer
from loraloom.kohya.arguments import Values
from loraloom.kohya.converted import Converted
from loraloom.training_values import LOSS, PRECISION, TRACKER
from registry.home import expanded

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
SAMPLING = {  # timestep_sampling of the flow models -> objective.timesteps, whether discrete_flow_shift acts
    "sigma": ("uniform", True),
    "uniform": ("uniform", False),
    "sigmoid": ("logit_normal", False),
    "shift": ("logit_normal", True),
    "flux_shift": ("logit_normal", None),  # by resolution, which is our default
}
CLIP_TOKENS = 75


def convert_training(values: Values, to: Converted, *, flow: bool, penultimate: bool) -> None:
    """Everything but the adapter, the optimizer and the images. `flow`: the base is a flow model; `penultimate`: as SDXL reads CLIP."""
    for name, setting in SAME.items():
        if (value := values[name]) is not None:
            to.set(setting, value, name)
    _base(values, to)
    _steps(values, to)
    _text(values, to, penultimate=penultimate)
    _words(values, to)
    _weighting(values, to)
    if flow:
        _flow(values, to)
    _saves(values, to)
    _previews(values, to)


def _base(values: Values, to: Converted) -> None:
    base = values["pretrained_model_name_or_path"]
    if base is None:
        to.fault("pretrained_model_name_or_path is missing: the base. Give base=NAME or a path.", unless=("base",))
    else:
        to.set("base", base, "pretrained_model_name_or_path")
    if values["v_parameterization"]:
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
    kind, schedule, width = values["loss_type"], values["huber_schedule"], values["huber_c"]
    if values.gives("huber_scale"):
        to.fault("huber_scale: huber_c is objective.params.c, without another factor. Leave it out.")
    if kind in ("huber", "smooth_l1") and (schedule != "constant" or kind == "smooth_l1"):
        to.fault(
            f"loss_type={kind} with huber_schedule={schedule}: a width that changes with the timestep is not here. loss_type=huber with"
            " huber_schedule=constant is objective.loss=pseudo_huber.",
            unless=("objective.loss",),
        )
        return
    _answered(to, LOSS, "loss_type", kind)
    if kind == "huber":
        to.set("objective.params.c", width, "huber_c")


def _weighting(values: Values, to: Converted) -> None:
    gamma, debiased = values["min_snr_gamma"], values["debiased_estimation_loss"]
    if gamma and debiased:
        to.fault("min_snr_gamma and debiased_estimation_loss: sd-scripts multiplies both, here is one objective.weighting. Leave one out.")
    elif gamma:
        to.set("objective.weighting", "min_snr", "min_snr_gamma")
        to.set("objective.params.gamma", float(gamma), "min_snr_gamma")
    elif debiased:
        to.set("objective.weighting", "debiased", "debiased_estimation_loss")


def _flow(values: Values, to: Converted) -> None:
    """Timesteps and guidance of FLUX.1."""
    kind, scheme = values["timestep_sampling"], values["weighting_scheme"]
    if values["model_prediction_type"] != "raw":
        to.fault(
            f"model_prediction_type={values['model_prediction_type']}: the loss here is of the velocity itself. sd-scripts' default"
            ' (sigma_scaled) compares an image with a velocity; write model_prediction_type = "raw".'
        )
    if kind not in SAMPLING:
        to.fault(f"timestep_sampling={kind}: there are {', '.join(SAMPLING)}.", unless=("objective.timesteps",))
        return
    timesteps, shifted = SAMPLING[kind]
    if kind == "sigma" and scheme in ("logit_normal", "mode"):
        timesteps = scheme
        if scheme == "mode":
            to.set("objective.params.scale", values["mode_scale"], "mode_scale")
        else:
            to.set("objective.params.mean", values["logit_mean"], "logit_mean")
            to.set("objective.params.std", values["logit_std"], "logit_std")
    elif timesteps == "logit_normal":
        to.set("objective.params.std", values["sigmoid_scale"], "sigmoid_scale")
    to.set("objective.timesteps", timesteps, "timestep_sampling")
    if shifted is not None:
        to.set(
            "objective.shift", values["discrete_flow_shift"] if shifted else 1.0, "discrete_flow_shift" if shifted else "timestep_sampling"
        )
    to.set("objective.guidance", values["guidance_scale"], "guidance_scale")


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


def _previews(values: Values, to: Converted) -> None:
    given = values["sample_prompts"]
    if given is None:
        return
    path = expanded(given)
    if path.suffix != ".txt" or not path.is_file():
        to.fault(f"sample_prompts={given}: a .txt file with a prompt a line is read. Give preview.prompts.", unless=("preview.prompts",))
        return
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    rows = [line.split(" --") for line in lines if line and not line.startswith("#")]
    to.set("preview.prompts", [text.strip() for text, *_options in rows], "sample_prompts")
    options: list[dict[str, Any]] = [dict(_option(option) for option in row[1:]) for row in rows]
    for letter, setting, kind in (("s", "preview.steps", int), ("l", "preview.guidance", float)):
        found = {row.get(letter) for row in options}
        if len(found) == 1 and (value := found.pop()) is not None:
            to.set(setting, kind(float(value)), f"--{letter} of sample_prompts")
    if left := sorted({f"--{letter}" for row in options for letter in row} - {"--s", "--l"}):
        to.ignored[f"sample_prompts {' '.join(left)}"] = (
            "previews have one seed, size, guidance and number of steps, and no negative prompt"
        )


def _option(text: str) -> tuple[str, str]:
    letter, _, value = text.strip().partition(" ")
    return letter, value.strip()
