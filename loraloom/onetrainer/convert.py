"""OneTrainer's JSON as the command line of `loraloom train` that trains the same."""

import re
from collections.abc import Callable, Sequence
from math import isfinite
from pathlib import Path

from loraloom.kohya.convert import Steps, finished
from loraloom.kohya.converted import Converted
from loraloom.onetrainer.adapter import convert_adapter
from loraloom.onetrainer.base import BaseFacts
from loraloom.onetrainer.data import convert_data
from loraloom.onetrainer.files import Values, read_files
from loraloom.onetrainer.names import GROUPS
from loraloom.onetrainer.objective import convert_objective
from loraloom.onetrainer.optimizer import convert_optimizer
from loraloom.onetrainer.tables import ACTS, BESIDE, IGNORED, UNSUPPORTED, by_name
from registry.errors import Faults

EVERY = {"EPOCH": "epochs", "STEP": "steps"}  # units of time that a run has
DTYPES = {"FLOAT_32": "fp32", "TFLOAT_32": "fp32", "FLOAT_16": "fp16", "BFLOAT_16": "bf16"}


def convert(path: Path, *, chosen: Sequence[str], facts: Callable[[str], BaseFacts], steps: Steps) -> Converted:
    """The settings of the file, with those of the command line (`chosen`, NAME=VALUE) in their place.

    Raises Faults with everything in the file that would change what is learned and is not here.
    """
    files = read_files(path)
    given = {name.lstrip("+"): value for name, _, value in (one.partition("=") for one in chosen)}
    to, values = Converted(chosen=set(given)), files.values
    to.faults += files.faults
    try:
        base = facts(str(given.get("base") or values["base_model_name"]))
    except Faults as error:
        to.faults += error.faults
        base = BaseFacts()
    prediction = "v_prediction" if values["force_v_prediction"] else "epsilon" if values["force_epsilon_prediction"] else base.prediction
    _run(values, to)
    convert_adapter(values, to, base)
    convert_optimizer(values, to)
    convert_objective(values, to, flow=prediction == "flow", velocity=prediction == "v_prediction")
    convert_data(files, values, to)
    _previews(files.samples, values, to)
    _rest(values, to)
    return finished(to, chosen, steps, "This file cannot be trained as OneTrainer would:")


def _run(values: Values, to: Converted) -> None:
    if (method := values["training_method"]) not in ("LORA", "EMBEDDING"):
        to.fault(f"training_method={method}: adapters and embeddings are trained here. Write LORA or EMBEDDING.")
    to.set("base", values["base_model_name"], "base_model_name")
    for name, prediction in (("force_v_prediction", "v_prediction"), ("force_epsilon_prediction", "epsilon")):
        if values[name]:
            to.set("prediction", prediction, name)
    if name := Path(str(values["output_model_destination"])).stem:
        to.set("name", name, "output_model_destination")
    if not {"steps", "epochs"} & set(to.chosen):
        to.set("epochs", int(values["epochs"]), "epochs")
    to.set("batch_size", int(values["batch_size"]), "batch_size")
    to.set("accumulate", int(values["gradient_accumulation_steps"]), "gradient_accumulation_steps")
    to.set("optim.clip", float(values["clip_grad_norm"]), "clip_grad_norm")
    if "clip_grad_norm" in values.given and values.given["clip_grad_norm"] is None:
        to.set("optim.clip", 0.0, "clip_grad_norm")
    dtype = str(values["train_dtype"])
    if dtype in DTYPES:
        to.set("precision", DTYPES[dtype], "train_dtype")
    else:
        to.fault(f"train_dtype={dtype}: there are {', '.join(DTYPES)}.", unless=("precision",))
    if values["ema"] != "OFF":
        decay, every = float(values["ema_decay"]), int(values["ema_update_step_interval"])
        to.set("ema.decay", round(decay ** (1 / every), 9), "ema_decay")
        to.notes.append(f"ema_update_step_interval={every}: the average follows every step, by ema_decay^(1/{every})")
    if skip := int(values["text_encoder_layer_skip"]):
        to.set("clip_skip", skip, "text_encoder_layer_skip")
    to.notes.append("seed: OneTrainer draws by the step's number; here seed is 0")


def _every(values: Values, to: Converted, name: str, setting: str) -> None:
    """A count of steps, or of epochs once the steps are known; other units are no part of what is learned."""
    count, unit = float(values[name]), str(values[f"{name}_unit"])
    if unit == "STEP":
        to.set(setting, max(1, int(count)), name)
    elif unit == "EPOCH" and count > 0 and setting not in to.chosen:
        to.sources[setting] = name
        to.later.append(lambda steps, epochs: {setting: max(1, round(count * steps / epochs))})
    elif unit not in EVERY and {name, f"{name}_unit"} & set(values.given):
        to.ignored[name] = f"{setting} counts steps, by default a fifth of them"


def _previews(samples: list[dict[str, object]] | None, values: Values, to: Converted) -> None:
    _every(values, to, "sample_after", "preview.every")
    _every(values, to, "save_every", "checkpoint.every")
    if values["rolling_backup"]:
        to.set("checkpoint.keep", int(values["rolling_backup_count"]), "rolling_backup_count")
    if values["validation"]:
        _every(values, to, "validate_after", "heldout.every")
    rows = [row for row in samples or [] if row.get("enabled", True) and row.get("prompt")]
    if not rows:
        return
    to.set("preview.prompts", [str(row["prompt"]) for row in rows], "samples: prompt")
    for key, setting, kind in (("diffusion_steps", "preview.steps", int), ("cfg_scale", "preview.guidance", float)):
        value = rows[0].get(key)
        if isinstance(value, (int, float)) and isfinite(value) and all(row.get(key) == value for row in rows):
            to.set(setting, kind(value), f"samples: {key}")
    if len(rows) == 1 and isinstance(seed := rows[0].get("seed"), int):
        to.set("preview.seed", seed, "samples: seed")
    to.ignored["samples: width, height, negative_prompt, noise_scheduler"] = (
        "previews have the run's size, the family's sampler and no negative prompt; loraloom grid draws with any"
    )


def _rest(values: Values, to: Converted) -> None:
    """What nothing came of: ignored, or a fault where it acts. A saved configuration has every name, so defaults are not listed."""
    ignored, refused = by_name(IGNORED), by_name(UNSUPPORTED)
    mentioned = {*re.findall(r"\w+", " ".join((*to.sources.values(), *to.notes, *to.faults, *to.ignored))), *ACTS.split()}
    for name in values.given:
        if name in GROUPS:
            if name in ignored and name not in mentioned:
                to.ignored[name] = ignored[name]
        elif values.gives(name) and name not in mentioned:
            if name in refused:
                to.fault(f"{name}={values[name]!r}: {refused[name]}. Leave it out.")
            else:
                to.ignored[name] = ignored.get(name, BESIDE)
