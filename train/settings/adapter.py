"""Settings of adapters beside the one that is trained."""

from collections.abc import Iterator
from dataclasses import dataclass

from registry.settings import setting
from train.settings.rules import Rule, texts


@dataclass(kw_only=True)
class AdapterConfig:
    training: str | None = setting(
        None,
        "training adapter (de-distillation LoRA) of a few-step base: a registered name, a path or a sha256: prefix. It is fused into the"
        " base while training, and taken out in previews, held-out loss and the saved adapter",
    )

    def rules(self) -> Iterator[Rule]:
        """Ranges, without what needs the disk."""
        yield from texts(self, "training")
