"""The arguments of the adapter: network_module and network_args, of sd-scripts' own modules and of LyCORIS's (lycoris/kohya.py, 4.1)."""

from typing import Any

from loraloom.kohya.arguments import Values
from loraloom.kohya.converted import Converted, pairs

LYCORIS = "lycoris.kohya"
MODULES = {  # network_module -> lora.targets with the same layers
    "networks.lora": "attention_mlp",
    "networks.lora_flux": "modulation",
    LYCORIS: "convolutions",
}
NOT_TRAINED = {  # network_module -> what is here in its place
    "networks.dylora": "DyLoRA trains several ranks in one; train a LoRA of the largest, and make the others with loraloom lora resize",
    "networks.lora_fa": "LoRA-FA keeps the down matrix as it was drawn; lora.kind=lora trains both",
    "networks.oft": "sd-scripts' own OFT is not trained; lora.kind=oft is LyCORIS's diag-oft, which more tools read",
    "networks.oft_flux": "sd-scripts' own OFT is not trained; lora.kind=oft is LyCORIS's diag-oft, which more tools read",
}
DIM = 4  # of sd-scripts where network_dim is not given
CONVOLUTIONS = ("conv1", "conv2", "conv")  # the 3 x 3 ones of a UNet, which alone have a rank of their own
ALGORITHMS = {"lora": "lora", "locon": "lora", "loha": "loha", "lokr": "lokr", "diag-oft": "oft"}
PRESETS = {  # LyCORIS's preset -> lora.targets, whether the text encoders are trained
    "full": ("convolutions", True),
    "full-lin": ("attention_mlp", True),
    "attn-mlp": ("attention_mlp", True),
    "attn-only": ("attention", True),
    "unet-transformer-only": ("attention_mlp", False),
}
WITHOUT_EFFECT = {  # arguments of LyCORIS at the value that is what ours does anyway
    "dropout": 0,
    "rank_dropout": 0,
    "module_dropout": 0,
    "use_tucker": False,
    "use_cp": False,
    "use_conv_cp": False,
    "disable_conv_cp": True,
    "use_scalar": False,
    "train_norm": False,
    "rescaled": False,
    "constraint": 0,
    "bypass_mode": False,
    "unbalanced_factorization": False,
    "train_t5xxl": False,
}


def convert_network(values: Values, to: Converted) -> None:
    """Kind, rank, alpha, layers, LoRA+, and the adapter to continue from."""
    module, rank, alpha = values["network_module"], values["network_dim"] or DIM, values["network_alpha"]
    to.set("lora.rank", rank, "network_dim")
    to.set("lora.alpha", float(alpha or rank), "network_alpha")
    _start(values, to)
    if module not in MODULES:
        why = NOT_TRAINED.get(str(module), f"{', '.join(MODULES)} are read")
        what = "network_module is missing" if module is None else f"network_module={module}"
        to.fault(f"{what}: {why}.", unless=("lora.targets", "lora.kind"))
        if values.gives("network_args"):
            to.fault(f"network_args={values['network_args']}: those of {module} are not read. Leave them out.")
        return
    given = pairs("network_args", values["network_args"], to)
    to.set("lora.targets", MODULES[module], "network_module")
    _loraplus(given, values, to)
    if module == LYCORIS:
        _lycoris(given, to)
        dim, conv_alpha = given.pop("conv_dim", None) or rank, given.pop("conv_alpha", None) or alpha or rank
        if to.settings.get("lora.targets") == "convolutions":
            _convolutions(float(dim), float(conv_alpha), (rank, alpha), to)
    elif module == "networks.lora" and (dim := given.pop("conv_dim", None)) is not None:
        to.set("lora.targets", "convolutions", "network_args conv_dim")
        _convolutions(float(dim), float(given.pop("conv_alpha", 1.0)), (rank, alpha), to)
    for name, value in given.items():
        to.fault(f"network_args {name}={value}: there is no such setting here. Leave it out.")


def without_text(values: Values) -> bool:
    """Whether LyCORIS's preset leaves the text encoders as they are."""
    given = pairs("network_args", values["network_args"], Converted())
    _, text = PRESETS.get(str(given.get("preset", "full")), ("", True))
    return values["network_module"] == LYCORIS and not text


def _start(values: Values, to: Converted) -> None:
    """network_weights, which sd-scripts continues at network_dim, or at the file's own rank."""
    if (start := values["network_weights"]) is not None:
        to.set("lora.start", start, "network_weights")
        if values["dim_from_weights"]:
            to.fault(
                f"dim_from_weights: give the rank of {start} as lora.rank, and lora.alpha; loraloom lora inspect shows them.",
                unless=("lora.rank",),
            )
    elif values["dim_from_weights"]:
        to.fault("dim_from_weights: no network_weights are given. Leave it out.", unless=("lora.rank", "lora.start"))


def _convolutions(dim: float, alpha: float, others: tuple[float, float | None], to: Converted) -> None:
    """The rank and the alpha of 3 x 3 convolutions where these are not those of the other layers."""
    rank, common = others
    if dim != rank:
        to.set("lora.ranks", dict.fromkeys(CONVOLUTIONS, int(dim)), "network_args conv_dim")
    if alpha != float(common or rank):
        to.set("lora.alphas", dict.fromkeys(CONVOLUTIONS, alpha), "network_args conv_alpha")


def _loraplus(given: dict[str, Any], values: Values, to: Converted) -> None:
    """loraplus_lr_ratio, and those of the UNet and of the text encoders in its place: one ratio here."""
    common, unet, text = (given.pop(f"loraplus_{part}lr_ratio", None) for part in ("", "unet_", "text_encoder_"))
    unet, text = (common if one is None else one for one in (unet, text))
    if unet is None and text is None:
        return
    alone = values["network_train_unet_only"] or to.settings.get("lora.text_encoder") is False
    if not alone and unet != text:
        to.fault(
            f"network_args loraplus: {unet} for the UNet and {text} for the text encoders; optim.loraplus_lr_ratio is one for both.",
            unless=("optim.loraplus_lr_ratio", "lora.text_encoder"),
        )
    elif unet is not None:
        to.set("optim.loraplus_lr_ratio", float(unet), "network_args loraplus_lr_ratio")


def _lycoris(given: dict[str, Any], to: Converted) -> None:
    """The kind and its options by LyCORIS's arguments."""
    algorithm = str(given.pop("algo", "lora") or "lora").lower()
    kind = ALGORITHMS.get(algorithm)
    if kind is None:
        to.fault(f"network_args algo={algorithm}: of LyCORIS's there are {', '.join(ALGORITHMS)} here.", unless=("lora.kind",))
        kind = "lora"
    preset = str(given.pop("preset", "full"))
    targets, _ = PRESETS.get(preset, ("convolutions", True))
    if preset not in PRESETS:
        to.fault(f"network_args preset={preset}: there are {', '.join(PRESETS)}. Give lora.targets.", unless=("lora.targets",))
    to.set("lora.targets", targets, "network_args preset")
    if preset == "full":
        to.notes.append("preset=full: LyCORIS trains the first and the last convolution and the time embedding too; here they are left out")
    _decomposed(kind, given, to)
    if kind == "lokr":
        _lokr(given, to)
    if kind == "oft" and "lora.alpha" in to.settings:
        del to.settings["lora.alpha"]  # its alpha is the constraint, an argument of its own
    for name, value in WITHOUT_EFFECT.items():
        if name in given and _plain(given[name]) == value:
            del given[name]


def _decomposed(kind: str, given: dict[str, Any], to: Converted) -> None:
    """dora_wd and rs_lora of a LoRA; the other kinds have neither here."""
    dora, on_output, stabilised = (_plain(given.pop(name, False)) for name in ("dora_wd", "wd_on_output", "rs_lora"))
    for name, value in (("dora_wd", dora), ("rs_lora", stabilised)):
        if value and kind != "lora":
            to.fault(f"network_args {name}=true of {kind}: a LoRA alone has it here.", unless=("lora.kind",))
    if kind == "lora":
        if dora and not on_output:
            to.fault(
                "network_args dora_wd=true: LyCORIS decomposes by columns unless wd_on_output=true, and lora.kind=dora by rows, as peft"
                " does. Write wd_on_output=true.",
                unless=("lora.kind",),
            )
        kind = "dora" if dora else "lora"
        if stabilised:
            to.set("lora.params.rank_stabilised", True, "network_args rs_lora")
    to.set("lora.kind", kind, "network_args algo")


def _lokr(given: dict[str, Any], to: Converted) -> None:
    factor = given.pop("factor", -1)
    if int(factor) > 0:
        to.set("lora.params.factor", int(factor), "network_args factor")
    for name in ("decompose_both", "full_matrix"):
        if _plain(given.pop(name, False)):
            to.set(f"lora.params.{name}", True, f"network_args {name}")
    if to.settings.get("lora.params.full_matrix") and "lora.alpha" in to.settings:
        del to.settings["lora.alpha"]  # without factors there is no scale


def _plain(value: Any) -> Any:
    """True, "True" and 0 as LyCORIS reads its arguments: texts."""
    text = str(value).strip().lower()
    if text in ("true", "false", "none", ""):
        return text == "true"
    try:
        number = float(text)
    except ValueError:
        return value
    return number
