"""What of a base decides on how OneTrainer's settings are converted."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class BaseFacts:
    """What of the base decides on settings. `clips`: CLIP text encoders that can learn, by OneTrainer's names; `others`: further ones."""

    prediction: str = "epsilon"
    guided: bool = False  # guidance is embedded
    clips: tuple[str, ...] = ("text_encoder",)
    others: tuple[str, ...] = ()
