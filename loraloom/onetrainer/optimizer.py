"""OneTrainer's optimizer and learning rate."""

import ast
from typing import Any

from loraloom.kohya.converted import Converted
from loraloom.onetrainer.files import Values
from registry.errors import Refused
from registry.printable import counted
from train.optim import OPTIMIZERS

NAMES = {  # optimizer -> optim.name
    "ADAMW": "adamw",
    "ADAMW_8BIT": "adamw8bit",
    "LION": "lion",
    "PRODIGY": "prodigy",
    "PRODIGY_PLUS_SCHEDULE_FREE": "prodigy_plus_schedule_free",
    "SCHEDULE_FREE_ADAMW": "adamw_schedule_free",
    "SGD": "sgd",
    "ADAM": "torch.optim.Adam",
    "ADAFACTOR": "transformers.Adafactor",
    "LION_8BIT": "bitsandbytes.optim.Lion8bit",
    "ADAM_8BIT": "bitsandbytes.optim.Adam8bit",
    "RMSPROP": "bitsandbytes.optim.RMSprop",
    "RMSPROP_8BIT": "bitsandbytes.optim.RMSprop8bit",
    "SCHEDULE_FREE_SGD": "schedulefree.SGDScheduleFree",
    "DADAPT_ADAM": "dadaptation.DAdaptAdam",
    "DADAPT_ADAN": "dadaptation.DAdaptAdan",
    "DADAPT_LION": "dadaptation.DAdaptLion",
    "DADAPT_SGD": "dadaptation.DAdaptSGD",
    "DADAPT_ADA_GRAD": "dadaptation.DAdaptAdaGrad",
}
OWN: dict[str, dict[str, Any]] = {  # options of OneTrainer's optimizer, by its entry here, with values that change nothing
    "adamw": {"amsgrad": False, "maximize": False},
    "adamw8bit": {"is_paged": False, "percentile_clipping": 100, "block_wise": True, "optim_bits": 32, "amsgrad": False},
    "prodigy": {"decouple": True, "slice_p": 1, "beta3": None, "fsdp_in_use": False},
    "lion": {"use_triton": False},
    "sgd": {"maximize": False},
    "prodigy_plus_schedule_free": {
        "beta3": None, "weight_decay_by_lr": True, "use_bias_correction": False, "use_speed": False, "split_groups_mean": True,
        "factored_fp32": True, "use_cautious": False, "use_grams": False, "use_adopt": False, "d_limiter": True, "use_schedulefree": True,
        "use_orthograd": False,
    },
}  # fmt: skip
SILENT = ("optimizer", "foreach", "fused", "capturable", "differentiable", "fused_back_pass", "stochastic_rounding", "compile", "log_every")
DEFAULTS = {"sgd": {"momentum": 0.0}, "adamw_schedule_free": {"weight_decay": 0.01}}  # where OneTrainer's are others than ours
BETAS = {"adamw": (0.9, 0.999), "lion": (0.9, 0.99), "prodigy_plus_schedule_free": (0.9, 0.99)}  # where a file has one of the two
SCHEDULES = {"CONSTANT": "constant", "LINEAR": "linear", "COSINE": "cosine", "COSINE_WITH_HARD_RESTARTS": "cosine", "REX": "rex"}
FREE = ("SCHEDULE_FREE_ADAMW", "SCHEDULE_FREE_SGD", "PRODIGY_PLUS_SCHEDULE_FREE")
SCALED = {"NONE": (), "BATCH": ("batch_size",), "GRADIENT_ACCUMULATION": ("gradient_accumulation_steps",),
          "BOTH": ("batch_size", "gradient_accumulation_steps")}  # fmt: skip
REX_SHARE = 0.9  # OneTrainer's d


def convert_optimizer(values: Values, to: Converted) -> None:
    """Optimizer, rates and schedule."""
    values.read.add("optimizer")
    given: dict[str, Any] = dict(values.given.get("optimizer") or {})
    kind = str(given.get("optimizer", "ADAMW"))
    name = NAMES.get(kind)
    if name is None:
        to.fault(f"optimizer.optimizer={kind}: there are {', '.join(NAMES)}, and the import path of a class: give optim.name.",
                 unless=("optim.name",))  # fmt: skip
    elif "optim.name" not in to.chosen:
        to.set("optim.name", name, "optimizer.optimizer")
        _options(name, given, to)
    _schedule(values, to, free=kind in FREE)


def rate_of(values: Values, rate: float, to: Converted) -> float:
    """The rate times the square root of what learning_rate_scaler names, as OneTrainer scales it."""
    scaler = str(values["learning_rate_scaler"])
    if scaler not in SCALED:
        to.fault(f"learning_rate_scaler={scaler}: there are {', '.join(SCALED)}.", unless=("optim.lr",))
        return rate
    count = 1
    for name in SCALED[scaler]:
        count *= int(values[name])
    return float(rate * count**0.5)


def _options(name: str, given: dict[str, Any], to: Converted) -> None:
    values = {**DEFAULTS.get(name, {}), **{key: value for key, value in given.items() if value is not None and key not in SILENT}}
    if name == "transformers.Adafactor" and values.get("relative_step"):
        to.fault("optimizer.relative_step of ADAFACTOR makes its own learning rate, which is not here.", unless=("optim.name",))
    betas = [values.pop(key, default) for key, default in zip(("beta1", "beta2"), BETAS.get(name, (0.9, 0.999)), strict=True)]
    if name == "transformers.Adafactor":
        if betas[0] != 0.9:
            values["beta1"] = betas[0]
        values["eps"] = [float(values.pop("eps", 1e-30)), float(values.pop("eps2", 1e-3))]
    elif given.get("beta1") is not None or given.get("beta2") is not None:
        to.set("optim.betas", betas, "optimizer.beta1 and beta2")
    if "weight_decay" in values:
        to.set("optim.weight_decay", float(values.pop("weight_decay")), "optimizer.weight_decay")
    if name in OPTIMIZERS:
        _entry(name, values, to)
    elif values:
        to.set("optim.args", values, "optimizer")


def _entry(name: str, values: dict[str, Any], to: Converted) -> None:
    for option, value in values.items():
        if option == "growth_rate" and str(value) in ("inf", "Infinity"):
            continue
        if option in OPTIMIZERS[name].options:
            if value != OPTIMIZERS[name].options[option].default:
                to.set(f"optim.params.{option}", value, f"optimizer.{option}")
        elif OWN.get(name, {}).get(option, ...) != value and value is not False:
            to.fault(f"optimizer.{option}={value}: {name} has no such option here.", unless=("optim.name", f"optim.params.{option}"))


def _schedule(values: Values, to: Converted, *, free: bool) -> None:
    name, least, cycles = str(values["learning_rate_scheduler"]), float(values["learning_rate_min_factor"]), values["learning_rate_cycles"]
    if free:
        to.set("schedule.name", "constant", "optimizer.optimizer")
        to.set("schedule.warmup", 0.0, "optimizer.optimizer")
        if values.gives("learning_rate_warmup_steps"):
            to.ignored["learning_rate_warmup_steps"] = "the optimizer takes the schedule's place"
        return
    if name == "CUSTOM":
        to.set("schedule.name", str(values["custom_learning_rate_scheduler"]), "custom_learning_rate_scheduler")
        _arguments(values, to)
    elif name not in SCHEDULES:
        more = {
            "COSINE_WITH_RESTARTS": " It goes up and down along whole cosines and does not restart; COSINE_WITH_HARD_RESTARTS does.",
            "ADAFACTOR": " It goes with relative_step, which is not here.",
        }.get(name, "")
        to.fault(f"learning_rate_scheduler={name}: there are {', '.join(SCHEDULES)}, CUSTOM.{more} Give schedule.name.",
                 unless=("schedule.name",))  # fmt: skip
    else:
        to.set("schedule.name", SCHEDULES[name], "learning_rate_scheduler")
        if name == "COSINE_WITH_HARD_RESTARTS":
            if float(cycles) != int(cycles):
                to.fault(f"learning_rate_cycles={cycles}: a whole number of them is made here.", unless=("schedule.params.cycles",))
            to.set("schedule.params.cycles", max(1, int(cycles)), "learning_rate_cycles")
        if name == "REX":
            to.set("schedule.params.late", REX_SHARE, "learning_rate_scheduler")
        if least and name != "CONSTANT":
            to.set("schedule.params.min_factor", least, "learning_rate_min_factor")
    _warmup(values, to)


def _arguments(values: Values, to: Converted) -> None:
    found: dict[str, Any] = {}
    for row in values["scheduler_params"]:
        key, text = (row.get("key"), str(row.get("value"))) if isinstance(row, dict) else (None, "")
        if not key or "%" in text:
            to.fault(f"scheduler_params {row}: values such as %TOTAL_STEPS% are not filled in.", unless=("schedule.args",))
            continue
        try:
            found[str(key)] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            found[str(key)] = text
    to.set("schedule.args", found or None, "scheduler_params")


def _warmup(values: Values, to: Converted) -> None:
    """Above 1 a count of batches, else a share of the steps; OneTrainer leaves fractions out."""
    warm, accumulate = float(values["learning_rate_warmup_steps"]), int(values["gradient_accumulation_steps"])
    if {"schedule.warmup", "schedule.warmup_steps"} & set(to.chosen):
        return
    if warm <= 0:
        to.set("schedule.warmup", 0.0, "learning_rate_warmup_steps")
    elif warm > 1:
        to.set("schedule.warmup_steps", int(warm / accumulate), "learning_rate_warmup_steps")
        if accumulate > 1:
            to.notes.append("learning_rate_warmup_steps counts batches in OneTrainer: it is divided by gradient_accumulation_steps")
    else:
        to.sources["schedule.warmup_steps"] = "learning_rate_warmup_steps"
        to.later.append(lambda steps, _epochs: {"schedule.warmup_steps": _share(warm, steps)})


def _share(warm: float, steps: int) -> int:
    if int(warm * steps) >= steps:
        raise Refused(
            f"learning_rate_warmup_steps={warm:g}: below 1 it is a share of the {counted(steps, 'step')}, and nothing is left. Give less."
        )
    return int(warm * steps)
