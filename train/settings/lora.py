"""Settings of the adapter."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any, TypeAlias

from registry.settings import params_schema, setting, word
from train.adapters.kinds import KINDS
from train.settings.rules import Rule, counts, mappings, texts

if TYPE_CHECKING:  # built from the table; no type checker can see its fields
    LoraParams: TypeAlias = Any
else:
    LoraParams = params_schema("LoraParams", [KINDS], module=__name__)

PRODUCTS = ("auto", "plain")


@dataclass(kw_only=True)
class LoraConfig:
    kind: str = word("lora", f"kind of adapter: {', '.join(KINDS)}", among=KINDS)
    rank: int = setting(16, "LoRA rank (dim)")
    alpha: float | None = setting(None, "LoRA alpha: the product is scaled by alpha / rank (default: rank)")
    start: str | None = setting(
        None, "adapter to continue from, a plain LoRA of any rank: a registered name, a path or a sha256: prefix (also: lora.from)"
    )
    ranks: Any = setting(None, "ranks of layers by pattern, the first that matches the end of a name counts: {attn1: 4, 'conv[12]': 8}")
    alphas: Any = setting(None, "alphas of layers by pattern, in the same way (default: lora.alpha, else the layer's rank)")
    targets: Any = setting(
        "attention",
        "a preset (attention, attention_mlp, convolutions), a list of module names, or a regular expression in slashes: /.*attn2.*/",
    )
    text_encoder: bool = setting(
        False, "train the attention of the CLIP text encoders too: they stay in memory and encode the prompts in every step"
    )
    product: str = word(
        "auto",
        "how a layer computes W x + s B A x with lora.kind=lora: auto (fewer operations, chosen for each layer by its sizes) or plain"
        " (peft's own, for comparisons): the same mathematics, other rounding",
        among=PRODUCTS,
    )
    params: LoraParams = setting(LoraParams, "options of the kind")

    def rules(self) -> Iterator[Rule]:
        """Ranges, without what needs the base."""
        yield from counts(self, "rank")
        yield from texts(self, "start")
        plain = self.kind == "lora" and self.params.init != "pissa"
        must = (
            "must be false with lora.kind=dora: the loaders of diffusers and transformers leave out the magnitudes of a text encoder's"
            " DoRA. Give lora.kind=lora, or leave lora.text_encoder out"
        )
        yield "text_encoder", self.text_encoder, not (self.text_encoder and self.kind == "dora"), must
        yield "start", self.start, self.start is None or plain, "needs lora.kind=lora that begins at zero: only a LoRA is continued"
        yield "product", self.product, self.product in PRODUCTS, f"must be {' or '.join(PRODUCTS)}"
        fewer = self.product == "auto" or plain
        yield "product", self.product, fewer, "needs lora.kind=lora that begins at zero: the layers of other adapters have one product"
        alpha, targets = self.alpha, self.targets
        good = alpha is None or (isfinite(alpha) and alpha > 0)
        yield "alpha", alpha, good, "must be above 0 (0 learns nothing), or null for the rank"
        yield from mappings(self, "ranks", "alphas")
        yield from _patterns(self)
        good = (isinstance(targets, str) and bool(targets)) or (
            isinstance(targets, (list, tuple)) and len(targets) > 0 and all(isinstance(t, str) and t for t in targets)
        )
        yield "targets", targets, good, "must be a preset, a list of module names, or a /regular expression/"


def _patterns(lora: LoraConfig) -> Iterator[Rule]:
    """The values of patterns, and the patterns themselves."""
    for name, whole in (("ranks", True), ("alphas", False)):
        given = getattr(lora, name)
        for pattern, value in given.items() if isinstance(given, Mapping) else ():
            number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
            good = number and isfinite(value) and value > 0
            yield (
                f"{name}[{pattern}]",
                value,
                good,
                f"must be a {'whole ' if whole else ''}number {'of at least 1' if whole else 'above 0'}",
            )
            yield f"{name}: the pattern", pattern, is_pattern(pattern), "must be a regular expression"


def is_pattern(text: object) -> bool:
    """Whether it is a regular expression."""
    try:
        return isinstance(text, str) and bool(re.compile(text)) and bool(text)
    except re.error:
        return False
