"""The arguments of the adapter, its optimizer and the learning rate's schedule."""

from collections.abc import Mapping
from typing import Any

from loraloom.kohya.arguments import Values
from loraloom.kohya.converted import Converted
from loraloom.kohya.network import convert_network, pairs, without_text
from registry.errors import Refused
from train.optim import OPTIMIZERS
from train.schedule import SCHEDULES

NAMES = {  # optimizer_type in lower case -> optim.name
    "": "adamw",
    "adamw": "adamw",
    "adamw8bit": "adamw8bit",
    "lion": "lion",
    "prodigy": "prodigy",
    "sgdnesterov": "sgd",
    "adamwschedulefree": "adamw_schedule_free",
}
OWN = {"prodigy": {"decouple": True}}  # options of a class that are what ours does anyway
SCHEDULE_NAMES = {
    "constant": "constant",
    "constant_with_warmup": "constant",
    "linear": "linear",
    "cosine": "cosine",
    "cosine_with_restarts": "cosine",
    "cosine_with_min_lr": "cosine",
    "polynomial": "polynomial",
}
POLYNOMIAL_END = 1e-7  # the rate at which diffusers' polynomial schedule ends


def convert_adapter(values: Values, to: Converted) -> None:
    """Text encoders and the rates, rank, alpha and layers, optimizer, schedule."""
    _rates(values, to)
    convert_network(values, to)
    name = _optimizer(values, to)
    _schedule(values, to, free=name == "adamw_schedule_free")


def _rates(values: Values, to: Converted) -> None:
    rate, own = values["learning_rate"], values["unet_lr"]
    to.set("optim.lr", rate if own is None else own, "learning_rate" if own is None else "unet_lr")
    if own == 0:
        to.fault("unet_lr=0: the denoiser always learns.", unless=("optim.lr",))
    text = values["text_encoder_lr"]
    several = text if isinstance(text, list) else [rate if text is None else text]
    if len(set(several)) > 1:
        to.fault(f"text_encoder_lr={several}: the text encoders have one rate, optim.text_lr.", unless=("optim.text_lr",))
    if values["network_train_unet_only"] or values["cache_text_encoder_outputs"] or several[0] == 0 or without_text(values):
        to.set("lora.text_encoder", False, "network_train_unet_only")
        return
    if "lora.text_encoder" in to.chosen:
        return
    to.set("lora.text_encoder", True, "network_train_unet_only=false")
    to.set("optim.text_lr", several[0], "learning_rate" if text is None else "text_encoder_lr")
    to.notes.append("text encoders: their attention is trained; sd-scripts trains their MLP layers too")


def _optimizer(values: Values, to: Converted) -> str | None:
    kind = str(values["optimizer_type"])
    source = "optimizer_type"
    for switch, meant in (("use_8bit_adam", "AdamW8bit"), ("use_lion_optimizer", "Lion")):
        if values[switch]:
            kind, source = meant, switch
    options = pairs("optimizer_args", values["optimizer_args"], to)
    name = NAMES.get(kind.lower())
    if "." in kind:
        to.set("optim.name", kind, "optimizer_type")
        _class_options(options, to)
        return kind
    if name is None or name not in OPTIMIZERS:
        known = ", ".join(word for word, found in NAMES.items() if word and found in OPTIMIZERS)
        to.fault(
            f"{source}={kind}: of sd-scripts' there are {known} here, and the import path of a class. Give optim.name.",
            unless=("optim.name",),
        )
        return None
    to.set("optim.name", name, source)
    if kind.lower() == "sgdnesterov":
        to.set("optim.params.nesterov", True, "optimizer_type")
    for option, value in options.items():
        if option in ("weight_decay", "betas"):
            to.set(f"optim.{option}", list(value) if option == "betas" else value, "optimizer_args")
        elif option in OPTIMIZERS[name].options:
            to.set(f"optim.params.{option}", value, "optimizer_args")
        elif (option, value) not in OWN.get(name, {}).items():
            to.fault(f"optimizer_args {option}={value}: {name} has no such option here.", unless=("optim.name", f"optim.params.{option}"))
    return name


def _class_options(options: Mapping[str, Any], to: Converted) -> None:
    rest = dict(options)
    for option in ("weight_decay", "betas"):
        if option in rest:
            value = rest.pop(option)
            to.set(f"optim.{option}", list(value) if option == "betas" else value, "optimizer_args")
    if rest:
        to.set("optim.args", rest, "optimizer_args")


def _schedule(values: Values, to: Converted, *, free: bool) -> None:
    name, warm = values["lr_scheduler"], values["lr_warmup_steps"]
    path, options = values["lr_scheduler_type"], pairs("lr_scheduler_args", values["lr_scheduler_args"], to)
    if free:
        to.set("schedule.name", "constant", "optimizer_type")
        to.set("schedule.warmup", 0.0, "optimizer_type")
        return
    if path:
        to.set("schedule.name", path if "." in path else f"torch.optim.lr_scheduler.{path}", "lr_scheduler_type")
        to.set("schedule.args", options or None, "lr_scheduler_args")
    elif name in SCHEDULE_NAMES and SCHEDULE_NAMES[name] in SCHEDULES:
        to.set("schedule.name", SCHEDULE_NAMES[name], "lr_scheduler")
        _shape(name, values, to)
        if options:
            to.fault(f"lr_scheduler_args={options}: {name} takes none here.", unless=("schedule.name",))
    else:
        to.fault(f"lr_scheduler={name}: there are {', '.join(SCHEDULE_NAMES)}. Give schedule.name.", unless=("schedule.name",))
    if warm and (path or name == "constant"):
        to.fault(f"lr_warmup_steps={warm} with lr_scheduler={path or name}: sd-scripts refuses it. Write constant_with_warmup, or 0.")
    _warmup(values, to, warm)


def _shape(name: str, values: Values, to: Converted) -> None:
    cycles, least = values["lr_scheduler_num_cycles"], values["lr_scheduler_min_lr_ratio"]
    if name == "cosine_with_restarts":
        to.set("schedule.params.cycles", int(cycles), "lr_scheduler_num_cycles")
    elif name == "cosine_with_min_lr":
        to.set("schedule.params.min_factor", float(least or 0.0), "lr_scheduler_min_lr_ratio")
        if cycles != 1:
            to.fault(f"lr_scheduler_num_cycles={cycles} of cosine_with_min_lr: it falls once here.", unless=("schedule.params.cycles",))
    elif name == "polynomial":
        rate = to.settings.get("optim.lr")
        to.set("schedule.params.power", float(values["lr_scheduler_power"]), "lr_scheduler_power")
        to.set("schedule.params.min_factor", min(1.0, POLYNOMIAL_END / rate) if rate else 0.0, "lr_scheduler, which ends at 1e-7")


def _warmup(values: Values, to: Converted, warm: Any) -> None:
    """A share where it is written with a point, else a count of steps."""
    if isinstance(warm, float) or not warm:
        to.set("schedule.warmup", float(warm), "lr_warmup_steps")
        return
    if "schedule.warmup" in to.chosen:
        return
    if values["max_train_epochs"] is None and not {"steps", "epochs"} & set(to.chosen):
        steps = values["max_train_steps"]
        if warm >= steps:
            to.fault(f"lr_warmup_steps={warm}: the run has {steps:g} steps. Give fewer.", unless=("schedule.warmup",))
        else:
            to.set("schedule.warmup", warm / steps, "lr_warmup_steps")
        return
    to.sources["schedule.warmup"] = "lr_warmup_steps"
    to.later.append(lambda steps, _epochs: {"schedule.warmup": _share(warm, steps)})


def _share(warm: float, steps: int) -> float:
    if warm >= steps:
        raise Refused(f"lr_warmup_steps={warm}: the run has {steps} steps. Give schedule.warmup, a share of them.")
    return warm / steps
