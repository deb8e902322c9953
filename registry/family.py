"""The seam between architectures and everything else: one Family a file, used by training and inference alike.

Conventions (measured on thirteen families):
  latents     unpacked, batch-first, in normalised latent space; packing and position ids live inside `predict`
  timesteps   (B,) in scheduler units 0..1000, also for flow families (t = 1000 sigma)
  predict     returns what `scheduler.step` takes: epsilon or v, or the velocity noise - x0
  guidance    classifier-free guidance is outside `predict`; an embedded scale travels in the Conditioning

registry/family_protocols.py documents what each function takes, returns and raises; registry/family_defaults.py has ready-made ones.
A family file imports neither torch nor diffusers at its top: listings must stay cheap.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from registry.aliases import Aliases
from registry.detect.few_step import FewStep
from registry.errors import Refused
from registry.family_defaults import (
    always_classifier_free,
    any_build,
    any_names,
    classifier_free_guidance,
    guided_above_one,
    identity_conditioning,
    no_control_mode,
    no_largest_side,
    no_mu,
    scales_outside,
    start_by_share,
)
from registry.family_protocols import (
    Complete,
    ConditionOnCrop,
    ControlResiduals,
    CountTokens,
    Decode,
    EncodeHint,
    EncodeImages,
    EncodeNegatives,
    EncodePrompts,
    EncodeUnconditional,
    EncodeWeighted,
    Guide,
    Load,
    LoadControl,
    LoraState,
    Mu,
    Predict,
    ScaledResiduals,
    SetTimesteps,
    UsesGuidance,
)
from registry.formats.key_map import FileKeyMap
from registry.formats.layers import AdapterNames
from registry.formats.model_header import ModelHeader, TensorNames
from registry.names import Table
from registry.parts import Conditioning, Match, Parts
from registry.quantised.layers import QuantisedLayers

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class Control:
    """How ControlNets work on a family. Summing several and the window of steps are the caller's, mostly the scale too."""

    classes: tuple[str, ...]  # of its ControlNets in diffusers, `_class_name` of their config.json
    load: LoadControl
    encode_hint: EncodeHint
    residuals: ControlResiduals
    modes: Callable[[nn.Module], int] = no_control_mode  # control modes of a union net, numbered from 0; 0: it takes none
    conditional_only: bool = False  # a net sees the prompt's conditioning alone; the unconditional row gets the same residuals
    scales_itself: Callable[[nn.Module], bool] = scales_outside  # whether this net's residuals are not proportional to the scale:
    scaled_residuals: ScaledResiduals | None = None  # then this is called instead of `residuals`, and the caller does not scale


@dataclass(frozen=True, kw_only=True)
class Family:
    """Everything that differs between architectures: facts, then functions."""

    # --- facts
    name: str  # sd1, sdxl, flux1, ...
    title: str  # for people: "Stable Diffusion 1.x"
    pipeline: str  # the text-to-image pipeline class of diffusers
    denoiser: str = "transformer"  # the component that is trained: unet or transformer
    text_encoders: tuple[str, ...] = ("text_encoder",)  # component names, in the pipeline's order
    tokenizers: tuple[str, ...] = ("tokenizer",)
    aliases: Aliases = Aliases()  # what other tools call it in metadata
    latent_channels: int  # in the published models; a build's own is `channels(parts)`
    latent_factor: int  # pixels per latent cell in the published models; a loaded model's own is Parts.latent_factor
    size_multiple: int  # width and height must be multiples of it
    resolution: int  # pixels a side, the training size of the published models
    steps: int  # the pipeline call's default
    guidance: float  # the pipeline call's default; classifier-free or embedded scale
    lora_presets: Mapping[str, str | tuple[str, ...]]  # preset -> peft target_modules (suffixes, or one regular expression)
    architecture: str | Callable[[Parts], str]  # ModelSpec architecture id, without "/lora"; a function where builds have their own
    strength: float = 0.6  # the image-to-image pipeline's default
    inpaint_strength: float = 0.6  # the inpainting pipeline's default
    predictions: tuple[str, ...] = ("flow",)  # what its builds were published to predict
    fp32_latents: bool = False  # the pipeline keeps its latents in float32, whatever the model's dtype
    learning_encoders: Mapping[str, int | None] = field(default_factory=dict)
    """Text encoders that a LoRA can train and other tools load it for (CLIP's) -> how many of their last layers are never read.

    None: the last one is read for its pooled state, whatever clip skip is.
    """
    clip_layer: int = 1  # the layer of CLIP that is read without clip skip, counted from the end: 2 is the last but one
    one_chunk: str | None = "none of its text encoders is CLIP"  # why it takes no prompts in several chunks; None: it takes them
    untrained: str | None = None  # why it is drawn and not trained, as the end of a sentence; None: it is trained
    trains_on_mean: bool = False  # its training scripts take the mean of the VAE's posterior (its mode), never a sample
    training_guidance: float | None = None  # embedded scale set while training, where there is one
    few_steps: tuple[FewStep, ...] = ()  # its builds that were distilled to a few sampling steps, the ones known by variant first
    timestep_sampling: str = "uniform"  # default of train's timestep distribution (a name in its table)
    checkpointed: str = (
        r"(single_)?transformer_blocks\.\d+"  # regular expression of the blocks that checkpointing computes again, each whole
    )
    encoding_version: int = 1  # raised when its encode_images or encode_prompts gives other values: cached ones are then encoded again
    file_names: FileKeyMap | None = None  # where its parameters are in single files; None: under their own names
    adapter_names: AdapterNames | None = None  # how kohya, ComfyUI and A1111 name its adapters' layers; None: unknown, never converted

    quantised: QuantisedLayers = QuantisedLayers()  # which of its denoiser's linear layers a quantised base has in few bits

    # --- what its component files are known by, in the published models
    vae_channels: int | None = None  # latent channels of its AutoencoderKL; None: a VAE file is never taken for this family's
    cross_attention_dim: int | None = None  # width of the text states that its UNet and ControlNets attend to
    embedding_dim: int | None = None  # width of a textual inversion embedding with one tensor
    embedding_keys: tuple[str, ...] = ()  # tensors of a textual inversion embedding for all its text encoders
    controlnet_keys: tuple[str, ...] = ()  # parts of tensor names that, among ControlNets, only its own have

    # --- functions
    recognise_checkpoint: Callable[[ModelHeader], Match | None]
    recognise_adapter: Callable[[ModelHeader], Match | None]
    may_be_adapter: Callable[[TensorNames], bool] = any_names
    """Whether an adapter with these names can be this family's, asked once for all files with the same names: `recognise_adapter`
    gives None for every other one. A family that recognises an adapter by what its metadata declare alone takes any names."""
    load: Load
    encode_prompts: EncodePrompts
    encode_unconditional: EncodeUnconditional
    encode_negatives: EncodeNegatives | None = None  # None: as prompts. Callers use `negatives`
    encode_weighted: EncodeWeighted | None = None  # None: its prompts have no weights
    count_tokens: CountTokens
    encode_images: EncodeImages
    decode: Decode
    complete: Complete = identity_conditioning
    condition_on_crop: ConditionOnCrop | None = None  # in training; None: the model takes no size and no crop
    predict: Predict
    mu: Mu = no_mu  # of a timestep shift by resolution, for schedulers that take one
    set_timesteps: SetTimesteps
    lora_state: LoraState
    largest_side: Callable[[Parts], int | None] = no_largest_side  # pixels a side this build has positions for; None: any size
    same_build: Callable[[str, str], bool] = any_build  # (adapter's variant, base's variant) -> whether they can go together at all
    classifier_free: Callable[[Parts], bool] = always_classifier_free
    """Whether this build has an unconditional pass. Where not, `guidance` is embedded or ignored, and a negative prompt is refused."""
    guided: UsesGuidance = guided_above_one
    guide: Guide = classifier_free_guidance
    start_step: Callable[[int, float], int] = start_by_share  # (steps, strength) -> first step of image-to-image, as its pipeline counts
    control: Control | str = "there is no ControlNet of this family that is loaded here"  # or why none, as the end of a sentence

    def negatives(self, parts: Parts, texts: Sequence[str]) -> Conditioning:
        """The Conditioning of negative prompts, as the stock diffusers pipeline encodes them; no layer is ever skipped."""
        return self.encode_negatives(parts, texts) if self.encode_negatives is not None else self.encode_prompts(parts, texts)

    def check_chunks(self, chunks: int) -> None:
        """Raise Refused for a prompt in several chunks where this family takes one alone."""
        if chunks > 1 and self.one_chunk is not None:
            raise Refused(f"prompt_chunks is {chunks}, but a prompt of {self.title} is read in one: {self.one_chunk}. Leave it out.")

    def shift(self, parts: Parts, height: int, width: int) -> float | None:
        """The timestep shift that a flow model is drawn with at this size: sigma' = shift sigma / (1 + (shift - 1) sigma).

        The scheduler's static one, else by `mu` at the default number of steps (Esser et al. 2024, eq. 23). None: not a flow model.
        """
        import diffusers

        if parts.prediction != "flow":
            return None
        config: Any = getattr(diffusers, parts.scheduler_class).from_config(dict(parts.scheduler_config)).config
        if not config.get("use_dynamic_shifting", False):
            return float(config.get("shift") or config.get("flow_shift") or 1.0)
        mu = self.mu(config, height=height, width=width, steps=self.steps)
        if mu is None:
            return 1.0
        return math.exp(mu) if config.get("time_shift_type", "exponential") == "exponential" else mu

    def architecture_of(self, parts: Parts) -> str:
        """The ModelSpec architecture id of this build."""
        return self.architecture if isinstance(self.architecture, str) else self.architecture(parts)

    def channels(self, parts: Parts) -> int:
        """Channels of this build's latents."""
        return parts.latent_channels or self.latent_channels


FAMILIES: Table[Family] = Table("family")
