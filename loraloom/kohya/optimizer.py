"""The arguments of the optimizer: its name, or its class where an option is not of the entry here."""

from collections.abc import Mapping
from typing import Any

from loraloom.kohya.arguments import Values
from loraloom.kohya.converted import Converted, pairs
from train.optim import OPTIMIZERS

NAMES = {  # optimizer_type in lower case -> optim.name
    "": "adamw",
    "adamw": "adamw",
    "adamw8bit": "adamw8bit",
    "lion": "lion",
    "prodigy": "prodigy",
    "sgdnesterov": "sgd",
    "adamwschedulefree": "adamw_schedule_free",
}
CLASSES = {  # optimizer_type in lower case -> the class that sd-scripts makes
    "": "torch.optim.AdamW",
    "adamw": "torch.optim.AdamW",
    "adamw8bit": "bitsandbytes.optim.AdamW8bit",
    "pagedadamw": "bitsandbytes.optim.PagedAdamW",
    "pagedadamw8bit": "bitsandbytes.optim.PagedAdamW8bit",
    "pagedadamw32bit": "bitsandbytes.optim.PagedAdamW32bit",
    "lion": "lion_pytorch.Lion",
    "lion8bit": "bitsandbytes.optim.Lion8bit",
    "pagedlion8bit": "bitsandbytes.optim.PagedLion8bit",
    "sgdnesterov": "torch.optim.SGD",
    "sgdnesterov8bit": "bitsandbytes.optim.SGD8bit",
    "dadaptation": "dadaptation.experimental.DAdaptAdamPreprint",
    "dadaptadampreprint": "dadaptation.experimental.DAdaptAdamPreprint",
    "dadaptadagrad": "dadaptation.DAdaptAdaGrad",
    "dadaptadam": "dadaptation.DAdaptAdam",
    "dadaptadan": "dadaptation.DAdaptAdan",
    "dadaptadanip": "dadaptation.experimental.DAdaptAdanIP",
    "dadaptlion": "dadaptation.DAdaptLion",
    "dadaptsgd": "dadaptation.DAdaptSGD",
    "prodigy": "prodigyopt.Prodigy",
    "adafactor": "transformers.Adafactor",
    "adamwschedulefree": "schedulefree.AdamWScheduleFree",
    "radamschedulefree": "schedulefree.RAdamScheduleFree",
    "sgdschedulefree": "schedulefree.SGDScheduleFree",
}
TORCH = ("Adadelta", "Adagrad", "Adam", "Adamax", "ASGD", "NAdam", "RAdam", "RMSprop", "Rprop", "SGD")  # as they are written in torch.optim
OWN = {"prodigy": {"decouple": True}}  # options of a class that are what ours does anyway
BESIDE = ("weight_decay", "betas")  # settings of optim itself
NESTEROV = {"nesterov": True, "momentum": 0.9}  # what sd-scripts gives SGD


def convert_optimizer(values: Values, to: Converted) -> bool:
    """Whether it takes the schedule's place."""
    kind, source = str(values["optimizer_type"]), "optimizer_type"
    for switch, meant in (("use_8bit_adam", "AdamW8bit"), ("use_lion_optimizer", "Lion")):
        if values[switch]:
            if kind:
                to.fault(f"{switch} with optimizer_type={kind}: sd-scripts refuses both together. Leave one out.")
            kind, source = meant, switch
    options, word = pairs("optimizer_args", values["optimizer_args"], to), kind.lower()
    if word == "adafactor":
        _adafactor(options, to)
    if word.startswith("sgdnesterov"):
        options = NESTEROV | options
    name, path = NAMES.get(word), kind if "." in kind else f"torch.optim.{kind}" if kind in TORCH else CLASSES.get(word)
    if path is None:
        known = ", ".join(dict.fromkeys(found.rpartition(".")[2] for found in CLASSES.values()))
        to.fault(
            f"{source}={kind}: of sd-scripts' there are {known}, those of torch.optim, and the import path of a class. Give optim.name.",
            unless=("optim.name",),
        )
        return False
    if name in OPTIMIZERS and all(_is_option(str(name), option, value) for option, value in options.items()):
        _entry(str(name), options, to, source)
    else:
        to.set("optim.name", path, source)
        _settings({option: value for option, value in options.items() if option in BESIDE}, to)
        if rest := {option: value for option, value in options.items() if option not in BESIDE}:
            to.set("optim.args", rest, "optimizer_args")
    if word.startswith("dadapt") or word == "prodigy":
        _one_rate(values, to, kind)
    return word.endswith("schedulefree")


def _is_option(name: str, option: str, value: Any) -> bool:
    return option in BESIDE or option in OPTIMIZERS[name].options or OWN.get(name, {}).get(option, ...) == value


def _entry(name: str, options: Mapping[str, Any], to: Converted, source: str) -> None:
    to.set("optim.name", name, source)
    _settings(options, to)
    for option, value in options.items():
        if option not in BESIDE and option in OPTIMIZERS[name].options and value != OPTIMIZERS[name].options[option].default:
            to.set(f"optim.params.{option}", value, source if option == "nesterov" else "optimizer_args")


def _settings(options: Mapping[str, Any], to: Converted) -> None:
    for option in BESIDE:
        if option in options:
            to.set(f"optim.{option}", list(options[option]) if option == "betas" else options[option], "optimizer_args")


def _adafactor(options: dict[str, Any], to: Converted) -> None:
    """sd-scripts' default sets its own rate, by a schedule of the class's own."""
    if options.get("relative_step", True) or options.get("warmup_init"):
        to.fault(
            "optimizer_type=Adafactor with relative_step (its default there) makes its own learning rate, which is not here. Write"
            ' optimizer_args = ["relative_step=False", "scale_parameter=False", "warmup_init=False"] and a learning_rate, or give'
            " optim.name.",
            unless=("optim.name",),
        )
    elif options.get("scale_parameter", True):
        to.notes.append("Adafactor's scale_parameter scales updates by a weight's size: B of a LoRA, 0 at first, hardly learns")


def _one_rate(values: Values, to: Converted, kind: str) -> None:
    text, own = values["text_encoder_lr"], values["unet_lr"]
    several = {rate for rate in (own, *(text if isinstance(text, list) else [text])) if rate}
    if len(several) > 1:
        to.notes.append(f"{kind} with several rates: sd-scripts warns that only the first acts; here each is a factor on the estimate")
