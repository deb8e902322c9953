"""Settings of the optimizer."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any, TypeAlias

from registry.settings import params_schema, setting, word
from train.optim import OPTIMIZERS
from train.settings.rules import Rule, mappings

if TYPE_CHECKING:  # built from the tables; no type checker can see its fields
    OptimParams: TypeAlias = Any
else:
    OptimParams = params_schema("OptimParams", [OPTIMIZERS], module=__name__, besides=("weight_decay", "betas"))


@dataclass(kw_only=True)
class OptimConfig:
    name: str = word("adamw", f"optimizer: {', '.join(OPTIMIZERS)}, or the import path of a class: torch.optim.RMSprop", among=OPTIMIZERS)
    lr: float = setting(1e-4, "peak learning rate")
    text_lr: float | None = setting(None, "peak learning rate of the text encoders (default: optim.lr)")
    token_lr: float | None = setting(
        None,
        "peak learning rate of the vectors of tokens.add beside an adapter (default: 5e-4; optim.lr with an optimizer that estimates its"
        " rate). With lora.kind=none optim.lr is the rate of the vectors",
    )
    loraplus_lr_ratio: float | None = setting(
        None, "LoRA+ (Hayou et al. 2024): the rate of the up matrices (B) as a multiple of the others'; 16 in the paper (default: one rate)"
    )
    weight_decay: float | None = setting(None, "weight decay (default: the optimizer's own; adamw 0.01)")
    betas: list[float] | None = setting(None, "decay of the first and the second moment (default: the optimizer's own; adamw [0.9, 0.999])")
    clip: float = setting(1.0, "largest gradient norm over all LoRA weights (gradient clipping); 0 does not clip")
    params: OptimParams = setting(OptimParams, "options of the optimizer")
    args: Any = setting(None, "more arguments of a class named by its import path: {alpha: 0.95}")

    def rules(self) -> Iterator[Rule]:
        """Ranges; the table has those of the options."""
        lr, text_lr, decay, betas = self.lr, self.text_lr, self.weight_decay, self.betas
        yield "lr", lr, 0 < lr <= 1, "must be above 0 and at most 1 (1e-4 suits rank 16)"
        yield "text_lr", text_lr, text_lr is None or 0 < text_lr <= 1, "must be above 0 and at most 1, or null for optim.lr"
        token_lr = self.token_lr
        yield "token_lr", token_lr, token_lr is None or 0 < token_lr <= 1, "must be above 0 and at most 1, or null for 5e-4"
        ratio = self.loraplus_lr_ratio
        good = ratio is None or (isfinite(ratio) and 0 < ratio <= 1000)
        yield "loraplus_lr_ratio", ratio, good, "must be above 0 and at most 1000 (16 is usual), or null for one rate"
        good = decay is None or (isfinite(decay) and decay >= 0)
        yield "weight_decay", decay, good, "must be 0 or more, or null for the optimizer's own"
        yield "clip", self.clip, isfinite(self.clip) and self.clip >= 0, "must be 0 or more"
        good = betas is None or (len(betas) == 2 and all(0 <= beta < 1 for beta in betas))
        yield "betas", betas, good, "must be two numbers in [0, 1), or null for the optimizer's own"
        yield from mappings(self, "args")
