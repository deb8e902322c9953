"""Render: all that one image needs, and the key that two equal images share. A setting of an image is one field here."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property
from hashlib import sha256
from typing import Annotated, Any

from infer.draw.controls import read_controls
from infer.draw.files import (
    Adapter,
    ControlNet,
    Embedding,
    ImageFile,
    adapter_values,
    file_name,
    label_controls,
    read_adapters,
    read_embeddings,
    read_image,
    spell_adapters,
    spell_controls,
    spell_embeddings,
)
from infer.draw.samplers import sampler_name, sampler_names
from infer.draw.setting import UNPINNED, FieldAxis, Setting, pin_always, settings_of
from infer.draw.values import (
    Fit,
    Precision,
    PromptDialect,
    dialects,
    member_name,
    names,
    prompts,
    read_size,
    sides,
    sizes,
    spell_or_own,
    spell_side,
    spell_size,
)
from infer.hints.setting import read_prepare
from infer.hires.setting import LARGEST_SEED, Hires, read_hires
from infer.prompt.upsampling.upsample import Upsample, read_upsample, spell_upsample
from infer.sampling.sigmas import SCHEDULES, schedule_name, schedule_names
from registry.architectures.text.clip_chunks import MOST
from registry.errors import Refused
from registry.formats import image_file
from registry.quantised.codings import CODINGS, COMPUTE
from registry.typed_values import is_of

# Counts up when our own loop changes what it draws from the same settings; every key changes with it.
LOOP = 1
LARGEST_SIDE = 8192  # pixels: two such sides are what PIL opens without a warning


def _hide(_value: Any) -> None:
    """Not shown in a report."""


def _load_each(kind: type[Any]) -> Callable[[Any], tuple[Any, ...]]:
    """The values of a field that holds several files of a kind, back from JSON."""
    return lambda rows: tuple(kind(**row) for row in rows)


def _load_image(data: Mapping[str, Any] | None) -> ImageFile | None:
    return ImageFile(**data) if data is not None else None


def _load_control(data: Mapping[str, Any]) -> ControlNet:
    try:
        prepare = read_prepare(data.get("prepare"))
    except Refused as error:
        raise ValueError(str(error)) from error
    return ControlNet(**{**data, "picture": ImageFile(**data["picture"]), "prepare": prepare})


def _load_hires(data: Mapping[str, Any] | None) -> Hires | None:
    return None if data is None else Hires(**data)


def _pin_hires(render: "Render", hires: Hires | None) -> Any:
    """All that the second pass draws with, what it has of the first one too: two spellings of it are one key."""
    if hires is None:
        return UNPINNED
    own = {"size": [hires.width, hires.height], "upscaler": hires.upscaler, "steps": hires.steps, "strength": hires.strength}
    own |= {"sampler": hires.sampler, "schedule": hires.schedule} if hires.sampler is not None else {}
    shared = {"sampler": None, "schedule": hires.schedule, "guidance": hires.guidance, "seed": hires.seed}
    return {name: getattr(render, name) if value is None else value for name, value in shared.items()} | own


def _pin_fit(render: "Render", fit: str | None) -> Any:
    return fit if fit is not None and (render.init or render.mask or render.steering) else UNPINNED


@dataclass(frozen=True, kw_only=True)
class Render:
    """All that one image needs. `None` is diffusers' default; `infer.draw.resolve` puts the value in its place.

    `clip_skip` counts as diffusers does: 1 leaves out the last layer of the text encoder (A1111 calls that 2), for the prompt alone, and
    for both prompts in a dialect that is not plain.
    `init` is redrawn by `strength` where `mask` is white; `paste` puts its own pixels back where it is black.
    """

    base: Annotated[
        str,
        Setting(
            help="the base model: a registered name, a path, a sha256: prefix",
            default="pocket",
            file="base",
            pin=lambda render, _: render.base_sha256,
            axis=FieldAxis(help="base models: names, paths, sha256:...", read=names, across=7),
        ),
    ]
    base_config: Annotated[
        str | None,
        Setting(
            help="diffusers folder with the configs a single file needs",
            file="base_config",
            show=_hide,
            pin=lambda render, _: render.base_config_sha256,
        ),
    ] = None
    prediction: Annotated[str | None, Setting(help="epsilon or v_prediction, where the base's file does not say it", show=_hide)] = (
        None  # as a person gave it; None: as the base's files say
    )
    adapters: Annotated[
        tuple[Adapter, ...],
        Setting(
            help='adapters of every cell: ink, "ink:0.6+hat:0.4", {adapter, weight, text_weight, start, end, blocks}, a list, none',
            type=Any,
            default=None,
            read=read_adapters,
            file="adapter",
            show=spell_adapters,
            load=_load_each(Adapter),
            pin=lambda render, _: [one.pinned() for one in render.active],
            axis=FieldAxis(
                name="adapter",
                help='adapters: "none", ink, "ink:0.6+hat:0.4", "ink@step-*" (each checkpoint), {adapter, weight, text_weight, ...}',
                read=adapter_values,
                spell=lambda value: value if isinstance(value, str) else spell_adapters(value),
                across=8,
            ),
        ),
    ] = ()
    always: Annotated[
        tuple[Adapter, ...],
        Setting(
            help="adapters that stay in every cell beside axes.adapter and axes.weight: speedlora:1, a list of these",
            type=Any,
            default=None,
            read=read_adapters,
            file="adapter",
            show=lambda adapters: spell_adapters(adapters) if adapters else None,
            load=_load_each(Adapter),
            pin=lambda *_: UNPINNED,  # they are among the active ones, which `adapters` pins
        ),
    ] = ()
    prompt: Annotated[
        str,
        Setting(
            help="the prompt; needed unless axes.prompt has them",
            type=str | None,
            default=None,
            read=lambda text: text or "",
            pin=pin_always,
            axis=FieldAxis(help="prompts, each in quotes", read=prompts, across=0),
        ),
    ] = ""
    negative: Annotated[
        str | None,
        Setting(
            help="the negative prompt (default: none)",
            pin=lambda render, text: text if render.any_guided else None,  # without an unconditional pass it is never read
            axis=FieldAxis(help="negative prompts; null is none", across=0),
        ),
    ] = None
    upsample: Annotated[
        Upsample | None,
        Setting(
            help="make a vague prompt exact: concrete, detailed (rules), the folder of a language model, {model, instruction, tokens}",
            type=Any,
            default=None,
            read=read_upsample,
            show=lambda how: None if how is None else spell_upsample(how),
            load=lambda data: None if data is None else Upsample(**data),
            pin=lambda *_: UNPINNED,  # the prompt is the text that came of it
            axis=FieldAxis(
                help="ways to make a vague prompt exact: null, concrete, detailed, a language model's folder",
                read=lambda value: (read_upsample(value),),
                spell=spell_upsample,
            ),
        ),
    ] = None
    seed: Annotated[
        int,
        Setting(
            help="seed of torch's CPU generator, one a cell, as in diffusers",
            infotext="Seed",
            valid=lambda seed: 0 <= seed <= LARGEST_SEED,
            expected="0 to 2^64 - 1, as torch and ComfyUI take it",
            pin=pin_always,
            axis=FieldAxis(help="seeds: 7, or 1-4 (1, 2, 3, 4)", across=2),
        ),
    ] = 0
    steps: Annotated[
        int | None,
        Setting(
            help="denoising steps (default: the family's)",
            infotext="Steps",
            valid=lambda steps: 1 <= steps <= 1000,
            expected="1 to 1000: a sampler picks its steps among 1000 timesteps",
            pin=pin_always,
            axis=FieldAxis(help="denoising steps: 20, or 10-14"),
        ),
    ] = None
    sampler: Annotated[
        str | None,
        Setting(
            help="the sampler, by its name or as A1111 spells it (default: the base's own)",
            choice=True,
            read=lambda label: None if label is None else sampler_name(label),
            pin=pin_always,
            axis=FieldAxis(help="samplers by name or as A1111 has them; null is the base's own", read=sampler_names, spell=spell_or_own),
        ),
    ] = None
    guidance: Annotated[
        float | None,
        Setting(
            help="the guidance scale (default: the family's)",
            valid=lambda scale: abs(scale) < 1e4,
            expected="a number such as 7.5",
            pin=pin_always,
            axis=FieldAxis(help="guidance scales: 4, or 1..7/4"),
        ),
    ] = None
    rescale: Annotated[
        float | None,
        Setting(
            help="guidance rescale (Lin et al. 2023): share of the guided prediction that gets the prompt's own spread back; 0.7 is usual",
            infotext="CFG Rescale",
            valid=lambda share: 0 <= share <= 1,
            expected="0 to 1: 0 is none, 0.7 is usual for bases with zero terminal SNR",
            pin=lambda render, share: share if share and render.any_guided else UNPINNED,
            axis=FieldAxis(help="shares of guidance rescale: 0..1/3"),
        ),
    ] = None
    eta: Annotated[
        float | None,
        Setting(
            help="fresh noise at each step of ddim (1: as much as DDPM) or tcd; 0 is none",
            valid=lambda eta: 0 <= eta <= 1,
            expected="0 to 1",
            pin=lambda _, eta: eta or UNPINNED,
            axis=FieldAxis(help="fresh noise at each step of ddim or tcd: 0..1/3"),
        ),
    ] = None
    schedule: Annotated[
        str | None,
        Setting(
            name="schedule_type",  # A1111's name; `schedule` is a group of presets of train
            help=f"the noise schedule apart from the sampler: {', '.join(SCHEDULES)} (default: its own)",
            choice=True,
            read=lambda label: None if label is None else schedule_name(label),
            axis=FieldAxis(
                name="schedule", help="noise schedules by name; null is the sampler's own", read=schedule_names, spell=spell_or_own
            ),
        ),
    ] = None
    sigma_min: Annotated[
        float | None,
        Setting(help="the lowest noise level of the schedule (default: the base's)", infotext="Schedule min sigma"),
    ] = None
    sigma_max: Annotated[
        float | None,
        Setting(help="the highest noise level of the schedule (default: the base's)", infotext="Schedule max sigma"),
    ] = None
    width: Annotated[
        int | None,
        Setting(
            name="size",
            fields=("width", "height"),
            help="pixels: 64, 96x64 (width x height), [96,64] (default: the base's own)",
            type=Any,
            read=read_size,
            show=lambda size: f"{size[0]}×{size[1]}",
            infotext="Size",
            valid=lambda size: max(side or 0 for side in size) <= LARGEST_SIDE,
            expected=f"at most {LARGEST_SIDE} pixels a side",
            infotext_value=lambda size: f"{size[0]}x{size[1]}",
            pin=pin_always,
            axis=FieldAxis(help="sizes in pixels: 64, 96x64 (width x height), [96,64]", read=sizes, spell=spell_size),
        ),
    ] = None
    height: Annotated[int | None, Setting(show=_hide, pin=pin_always)] = None
    clip_skip: Annotated[
        int | None,
        Setting(
            help="layers of the text encoder left out at its end for the prompt, not the negative one, as in diffusers; 1 is A1111's 2",
            read=lambda skip: skip or None,
            pin=lambda _, skip: skip or None,  # 0 leaves nothing out
            axis=FieldAxis(name="clipskip", help="layers of the text encoder left out for the prompt: 0 is none, 1 is A1111's 2"),
        ),
    ] = None
    prompt_dialect: Annotated[
        str,
        Setting(
            help="the grammar of prompts: plain (as diffusers, letter by letter), a1111, a1111_no_norm, comfy",
            type=PromptDialect,
            default=PromptDialect.plain,
            read=member_name,
            show=lambda dialect: None if dialect == "plain" else dialect,
            axis=FieldAxis(name="dialect", help="grammars of prompts: plain, a1111, a1111_no_norm, comfy", read=dialects, spell=str),
        ),
    ] = "plain"
    prompt_chunks: Annotated[
        int,
        Setting(
            help="context lengths of CLIP (75 tokens each) that the prompt and the negative one are read in, as A1111 reads a long prompt",
            show=lambda chunks: str(chunks) if chunks > 1 else None,
            infotext="Prompt chunks",
            valid=lambda chunks: 1 <= chunks <= MOST,
            expected=f"1 to {MOST}",
            axis=FieldAxis(name="chunks", help="context lengths of CLIP (75 tokens each) that a prompt is read in: 1, 3"),
        ),
    ] = 1
    init: Annotated[
        ImageFile | None,
        Setting(
            help="an image to redraw (image-to-image); its size is the drawing's unless size is given",
            type=str | None,
            read=read_image,
            show=lambda file: file_name(file.path) if file else None,
            infotext="Init image hash",
            infotext_value=lambda file: (file.sha256 or "")[:10] if file else None,
            load=_load_image,
            pin=lambda _, file: file.sha256 if file else UNPINNED,
        ),
    ] = None
    strength: Annotated[
        float | None,
        Setting(
            help="how much of init is redrawn, above 0 to 1 (default: the family's)",
            infotext="Denoising strength",
            pin=lambda render, strength: strength if render.init else UNPINNED,
        ),
    ] = None  # in (0, 1], the share of the steps that is walked
    mask: Annotated[
        ImageFile | None,
        Setting(
            help="a black and white image: init is redrawn where it is white (inpainting)",
            type=str | None,
            read=read_image,
            show=lambda file: file_name(file.path) if file else None,
            load=_load_image,
            pin=lambda _, file: file.sha256 if file else UNPINNED,
        ),
    ] = None
    paste: Annotated[
        bool,
        Setting(
            help="put init's own pixels back where mask is black; false: as the VAE gives them back",
            show=lambda paste: None if paste else "no: as the VAE gives it back",
            pin=lambda render, paste: paste if render.mask else UNPINNED,
        ),
    ] = True
    hires: Annotated[
        Hires | None,
        Setting(
            help="a second pass at a larger size (Hires. fix): a scale such as 1.5, {scale, size, upscaler, steps, strength, sampler, ...}",
            type=Any,
            default=None,
            read=read_hires,
            label="second pass",
            show=lambda hires: None if hires is None else str(hires),
            load=_load_hires,
            pin=_pin_hires,
            axis=FieldAxis(
                help="second passes at a larger size: null, 1.5, {scale: 2, upscaler: lanczos, steps: 10, strength: 0.5}",
                read=lambda value: (read_hires(value),),
                spell=lambda hires: "none" if hires is None else str(hires),
                across=6,
            ),
        ),
    ] = None
    controls: Annotated[
        tuple[ControlNet, ...],
        Setting(
            help="ControlNets with their hints: canny:edges.png:0.8, a list, {net, image, scale, start, end, mode, prepare: edges}",
            type=Any,
            default=None,
            read=read_controls,
            file="ControlNet",
            show=lambda controls: spell_controls(controls) if controls else None,
            load=lambda rows: tuple(map(_load_control, rows)),
            pin=lambda render, _: [one.pinned() for one in render.steering] or UNPINNED,
            axis=FieldAxis(
                name="control",
                help='ControlNets with hints: "none", canny:edges.png:0.8, "canny:e.png:0.8+depth:d.png"',
                read=lambda value: (read_controls(value),),
                spell=label_controls,
                across=6,
            ),
        ),
    ] = ()
    embeddings: Annotated[
        tuple[Embedding, ...],
        Setting(
            help="textual inversion embeddings: a name, a list, {embedding, token}",
            type=Any,
            default=None,
            read=read_embeddings,
            file="embedding",
            show=lambda embeddings: spell_embeddings(embeddings) if embeddings else None,
            load=_load_each(Embedding),
            pin=lambda _, embeddings: [[one.sha256, one.token] for one in embeddings] or UNPINNED,
            axis=FieldAxis(
                name="embedding",
                help='textual inversion embeddings: "none", badhands, "badhands+goodhands"; write their tokens in the prompts',
                read=lambda value: (read_embeddings(value),),
                spell=spell_embeddings,
                across=6,
            ),
        ),
    ] = ()
    vae: Annotated[
        str | None,
        Setting(
            help="another VAE of the base's latent space: a name, a path (default: the base's own)",
            file="VAE",
            pin=lambda render, vae: render.vae_sha256 if vae is not None else UNPINNED,
            # the VAE encodes them, and some ControlNets' hints; a second pass over the image decodes and encodes it
            in_latents=lambda render: bool(render.images) or render.enlarges_image,
            axis=FieldAxis(
                help="VAEs by name or path; null is the base's own. One denoising serves them all", spell=spell_or_own, across=6
            ),
        ),
    ] = None
    vae_tiling: Annotated[
        int | None,
        Setting(
            help="decode images larger than this in tiles of so many pixels a side: less memory, pixels differ a little; 512 is usual",
            valid=lambda side: side > 0,
            expected="the side of a tile in pixels: 512 is usual",
            pin=lambda render, side: side if side and max(render.final_size) > side else UNPINNED,
            in_latents=lambda render: render.enlarges_image and max(render.width or 0, render.height or 0) > (render.vae_tiling or 0),
            infotext="VAE tile size",
            axis=FieldAxis(
                name="vaetiling",
                help="sides of the VAE's tiles in pixels; null is none. One denoising serves them all",
                read=sides,
                spell=spell_side,
            ),
        ),
    ] = None
    fit: Annotated[
        str | None,
        Setting(
            help="an image of another shape is refused (null), stretched or cropped: stretch, crop",
            type=Fit | None,
            read=member_name,
            pin=_pin_fit,
        ),
    ] = None
    precision: Annotated[
        str,
        Setting(help="weights and arithmetic: fp32, bf16, fp16", type=Precision, default=Precision.fp32, read=member_name, pin=pin_always),
    ] = "fp32"
    base_dtype: Annotated[
        str | None,
        Setting(
            help=f"what the denoiser's linear layers are kept in: {', '.join(CODINGS)} (quantised base; default: as precision)",
            valid=lambda dtype: dtype in CODINGS,
            expected=", ".join(CODINGS),
            infotext="Base dtype",
            axis=FieldAxis(
                name="basedtype",
                help=f"what the base is quantised to: {', '.join(CODINGS)}; null is as precision",
                spell=spell_or_own,
                across=6,
            ),
        ),
    ] = None
    text_encoder_dtype: Annotated[
        str | None,
        Setting(
            help="the same for the text encoders",
            valid=lambda dtype: dtype in CODINGS,
            expected=", ".join(CODINGS),
            infotext="Text encoder dtype",
        ),
    ] = None
    compute: Annotated[
        str | None,
        Setting(
            help=(
                f"arithmetic of the denoiser's quantised layers (W8A8): {', '.join(COMPUTE)}, the same as base_dtype, with activations"
                " quantised token by token (default: products with the dequantised weights)"
            ),
            valid=lambda kind: kind in COMPUTE,
            expected=", ".join(COMPUTE),
            infotext="Compute",
            axis=FieldAxis(
                name="compute",
                help=f"arithmetic of the quantised layers: {', '.join(COMPUTE)}; null is products with the dequantised weights",
                spell=lambda kind: kind or "dequantised",
                across=6,
            ),
        ),
    ] = None
    device: Annotated[
        str,
        Setting(
            help="auto, cpu, cuda, cuda:1, mps",
            choice=True,
            default="auto",
            pin=lambda _, device: device.partition(":")[0],  # cuda:1 draws what cuda:0 draws; the GPU's name is in the versions
        ),
    ] = "cpu"
    swap_blocks: Annotated[
        int,
        Setting(
            help="blocks of the denoiser that stay in main memory and are fetched when they compute: less device memory, the same image",
            show=lambda count: str(count) if count else None,
            valid=lambda count: count >= 0,
            expected="0 or more, at most as many as the denoiser has",
            pin=lambda *_: UNPINNED,
        ),
    ] = 0
    shared: Annotated[
        bool,
        Setting(
            label="forwards",
            show=lambda shared: "shared with other cells" if shared else None,
        ),
    ] = False  # whether its denoiser calls serve other images too: equal to one drawn alone within a tolerance, not to the bit
    # filled in by the resolver
    typed_prompt: Annotated[str | None, Setting(label="prompt as typed", pin=lambda *_: UNPINNED)] = None  # where `prompt` is upsampled
    guided: bool | None = None  # whether there is an unconditional pass, by the family's rule for this guidance and negative
    base_sha256: str | None = None
    base_config_sha256: str | None = None
    vae_sha256: str | None = None
    versions: Annotated[
        tuple[tuple[str, str], ...],
        Setting(show=_hide, load=lambda data: tuple(sorted(dict(data).items())), pin=lambda _, versions: dict(versions)),
    ] = ()  # of what computes the pixels: torch, diffusers, ..., the GPU's name

    def __post_init__(self) -> None:
        for name in _REAL:
            if (value := getattr(self, name)) is not None and type(value) is not float:
                object.__setattr__(self, name, float(value))

    @property
    def steering(self) -> tuple[ControlNet, ...]:
        """The ControlNets that change the image, in their order: a scale of 0 is none."""
        return tuple(one for one in self.controls if one.scale != 0.0)

    @property
    def final_size(self) -> tuple[int, int]:
        """(width, height) in pixels of the finished image: that of the second pass, where there is one."""
        one = self if self.hires is None else self.hires
        return (one.width or 0, one.height or 0)

    @property
    def enlarges_image(self) -> bool:
        """Whether a second pass begins with the decoded image of the first one."""
        return self.hires is not None and self.hires.of_image

    @property
    def any_guided(self) -> bool | None:
        """Whether a pass has an unconditional one, which reads the negative prompt."""
        return self.guided if self.hires is None else self.guided or self.hires.guided

    @property
    def images(self) -> dict[str, ImageFile]:
        """What a person calls each image that is needed: init, mask, control 1, ..."""
        given = {"init": self.init, "mask": self.mask}
        given |= {f"control {number}": one.picture for number, one in enumerate(self.controls, 1)}
        return {name: file for name, file in given.items() if file is not None}

    def contents(self) -> Iterator[tuple[str, str | None]]:
        """(what it is called, sha256) of every file that is drawn with."""
        for one in (one for one in SETTINGS.values() if one.file):
            value = getattr(self, one.field)
            if isinstance(value, tuple):
                yield from ((file.reference, file.sha256) for file in value)
            elif value is not None:
                yield one.label, getattr(self, f"{one.field}_sha256")
        yield from ((name, file.sha256) for name, file in self.images.items())

    @property
    def every_adapter(self) -> tuple[Adapter, ...]:
        """The adapters that the image was given, those of every cell behind its own."""
        return (*self.adapters, *self.always)

    @property
    def active(self) -> tuple[Adapter, ...]:
        """The adapters that change the image, in the order of their contents: a weight of 0 is the base alone."""
        return tuple(sorted((one for one in self.every_adapter if one.acts), key=lambda one: (one.sha256 or "", one.reference)))

    def pinned(self) -> dict[str, Any]:
        """What the pixels depend on, contents in place of names. Raises ValueError while something is still open."""
        return dict(self._pinned)

    @cached_property
    def _pinned(self) -> dict[str, Any]:
        if missing := [name for name, value in self._needed().items() if value is None]:
            raise ValueError(f"A Render has a key only when it is resolved; it lacks {', '.join(missing)}.")
        values = {name: one.pinned(self) for name, one in SETTINGS.items()}
        version = {"decoding": image_file.VERSION} if self.init or self.steering else {}  # of the pixels of its images
        return {"loop": LOOP} | version | {name: value for name, value in values.items() if value is not UNPINNED}

    def _needed(self) -> dict[str, Any]:
        """What a resolved Render has a value of."""
        needed = {name: getattr(self, name) for name in ("base_sha256", "steps", "guidance", "guided", "width", "height")}
        needed |= {f"sha256 of {one.reference}": one.sha256 for one in self.active}
        if self.base_config is not None:
            needed["base_config_sha256"] = self.base_config_sha256
        if self.vae is not None:
            needed["vae_sha256"] = self.vae_sha256
        needed |= {f"sha256 of {name}": file.sha256 for name, file in self.images.items()}
        needed |= {f"sha256 of {one.reference}": one.sha256 for one in self.controls}
        needed |= {f"sha256 of {one.reference}": one.sha256 and one.token for one in self.embeddings}
        if self.hires is not None:
            needed |= {f"hires.{name}": getattr(self.hires, name) for name in ("width", "height", "steps", "guided")}
        return needed if self.init is None else needed | {"strength": self.strength}

    def key(self) -> str:
        """sha256 of the canonical JSON of `pinned()`: equal for equal images, whatever the files are called."""
        return self._key

    @cached_property
    def _key(self) -> str:
        return _digest(self._pinned)

    def latents_key(self) -> str:
        """The same of the latents: equal for images that one denoising serves, whatever is done once they are decoded."""
        return self._latents_key

    @cached_property
    def _latents_key(self) -> str:
        return _digest({name: value for name, value in self._pinned.items() if name not in SETTINGS or SETTINGS[name].in_latents(self)})

    def to_json(self) -> dict[str, Any]:
        """Plain values with stable keys, in the order of the fields."""
        values = {name: list(value) if isinstance(value, tuple) else value for name, value in _plain(self).items()}
        for row in (*values["adapters"], *values["always"]):
            for name, default in (("text_weight", None), ("start", 0.0), ("end", 1.0), ("blocks", None)):  # which older images have not
                if row[name] == default:
                    del row[name]
        for row, one in zip(values["controls"], self.controls, strict=True):
            row["prepare"] = one.prepare and one.prepare.to_json()
        for name in ("shared", "hires"):
            if not values[name]:
                del values[name]  # which older images have not
        return values | {"versions": dict(self.versions)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Render":
        """The Render back from `to_json`; keys of a later version are left out. Raises ValueError, TypeError for values of other types."""
        given = {one.name: data[one.name] for one in fields(cls) if one.name in data}
        try:
            render = cls(**{name: SETTINGS[name].load(value) if name in SETTINGS else value for name, value in given.items()})
        except OverflowError as error:
            raise ValueError(str(error)) from error  # whole numbers that no float holds
        wrong = [one.name for one in fields(cls) if not is_of(getattr(render, one.name), one.type)]
        if wrong:
            raise ValueError(f"{', '.join(wrong)} of another type")
        return render


SETTINGS: dict[str, Setting] = settings_of(Render)  # by field
_REAL = tuple(one.field for one in SETTINGS.values() if one.scalar is float)


def _plain(value: Any) -> Any:
    """`dataclasses.asdict` of values that never change, of which it makes copies."""
    if is_dataclass(value):
        return {one.name: _plain(getattr(value, one.name)) for one in fields(value)}
    return tuple(_plain(one) for one in value) if isinstance(value, tuple) else value


def _digest(values: Mapping[str, Any]) -> str:
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return sha256(text.encode()).hexdigest()
