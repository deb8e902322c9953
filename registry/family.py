"""The seam between architectures and everything else: one Family a file, used by training and drawing alike.

Conventions (measured on eleven families):
  latents     unpacked, batch-first, in normalised latent space; packing and ids live inside `predict`
  timesteps   (B,) in scheduler units 0..1000, also for flow families (t = 1000 sigma)
  predict     returns what `scheduler.step` wants: epsilon or v, or the velocity noise - x0
  guidance    classifier-free guidance is outside `predict`; an embedded scale travels in the Conditioning

A family file imports neither torch nor diffusers at its top: listings must stay cheap.
"""

# B batch, C channels, H W latent size, T tokens, D width

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from registry.formats.key_map import FilePlaces
from registry.formats.layers import AdapterNames
from registry.formats.model_header import ModelHeader
from registry.names import Table
from registry.parts import Conditioning, Match, Parts, Posterior, Residuals

if TYPE_CHECKING:
    from torch import Tensor, nn


def never_itself(net: nn.Module) -> bool:
    """False: what a net adds is scaled behind it."""
    return False


def no_modes(net: nn.Module) -> int:
    """0: this net does one thing, and takes no mode."""
    return 0


@dataclass(frozen=True, kw_only=True)
class Control:
    """How ControlNets steer a family. Scaling, summing several and the window of steps are the caller's."""

    classes: tuple[str, ...]  # of its ControlNets in diffusers, `_class_name` of their config.json
    load: Callable[..., nn.Module]
    """load(path, parts, *, dtype, device) -> the net of a diffusers folder or a single file, frozen and in eval mode, no network.
    With device "meta" no weight is read, and all that can be refused is: a net of another family (FamilyMismatch) or of another
    build than `parts` (Refused)."""
    encode_hint: Callable[..., Tensor]
    """encode_hint(parts, net, pixels, generator) -> Tensor (1, ...): hint pixels (1, 3, h, w) in [0, 1] as the net takes them.
    Where the pipeline draws from the image's generator for it (a VAE's posterior sample), so does this."""
    residuals: Callable[..., Residuals]
    """residuals(parts, net, noisy, timesteps, conditioning, hint, *, mode=None) -> Residuals for `predict`, at a scale of 1.
    All but `net`, `hint` (B, ...) and `mode` are what `predict` gets."""
    modes: Callable[[nn.Module], int] = no_modes
    """modes(net) -> how many hint kinds a union net tells apart by number (`mode`, 0 to this - 1); 0: it takes no mode."""
    asked_once: bool = False
    """The pipeline asks a net with the prompt's conditioning alone, and steers the unconditional row by the same answer."""
    scales_itself: Callable[[nn.Module], bool] = never_itself
    """scales_itself(net) -> whether the scale works inside the net, where no factor behind it gives the same: then `residuals` gets
    `scale=` too, and the caller does not scale."""


def any_build(adapter: str, base: str) -> bool:
    """True: shapes alone tell whether an adapter fits a base."""
    return True


def no_largest_side(parts: Parts) -> None:
    """None: no size is too large for the model itself."""
    return None


def always_classifier_free(parts: Parts) -> bool:
    """True: every build has an unconditional pass."""
    return True


def never_classifier_free(parts: Parts) -> bool:
    """False: guidance is distilled into every build."""
    return False


def guided_above_one(parts: Parts, guidance: float, *, negative: bool) -> bool:
    """diffusers' usual rule: an unconditional pass above a scale of 1, whether a negative prompt is given or not."""
    return guidance > 1.0


def never_guided(parts: Parts, guidance: float, *, negative: bool) -> bool:
    """No scale makes an unconditional pass."""
    return False


def classifier_free_guidance(conditional: Tensor, unconditional: Tensor, guidance: float) -> Tensor:
    """unconditional + guidance (conditional - unconditional) (Ho & Salimans 2022, eq. 6, in diffusers' count: 1 is no guidance)."""
    return unconditional + guidance * (conditional - unconditional)


def start_by_share(steps: int, strength: float) -> int:
    """First step of image-to-image in the flow pipelines: int(steps - steps * strength). `strength` in (0, 1]."""
    return int(max(steps - min(steps * strength, steps), 0))


def start_by_whole_steps(steps: int, strength: float) -> int:
    """First step of image-to-image in the SD and SDXL pipelines: steps - int(steps * strength). `strength` in (0, 1]."""
    return max(steps - min(int(steps * strength), steps), 0)


def identity_conditioning(parts: Parts, conditioning: Conditioning, *, height: int, width: int, guidance: float) -> Conditioning:
    """The conditioning as it is: neither size nor guidance is embedded."""
    return conditioning


def complete_with_guidance(parts: Parts, conditioning: Conditioning, *, height: int, width: int, guidance: float) -> Conditioning:
    """The conditioning with "guidance" (B,) in float32 where the build's transformer embeds it (`guidance_embeds`)."""
    import torch

    config: Any = parts.denoiser.config
    if not config.guidance_embeds:
        return conditioning
    embeds = conditioning["embeds"]
    return {**conditioning, "guidance": torch.full((len(embeds),), guidance, dtype=torch.float32, device=embeds.device)}


def own_timesteps(scheduler: Any, steps: int, *, height: int, width: int) -> None:
    """The scheduler's own table for so many steps; the image's size plays no part."""
    scheduler.set_timesteps(steps)


def own_timesteps_begun(scheduler: Any, steps: int, *, height: int, width: int) -> None:
    """The scheduler's own table for so many steps, begun at its first entry; the image's size plays no part."""
    scheduler.set_timesteps(steps)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)


@dataclass(frozen=True, kw_only=True)
class Family:
    """Everything that differs between architectures: facts, then functions."""

    # --- facts
    name: str  # sd1, sdxl, flux1, ...
    title: str  # for people: "Stable Diffusion 1.x"
    pipeline: str  # the text-to-image pipeline class of diffusers
    denoiser: str  # the component that is trained: unet or transformer
    text_encoders: tuple[str, ...]  # component names, in the pipeline's order
    tokenizers: tuple[str, ...]
    latent_channels: int  # in the published models; a build's own is `channels(parts)`
    latent_factor: int  # pixels a latent cell in the published models; a loaded model's own is Parts.latent_factor
    size_multiple: int  # width and height must be multiples of it
    resolution: int  # pixels, the training size of the published models
    steps: int  # the stock pipeline's default
    guidance: float  # the stock pipeline's default; classifier-free or embedded scale
    lora_presets: Mapping[str, str | tuple[str, ...]]  # preset -> peft target_modules (suffixes, or one regular expression)
    architecture: str | Callable[[Parts], str]  # ModelSpec architecture id, without "/lora"; of the build, where builds have their own
    strength: float = 0.6  # the image-to-image pipeline's default
    inpaint_strength: float = 0.6  # the inpainting pipeline's default
    predictions: tuple[str, ...] = ("flow",)  # what its builds were published to predict; where it is one of several, `load` takes a word
    fp32_latents: bool = False  # the stock pipeline draws and keeps its latents in float32, whatever the model's dtype
    learning_encoders: Mapping[str, int] = field(default_factory=dict)
    """Text encoders that a LoRA can learn on and other tools load it for (CLIP's), and how many of its last layers are never read."""
    untrained: str | None = None  # why it is drawn and not trained, as the end of a sentence; None: it is trained
    trains_on_mean: bool = False  # its training scripts take the VAE posterior's mean (its mode), never a sample
    training_guidance: float | None = None  # embedded scale set while training, where there is one
    timestep_sampling: str = "uniform"  # default of train's timestep distribution (a name in its table)
    file_names: FilePlaces | None = None  # where its parameters stand in single files; None: under their own names
    adapter_names: AdapterNames | None = None  # how kohya, ComfyUI and A1111 spell its adapters; None: not known, never converted

    # --- functions
    recognise_checkpoint: Callable[[ModelHeader], Match | None]
    recognise_adapter: Callable[[ModelHeader], Match | None]
    load: Callable[..., Parts]
    """load(path, *, dtype, device, base_config=None) -> Parts: a diffusers folder or a single file, with no network. A family of several
    `predictions` takes `prediction=None` too: what a person says that the model predicts, which stands above its configs and marks.
    With device "meta" no weight is read: a skeleton with tokenizers and configs, to count, to match and to plan with.
    Raises Refused with the word `base_config` when a single file needs component configs or tokenizers we do not carry."""
    encode_prompts: Callable[..., Conditioning]
    """encode_prompts(parts, prompts, *, clip_skip=None) -> Conditioning, batch-first, (B, T, D) and what else the prompt gives.
    Negative prompts are encoded by `negatives`."""
    encode_unconditional: Callable[..., Conditioning]
    """encode_nothing(parts, count, *, clip_skip=None) -> Conditioning of no negative prompt, as the stock pipeline has it
    (the encoding of "" in SD1, zeros in SDXL)."""
    count_tokens: Callable[[Parts, str], tuple[int, int]]
    """count_tokens(parts, prompt) -> (tokens the prompt needs with its marks, tokens that fit).
    More than fit is truncated, and must be told."""
    encode_images: Callable[[Parts, Tensor], Posterior]
    """pixels (B, 3, h, w) in [-1, 1] -> Posterior of normalised latents (B, C, h/f, w/f)."""
    decode: Callable[[Parts, Tensor], Tensor]
    """normalised latents -> pixels (B, 3, h, w), nominally in [-1, 1], not clamped."""
    complete: Callable[..., Conditioning]
    """complete(parts, conditioning, *, height, width, guidance) -> Conditioning with what size and embedded guidance add.
    height, width in pixels; a family that needs neither returns it unchanged. SDXL's original size and crop are (height, width), (0, 0)."""
    predict: Callable[..., Tensor]
    """predict(parts, noisy, timesteps, conditioning, *, control=None) -> Tensor like noisy.
    One denoiser call, a timestep PER SAMPLE (B,). `control` is Residuals under the names that the family's own `control` gives."""
    set_timesteps: Callable[..., None]
    """set_timesteps(scheduler, steps, *, height, width) -> None, exactly as the pipeline does it (mu, sigmas). height, width in pixels."""
    largest_side: Callable[[Parts], int | None] = no_largest_side
    """largest_side(parts) -> pixels a side that this build has places for; None: it draws any size."""
    same_build: Callable[[str, str], bool] = any_build
    """same_build(adapter's variant, base's variant) -> whether the one can be meant for the other at all, whatever their shapes."""
    encode_negatives: Callable[..., Conditioning] | None = None
    """encode_negatives(parts, negatives) -> Conditioning of negative prompts, where the stock pipeline reads them otherwise than prompts
    (without the system prompt). None: as prompts. Callers ask `negatives`."""
    classifier_free: Callable[[Parts], bool] = always_classifier_free
    """Whether this build has an unconditional pass at all. Where not, `guidance` is embedded or without effect, and a negative
    prompt is refused."""
    guided: Callable[..., bool] = guided_above_one
    """guided(parts, guidance, *, negative) -> bool: whether the stock pipeline makes an unconditional pass at this scale, with
    (`negative` True) or without a negative prompt given. Never where `classifier_free` is False."""
    guide: Callable[[Tensor, Tensor, float], Tensor] = classifier_free_guidance
    """guide(conditional, unconditional, guidance) -> Tensor: the family's rule for the two predictions (B, C, H, W)."""
    start_step: Callable[[int, float], int] = start_by_share
    """start_step(steps, strength) -> index of the first step of image-to-image, as the family's own pipeline counts it."""
    control: Control | str = "there is no ControlNet of this family that is loaded here"
    """How ControlNets steer it, or why none can, as the end of a sentence."""
    lora_state: Callable[..., tuple[dict[str, Tensor], dict[str, Any]]]
    """lora_state(path, parts) -> (state dict in diffusers' peft keys `<component>.<module>.lora_A.weight`, loader facts:
    {"network_alphas": ..., "metadata": ...}). Every dialect diffusers converts; raises BadFile when nothing in it can be read."""

    def negatives(self, parts: Parts, texts: Sequence[str]) -> Conditioning:
        """The Conditioning of negative prompts, as the stock pipeline reads them; it never skips layers of them."""
        return (self.encode_negatives or self.encode_prompts)(parts, texts)

    def architecture_of(self, parts: Parts) -> str:
        """The ModelSpec architecture id of this build."""
        return self.architecture if isinstance(self.architecture, str) else self.architecture(parts)

    def channels(self, parts: Parts) -> int:
        """Channels of this build's latents."""
        return parts.latent_channels or self.latent_channels


FAMILIES: Table[Family] = Table("family")
