"""Ready-made functions for the fields of Family and Control: what several families, or most, do alike."""

# B batch, C channels, H W latent size

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from registry.family_protocols import EncodeUnconditional
from registry.parts import Conditioning, Parts

if TYPE_CHECKING:
    from torch import Tensor, nn

    from registry.formats.model_header import TensorNames


# --- ControlNets


def scales_outside(net: nn.Module) -> bool:
    """False: the conditioning scale multiplies the net's residuals."""
    return False


def no_control_mode(net: nn.Module) -> int:
    """0: the net takes one kind of hint and no mode."""
    return 0


# --- builds


def any_names(names: TensorNames) -> bool:
    """True: the names of an adapter's tensors do not say that it is another family's."""
    return True


def any_build(adapter: str, base: str) -> bool:
    """True: shapes alone decide whether an adapter fits a base."""
    return True


def no_largest_side(parts: Parts) -> None:
    """None: no image size is too large for the model itself."""
    return None


# --- guidance


def always_classifier_free(parts: Parts) -> bool:
    """True: every build has an unconditional pass."""
    return True


def never_classifier_free(parts: Parts) -> bool:
    """False: guidance is distilled into every build."""
    return False


def guided_above_one(parts: Parts, guidance: float, *, negative: bool) -> bool:
    """diffusers' usual rule: an unconditional pass above a scale of 1, with or without a negative prompt."""
    return guidance > 1.0


def guided_above_zero(parts: Parts, guidance: float, *, negative: bool) -> bool:
    """The rule of scales that count from 0: an unconditional pass above a scale of 0, with or without a negative prompt."""
    return guidance > 0.0


def never_guided(parts: Parts, guidance: float, *, negative: bool) -> bool:
    """False: no scale makes an unconditional pass."""
    return False


def classifier_free_guidance(conditional: Tensor, unconditional: Tensor, guidance: float) -> Tensor:
    """unconditional + guidance (conditional - unconditional) (Ho & Salimans 2022, eq. 6, as diffusers counts: 1 is no guidance)."""
    return unconditional + guidance * (conditional - unconditional)


def guidance_from_zero(conditional: Tensor, unconditional: Tensor, guidance: float) -> Tensor:
    """conditional + guidance (conditional - unconditional): the usual rule at a scale of 1 + guidance."""
    return conditional + guidance * (conditional - unconditional)


# --- image-to-image


def start_by_share(steps: int, strength: float) -> int:
    """First step of image-to-image in the flow pipelines: int(steps - steps * strength). `strength` in (0, 1]."""
    return int(max(steps - min(steps * strength, steps), 0))


def start_by_whole_steps(steps: int, strength: float) -> int:
    """First step of image-to-image in the SD and SDXL pipelines: steps - int(steps * strength). `strength` in (0, 1]."""
    return max(steps - min(int(steps * strength), steps), 0)


# --- conditioning


def identity_conditioning(parts: Parts, conditioning: Conditioning, *, height: int, width: int, guidance: float) -> Conditioning:
    """The conditioning unchanged: neither size nor guidance is embedded."""
    return conditioning


def complete_with_guidance(parts: Parts, conditioning: Conditioning, *, height: int, width: int, guidance: float) -> Conditioning:
    """The conditioning with "guidance" (B,) in float32 where the build's transformer embeds it (`guidance_embeds`)."""
    import torch

    config: Any = parts.denoiser.config
    if not config.guidance_embeds:
        return conditioning
    embeds = conditioning["embeds"]
    return {**conditioning, "guidance": torch.full((len(embeds),), guidance, dtype=torch.float32, device=embeds.device)}


def repeated(conditioning: Conditioning, count: int) -> Conditioning:
    """A conditioning of batch size 1, `count` times."""
    return {key: value.repeat(count, *[1] * (value.ndim - 1)) for key, value in conditioning.items()}


def encoding_of_empty(encode: Callable[[Parts, Sequence[str]], Conditioning]) -> EncodeUnconditional:
    """A family's `encode_unconditional`: its encoding of ""."""

    def encode_unconditional(parts: Parts, count: int) -> Conditioning:
        return repeated(encode(parts, [""]), count)

    return encode_unconditional


# --- timesteps


def no_mu(config: Mapping[str, Any], *, height: int, width: int, steps: int) -> None:
    """None: no image size shifts the timesteps."""
    return None


def scheduler_timesteps(scheduler: Any, steps: int, *, height: int, width: int) -> None:
    """The scheduler's own timesteps, whatever the image's size."""
    scheduler.set_timesteps(steps)


def scheduler_timesteps_from_start(scheduler: Any, steps: int, *, height: int, width: int) -> None:
    """The scheduler's own timesteps with its begin index set to 0, whatever the image's size."""
    scheduler.set_timesteps(steps)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)
