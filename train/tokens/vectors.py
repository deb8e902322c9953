"""The vectors that are trained for new tokens, in the text encoders' tables while a run lasts."""

# N vectors of all tokens, D width of an encoder

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from registry.architectures.text.textual_inversion import read_pooled_at_end
from registry.parts import Parts
from train.loop.rng import seed_of
from train.settings.tokens import TokensConfig, vector_steps
from train.tokens.new_token import NewToken

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter

PULL = 0.1  # exponent by which a vector that is too long is pulled back in a step, as in diffusers' advanced scripts


@dataclass(frozen=True, kw_only=True)
class Vectors:
    """The vectors of a run's new tokens, one parameter a text encoder: the rows of all tokens one after another."""

    tokens: Sequence[NewToken]
    rows: Mapping[str, Parameter]  # text encoder -> (N, D), fp32
    first: Mapping[str, Tensor]  # the same before training, on the CPU
    longest: Mapping[str, Tensor]  # text encoder -> (N, 1): norms that are not pulled back
    encoders: Mapping[str, Any]
    steps: int  # in which they are trained
    keep_norm: bool

    def weights(self) -> list[tuple[str, Parameter]]:
        """`tokens.<text encoder>` and the vectors."""
        return [(f"tokens.{component}", rows) for component, rows in self.rows.items()]

    def begin(self, device: Any) -> None:
        """Everything else of the encoders fixed, the vectors on the device and ready to learn."""
        for component, encoder in self.encoders.items():
            encoder.to(device)
            self.rows[component].requires_grad_(True)

    def leave_gradients(self, step: int) -> None:
        """Drop the gradients of a step (from 0) in which the vectors are kept: no optimizer moves a weight without one."""
        if step >= self.steps:
            for rows in self.rows.values():
                rows.grad = None

    def limit_norms(self, step: int) -> None:
        """Pull what grew too long in this step back: norm * (longest / norm)^0.1."""
        import torch

        if not self.keep_norm or step >= self.steps:
            return
        with torch.no_grad():
            for component, rows in self.rows.items():
                norms = rows.norm(dim=1, keepdim=True)
                longest = self.longest[component].to(rows.device)
                rows.mul_(torch.where(norms > longest, (longest / norms.clamp(min=1e-12)) ** PULL, torch.ones_like(norms)))

    def of_token(self, token: NewToken) -> dict[str, Tensor]:
        """Text encoder -> the token's vectors (n, D), fp32 on the CPU."""
        before = sum(other.vectors for other in self.tokens[: list(self.tokens).index(token)])
        return {name: rows.detach()[before : before + token.vectors].float().cpu().clone() for name, rows in self.rows.items()}

    def put(self, vectors: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Put vectors in place, by token and text encoder."""
        import torch

        with torch.no_grad():
            for component, rows in self.rows.items():
                rows.copy_(torch.cat([vectors[token.token][component] for token in self.tokens]))

    @property
    def moved(self) -> bool:
        """Whether any vector is another than it began."""
        return any(not rows.detach().cpu().equal(self.first[component]) for component, rows in self.rows.items())


def add_vectors(tokens: Sequence[NewToken], parts: Parts, config: TokensConfig, *, seed: int, steps: int) -> Vectors | None:
    """The first vectors behind the tables of the text encoders, whose tokenizers have the tokens already. None: there are no tokens."""
    import torch

    from train.tokens.table import LongerTable

    if not tokens:
        return None
    encoders: dict[str, Any] = {component: parts.text_encoders[component] for component in tokens[0].keys}
    rows, first, longest = {}, {}, {}
    for component, encoder in encoders.items():
        encoder.requires_grad_(False)
        own: Any = encoder.get_input_embeddings()
        made = torch.cat([_first(token, component, own.weight, seed) for token in tokens])
        usual = own.weight.detach().float().norm(dim=1).mean()
        longest[component] = torch.maximum(made.norm(dim=1, keepdim=True), usual)
        rows[component] = torch.nn.Parameter(made)
        first[component] = made.detach().clone()
        encoder.set_input_embeddings(LongerTable(own, rows[component]))
    read_pooled_at_end(parts, encoders)
    return Vectors(
        tokens=tuple(tokens),
        rows=rows,
        first=first,
        longest=longest,
        encoders=encoders,
        steps=vector_steps(config, steps),
        keep_norm=config.keep_norm,
    )


def _first(token: NewToken, component: str, table: Tensor, seed: int) -> Tensor:
    """The vectors (n, D) that a token begins with: those of its text in a circle, or random ones as large as the table's."""
    import torch

    ids = token.ids[component]
    if ids:
        return table.detach()[[ids[place % len(ids)] for place in range(token.vectors)]].float().clone()
    if table.is_meta:
        return torch.empty(token.vectors, table.shape[1], device="meta")
    generator = torch.Generator().manual_seed(seed_of("token", seed, token.token, component))
    return torch.randn(token.vectors, table.shape[1], generator=generator) * table.detach().float().std().cpu()
