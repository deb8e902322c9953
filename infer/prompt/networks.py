"""`<lora:NAME:WEIGHT>` in a prompt, as A1111 and its followers read it: the adapters, and the text without them.

<lora:NAME>, <lora:NAME:TE>, <lora:NAME:TE:UNET>, <lora:NAME:te=0.5:unet=1>; a missing UNET is TE, a missing TE is 1. Block weights as
sd-webui-lora-block-weight takes them: <lora:NAME:1:lbw=1,0,0,...>.
(AUTOMATIC1111/stable-diffusion-webui 1.10, modules/extra_networks.py, extensions-builtin/Lora; hako-mikan/sd-webui-lora-block-weight.)
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from registry.errors import Refused
from registry.merging.adapter_blocks import read_block_weights

_TAG = re.compile(r"<(\w+):([^<>]+)>")
# Forge acts where the 0-based step is N, A1111 where it is N - 1, newer ones read 0.4 as a share (scripts/lora_block_weight.py at 04b986c2)
OF_STEPS = ("start", "stop", "step")
KINDS = ("lora", "lyco", "lycoris", "locon")  # A1111 and its LyCORIS extension


@dataclass(frozen=True)
class Network:
    """An adapter that a prompt names, with its weights on the text encoders and on the denoiser, and by block where it has such."""

    name: str
    text_weight: float
    weight: float
    blocks: str | None = None


def networks(text: str) -> tuple[str, list[Network]]:
    """(the prompt without its tags, the adapters they name). Raises Refused for a tag that cannot be read."""
    found = [_network(match[1].lower(), match[2], match[0]) for match in _TAG.finditer(text)]
    return (_TAG.sub("", text) if found else text), found


def _network(kind: str, inner: str, tag: str) -> Network:
    if kind not in KINDS:
        raise Refused(f"{tag} names a {kind}, which is not drawn with here. Expected {', '.join(f'<{one}:...>' for one in KINDS)}.")
    name, *rest = inner.split(":")
    named = dict(part.split("=", 1) for part in rest if "=" in part)
    plain = [part for part in rest if "=" not in part]
    if of_steps := [part for part in rest if part.partition("=")[0] in OF_STEPS and "=" in part]:
        raise Refused(
            f"{tag} has {', '.join(of_steps)}, which is not read here: LoRA Block Weight counts these steps otherwise in A1111 than in "
            f"Forge. Give the LoRA by adapters={{adapter: {name.strip()}, weight: 0.8, start: 0, end: 0.5}}, in shares of the steps."
        )
    if unknown := set(named) - {"te", "unet", "lbw"}:
        raise Refused(f"{tag} has {', '.join(sorted(unknown))}, which is not read here. Expected te, unet and lbw.")
    if len(plain) > 2 or not name.strip():
        raise Refused(f"{tag} cannot be read. Expected <lora:NAME:WEIGHT> or <lora:NAME:TE:UNET>.")
    text_weight = _weight(named.get("te", plain[0] if plain else "1"), tag)
    weight = _weight(named.get("unet", plain[1] if len(plain) > 1 else str(text_weight)), tag)
    try:
        blocks = read_block_weights(named.get("lbw"))
    except Refused as error:
        raise Refused(f"{tag}: {error}") from None
    return Network(name.strip(), text_weight, weight, blocks)


def _weight(text: str, tag: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not abs(value) < 1e4:
        raise Refused(f"{tag} has the weight {text!r}. Expected a number such as 0.8.")
    return value
