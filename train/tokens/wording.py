"""What sentences call that which a run trains, and the advice that suits it: an adapter, vectors of new tokens, or both."""

from __future__ import annotations

from dataclasses import dataclass

from train.config import TrainConfig
from train.lora import kind_of
from train.settings.tokens import tokens_of


@dataclass(frozen=True, kw_only=True)
class Trained:
    """`title` is that of the adapter, None where tokens alone are trained; `lr` is the rate of the vectors then."""

    title: str | None = "LoRA"
    tokens: tuple[str, ...] = ()
    lr: float
    token_lr: float | None = None

    @property
    def alone(self) -> bool:
        """Whether no adapter is trained."""
        return self.title is None

    @property
    def name(self) -> str:
        """LoRA; LoRA and embedding 'inkstyl'; embedding 'inkstyl'."""
        parts = [self.title] if self.title else []
        return " and ".join([*parts, *([self.embedding] if self.tokens else [])])

    @property
    def embedding(self) -> str:
        """embedding 'inkstyl'; embeddings 'a' and 'b'."""
        return f"embedding{'s' if len(self.tokens) > 1 else ''} {' and '.join(map(repr, self.tokens))}"

    @property
    def rate(self) -> str:
        """The setting of the rate and its value."""
        beside = f" and optim.token_lr (it is {self.token_lr:g})" if self.token_lr is not None else ""
        return f"optim.lr (it is {self.lr:g}){beside}"

    @property
    def learn_more(self) -> str:
        """What to do where nothing was learned."""
        if not self.alone:
            return f"Raise {self.rate} or steps, and check lora.targets"
        return f"Raise {self.rate}, which is the rate of the vectors, or steps, or give the tokens more vectors (tokens.add)"

    @property
    def unread_captions(self) -> str:
        """What to do where captions no longer count."""
        check = "Check that each caption describes its own image"
        if not self.alone:
            return check
        return f"{check}; where it does, the {self.embedding} took over the prompts: give fewer vectors, a lower optim.lr or fewer steps"

    @property
    def more_images(self) -> str:
        """What to do where training images alone became better."""
        beside = ", or an adapter beside the tokens (lora.kind=lora) where they hold too little" if self.alone else ""
        return f"Fewer steps do not help; more or more varied images do{beside}"

    @property
    def free_trigger(self) -> str:
        """Why a trigger carries nothing of the gain, and what to do."""
        if self.alone:
            return (
                f"The {self.embedding} changed, and no other word: an image that is to change has it in its prompt. Give the token as the"
                " trigger (data.trigger), or none"
            )
        return (
            "The adapter changes every image at its full weight,"
            " with the trigger or without. That is usual of a style; for a subject leave what the trigger is for out of the captions, and"
            " keep its class by regularisation images (prior in data.sets) or objective.preserve_class"
        )


def trained_of(config: TrainConfig) -> Trained:
    """What a run of these settings trains."""
    kind = kind_of(config.lora)
    return Trained(
        title=kind.title.partition(" (")[0] if kind.layers else None,
        tokens=tuple(one.token for one in tokens_of(config.tokens)),
        lr=config.optim.lr,
        token_lr=config.optim.token_lr,
    )
