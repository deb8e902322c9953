"""The arguments of the adapter, its optimizer and the learning rate's schedule."""

from loraloom.kohya.arguments import Values
from loraloom.kohya.converted import Converted, pairs
from loraloom.kohya.optimizer import convert_optimizer
from loraloom.kohya.schedule import convert_schedule

MODULES = {  # network_module -> lora.targets with the same layers
    "networks.lora": "attention_mlp",
    "networks.lora_flux": "modulation",
}
DIM = 4  # of sd-scripts where network_dim is not given


def convert_adapter(values: Values, to: Converted) -> None:
    """Rank, alpha, layers, text encoders and their rates, optimizer, schedule."""
    _network(values, to)
    _rates(values, to)
    convert_schedule(values, to, free=convert_optimizer(values, to))


def _network(values: Values, to: Converted) -> None:
    module, rank, alpha = values["network_module"], values["network_dim"] or DIM, values["network_alpha"]
    to.set("lora.rank", rank, "network_dim")
    to.set("lora.alpha", float(alpha or rank), "network_alpha")
    if module not in MODULES:
        to.fault(f"network_module={module}: {' and '.join(MODULES)} are read.", unless=("lora.targets", "lora.kind"))
        return
    targets, given = MODULES[module], pairs("network_args", values["network_args"], to)
    dim, conv_alpha = given.pop("conv_dim", None), given.pop("conv_alpha", 1.0)
    if dim is not None and module == "networks.lora":
        targets = "convolutions"
        if (float(dim), float(conv_alpha)) != (float(rank), float(alpha or rank)):
            to.fault(
                f"network_args conv_dim={dim}, conv_alpha={conv_alpha}: convolutions have the rank and alpha of the other layers"
                f" ({rank:g}, {alpha:g}).",
                unless=("lora.targets",),
            )
    to.set("lora.targets", targets, "network_module")
    for name, value in given.items():
        to.fault(f"network_args {name}={value}: there is no such setting here. Leave it out.")


def _rates(values: Values, to: Converted) -> None:
    rate, own = values["learning_rate"], values["unet_lr"]
    to.set("optim.lr", rate if own is None else own, "learning_rate" if own is None else "unet_lr")
    if own == 0:
        to.fault("unet_lr=0: the denoiser always learns.", unless=("optim.lr",))
    text = values["text_encoder_lr"]
    several = text if isinstance(text, list) else [rate if text is None else text]
    if len(set(several)) > 1:
        to.fault(f"text_encoder_lr={several}: the text encoders have one rate, optim.text_lr.", unless=("optim.text_lr",))
    if values["network_train_unet_only"] or values["cache_text_encoder_outputs"] or several[0] == 0:
        to.set("lora.text_encoder", False, "network_train_unet_only")
        return
    if "lora.text_encoder" in to.chosen:
        return
    to.set("lora.text_encoder", True, "network_train_unet_only=false")
    to.set("optim.text_lr", several[0], "learning_rate" if text is None else "text_encoder_lr")
    to.notes.append("text encoders: their attention is trained; sd-scripts trains their MLP layers too")
