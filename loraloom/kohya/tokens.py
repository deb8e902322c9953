"""The arguments of sd-scripts' textual inversion (train_textual_inversion.py and its SDXL form): a new token, and no network."""

from loraloom.kohya.arguments import Values
from loraloom.kohya.converted import Converted

TEMPLATES = ("use_object_template", "use_style_template")


def trains_tokens(values: Values) -> bool:
    """Whether the file is one of textual inversion."""
    return values["token_string"] is not None


def convert_tokens(values: Values, to: Converted) -> None:
    """The token with its first text and its vectors, and their rate."""
    token, init, vectors = (values[name] for name in ("token_string", "init_word", "num_vectors_per_token"))
    if values["network_module"] is not None:
        to.fault(
            f"token_string={token} with network_module={values['network_module']}: sd-scripts trains a token or a network, by two scripts."
            " Leave one out, or give tokens.add for both.",
            unless=("tokens.add",),
        )
    to.set("lora.kind", "none", "token_string")
    entry = {"token": token, "vectors": int(vectors), **({} if init is None else {"init": init})}
    to.set("tokens.add", [entry], "token_string, init_word, num_vectors_per_token")
    to.set("tokens.keep_norm", False, "token_string")  # sd-scripts leaves long vectors
    to.set("optim.lr", values["learning_rate"], "learning_rate")
    if init is None:
        to.notes.append("init_word is not given: the vectors begin random, here as large as the base's")
    if values["weights"] is not None:
        to.fault(f"weights={values['weights']}: vectors begin from init_word, not from a file. Leave it out.")
    for name in TEMPLATES:
        if values[name]:
            to.fault(f"{name}: captions are trained as they are, without templates. Leave it out; data.trigger={token} adds the token.")
