"""The arguments of the adapter, its optimizer and the learning rate's schedule."""

from loraloom.kohya.arguments import Values
from loraloom.kohya.converted import Converted
from loraloom.kohya.network import convert_network, without_text
from loraloom.kohya.optimizer import convert_optimizer
from loraloom.kohya.schedule import convert_schedule
from loraloom.kohya.tokens import convert_tokens, trains_tokens


def convert_adapter(values: Values, to: Converted) -> None:
    """Text encoders and the rates, rank, alpha and layers, optimizer, schedule."""
    if trains_tokens(values):
        convert_tokens(values, to)
    else:
        _rates(values, to)
        convert_network(values, to)
    convert_schedule(values, to, free=convert_optimizer(values, to))


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
