"""A grid that starts from an image: its settings, as far as the command line gives no others, and what could not be taken over."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infer.draw.files import Adapter
from infer.draw.render import SETTINGS
from infer.draw.setting import Setting
from infer.draw.values import member_name, number
from infer.grid.config import GridConfig, axis_settings
from infer.hires.of_metadata import Sampling, hires_of
from infer.metadata.fields import unread
from infer.metadata.models import FoundModel, find_model
from infer.metadata.reader import read_metadata
from infer.metadata.result import ImageMetadata, LoraName, SecondPass, Unread
from infer.metadata.samplers import sampler_settings
from infer.prompt.dialect import PLAIN, pieces_of
from registry.errors import Faults, LoomError, Refused
from registry.home import expanded
from registry.printable import shell_line
from registry.references import split_joined
from registry.settings import spelled

if TYPE_CHECKING:
    from registry.family import Family
    from registry.store import Store

COMFY = ("ComfyUI", "SwarmUI", "Fooocus")  # whose samplers are ComfyUI's
A1111_LIKE = ("A1111", "Forge")  # whose clip skip acts where the last layer is read, and nowhere else
LEFT_OUT = ("from_image", "dry_run", "name")  # of the command that draws the same without the image


@dataclass(frozen=True, kw_only=True)
class Start:
    """What was taken over from an image."""

    path: Path
    metadata: ImageMetadata
    settings: Mapping[str, Any]  # name -> value, of what the image set
    models: tuple[FoundModel, ...]
    unread: tuple[Unread, ...]
    absent: tuple[str, ...]
    remarks: tuple[str, ...]
    command: str

    def to_json(self) -> dict[str, Any]:
        """Plain values with stable keys."""
        return {
            "image": str(self.path),
            "tool": self.metadata.tool,
            "version": self.metadata.version,
            "source": self.metadata.source,
            "settings": dict(self.settings),
            "models": [one.to_json() for one in self.models],
            "unread": [{"name": one.name, "value": one.value, "why": one.why} for one in self.unread],
            "command": self.command,
        }

    def lines(self) -> list[str]:
        """For a person."""
        tool, version = self.metadata.tool, self.metadata.version or ""
        made = version if version.startswith(tool) else f"{tool} {version}".strip()
        names = ", ".join(self.settings) or "nothing"
        models = [f"  {one.what} {one.named}: {one.reference} (by {one.by})" for one in self.models if one.reference is not None]
        return [f"from {self.path.name}, by {made} ({self.metadata.source}): {names}", *models, f"  {self.command}"]

    def notes(self) -> list[str]:
        """What a person must know: what is not drawn as it was, by name and value."""
        return [*self.remarks, *self.missing()]

    def missing(self) -> list[str]:
        """What was not taken over, by name and value: it may be why a plan is refused."""
        return [*self.absent, *(f"Not taken over from {self.path.name}: {one}." for one in self.unread)]


def start_from(config: GridConfig, given: Collection[str] | None, store: Store) -> tuple[GridConfig, Start]:
    """The config with the settings of its `from_image`, and what was taken over.

    `given` names the settings that the image does not replace (None: those that differ from their defaults). Raises BadFile for an image
    that says nothing, Faults with every model and sampler that is not here.
    """
    path = _image_path(str(config.from_image))
    taken = _Taking(config, _given(config, given), read_metadata(path), store)
    if taken.faults:
        raise Faults(f"A grid cannot start from {path.name}:", taken.faults)
    filled = replace(config, **taken.settings)
    start = Start(
        path=path,
        metadata=taken.metadata,
        settings={name: member_name(value) for name, value in taken.settings.items()},
        models=tuple(taken.models),
        unread=tuple(dict.fromkeys(taken.unread)),
        absent=tuple(taken.absent),
        remarks=tuple(taken.remarks),
        command=command_of(filled),
    )
    return filled, start


def _image_path(given: str) -> Path:
    path = expanded(given).absolute()
    if not given.strip() or path.is_dir():
        raise Refused(
            f"from={given} {'is a folder' if given.strip() else 'is empty'}. Expected the path of one image, such as from=IMAGE.png."
        )
    return path


def command_of(config: GridConfig) -> str:
    """The line for a shell that gives these settings from any folder: it goes to this one first, for paths and patterns of them."""
    plain = {one.name: one.default for one in fields(GridConfig)} | {one.name: one.default for one in SETTINGS.values()}
    values = {one.name: getattr(config, one.name) for one in fields(config) if one.name not in (*LEFT_OUT, "axes")}
    changed = {name: member_name(value) for name, value in values.items() if member_name(value) != member_name(plain.get(name))}
    changed |= {f"axes.{name}": value for name, value in axis_settings(config).items()}
    words = shell_line("loraloom", "grid", *(f"{name}={spelled(value)}" for name, value in changed.items()))
    return f"{shell_line('cd', Path.cwd())} && {words}"


def _given(config: GridConfig, given: Collection[str] | None) -> frozenset[str]:
    """The settings that the image does not replace, by name; one whose axis is varied is among them."""
    varied = axis_settings(config)
    named = {one.name for one in SETTINGS.values() if one.help and _axis(one) in varied}
    if given is None:
        given = [one.name for one in SETTINGS.values() if one.help and getattr(config, one.name) != one.default]
    return frozenset({*given, *named, *(["seed"] if "seed" in varied else [])})


def _axis(one: Setting) -> str:
    """The name of its axis, where it has one: `strength`, `init` and `mask` are axes that are not declared at their settings."""
    return one.axis.name or one.name if one.axis is not None else one.name


@dataclass
class _Taking:
    """One taking over: what it sets, and what it cannot."""

    config: GridConfig
    given: frozenset[str]
    metadata: ImageMetadata
    store: Store
    settings: dict[str, Any] = field(default_factory=dict)
    models: list[FoundModel] = field(default_factory=list)
    unread: list[Unread] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.unread += self.metadata.unread
        self._base()
        if self.metadata.render is not None:
            self._from_render()
            return
        self._texts()
        self._sampling()
        self._size()
        self._networks()
        self._vae()
        self._passes()
        self._controls()
        self._noise()
        self._absent()

    # --- parts

    def put(self, name: str, value: Any) -> None:
        """Set what is stated and not given."""
        if value is not None and name not in self.given:
            self.settings[name] = value

    def leave(self, name: str, value: Any, why: str) -> None:
        """Report what is not taken over."""
        self.unread.append(unread(name, value, why))

    def find(self, what: str, named: Any) -> FoundModel:
        """The registered model; a fault where there is none."""
        found = find_model(what, named, self.store)
        self.models.append(found)
        if found.fault is not None:
            self.faults.append(found.fault)
        return found

    def _base(self) -> None:
        if "base" in self.given:
            return
        if self.metadata.model is None:
            self.faults.append("The image names no model. Give base=NAME.")
        elif (found := self.find("model", self.metadata.model)).reference is not None:
            self.settings["base"] = found.reference

    @property
    def family(self) -> Family | None:
        """The family of the base that is drawn with; None where it is not known, or several are."""
        from registry.detect.loading import family_of

        try:
            found = next((one.record for one in self.models if one.what == "model" and one.record is not None), None)
            return (
                family_of(found if found is not None else self.store.find(self.config.base, expected="checkpoint"))
                if not self._varies_base
                else None
            )
        except LoomError:
            return None  # the plan says what is wrong with it

    @property
    def _varies_base(self) -> bool:
        return self.config.axes.base is not None

    @property
    def is_flow(self) -> bool:
        return self.family is not None and self.family.predictions == ("flow",)

    def _texts(self) -> None:
        found, family = self.metadata, self.family
        texts = {"prompt": found.prompt, "negative": found.negative}
        dialect = found.dialect
        if family is not None and dialect != PLAIN and family.encode_weighted is None:
            for name, text in texts.items():
                bare = _without_weights(text, dialect) if text else text
                if bare != text:
                    self.leave(name, text, f"a prompt of {family.title} has no weights: they are left out")
                texts[name] = bare
            dialect = PLAIN
        if dialect != PLAIN and "prompt_dialect" not in self.given:
            self.settings["prompt_dialect"] = SETTINGS["prompt_dialect"].type[dialect]
        self.put("prompt", texts["prompt"])
        unguided = found.guidance is not None and found.guidance <= 1 and "guidance" not in self.given
        if texts["negative"] and unguided:
            self.leave("negative prompt", texts["negative"], f"at a CFG scale of {number(found.guidance or 0)} nothing reads it")
        else:
            self.put("negative", texts["negative"])
        self._clip_skip(family)

    def _clip_skip(self, family: Family | None) -> None:
        """A1111 counts from 1, the last layer, and skips on bases alone that read the last one by themselves."""
        layer = self.metadata.clip_skip
        own = 1 if family is None else family.clip_layer
        if layer is None or layer == own or "clip_skip" in self.given:
            return
        if self.metadata.tool in A1111_LIKE and own > 1:
            self.leave("Clip skip", layer, f"it has no effect on {family.title if family else 'this base'} in {self.metadata.tool}")
        elif layer < own or (family is not None and family.one_chunk is not None):
            self.leave("Clip skip", layer, f"the prompts of {family.title if family else 'this base'} are not read from that layer")
        else:
            self.put("clip_skip", layer - own)

    def _sampling(self) -> None:
        found = self.metadata
        self.put("seed", found.seed)
        self.put("steps", found.steps)
        distilled = found.distilled is not None and (self.family is None or self.is_flow)
        self.put("guidance", found.distilled if distilled else found.guidance)
        if distilled and found.guidance not in (None, 1.0):
            self.leave("CFG scale", found.guidance, "a base with embedded guidance is drawn in one pass here")
        self.put("rescale", found.rescale)
        if found.sampler is None or "sampler" in self.given:
            if found.schedule not in (None, "Automatic") and "schedule_type" not in self.given:
                self.leave("schedule", found.schedule, "another sampler is given; give schedule_type too")
            return
        try:
            sampler, schedule = sampler_settings(found.sampler, found.schedule, flow=self.is_flow, comfy=found.tool in COMFY)
        except Refused as error:
            self.faults.append(
                f"The image was drawn with {found.sampler} {found.schedule or ''}".rstrip() + f": {error}. Give sampler=NAME."
            )
            return
        self.put("sampler", sampler)
        self.put("schedule_type", schedule)
        for name in ("sigma_min", "sigma_max"):
            if (value := getattr(found, name)) is not None:
                self.put(name, value) if schedule else self.leave(name, value, "the sampler keeps its own noise levels")
        if found.eta:
            self.put("eta", found.eta) if sampler == "ddim" else self.leave("Eta", found.eta, f"{sampler} takes none")

    def _size(self) -> None:
        found = self.metadata
        if found.width is not None and found.height is not None:
            self.put("size", f"{found.width}x{found.height}")

    def _networks(self) -> None:
        found = self.metadata
        if "adapters" in self.given:
            self.unread += found.unread_loras
        else:
            self.faults += [
                f"The image's LoRA {one.value}: {one.why}. Or give adapters=..., or adapters=none." for one in found.unread_loras
            ]
            adapters = [_adapter(self.find("LoRA", one), one) for one in found.loras]
            self.put("adapters", adapters_setting(adapters) if adapters else None)
        if "adapters" in self.given and found.loras:
            self.leave("LoRAs", ", ".join(map(str, found.loras)), "other adapters are given; always=NAME:1 keeps one in every cell")
        if "embeddings" not in self.given:
            embeddings = [(self.find("embedding", one), one) for one in found.embeddings]
            rows = [{"embedding": model.reference, "token": one.name} for model, one in embeddings]
            self.put("embeddings", rows or None)

    def _vae(self) -> None:
        if self.metadata.vae is not None and "vae" not in self.given:
            self.put("vae", self.find("VAE", self.metadata.vae).reference)

    def _passes(self) -> None:
        """The second pass, and the image that was redrawn."""
        found = self.metadata
        for name, value in found.hires.items():
            self.leave(name, value, "a second pass of this kind is not drawn here: the first one is")
        if found.second is not None and "hires" not in self.given:
            self._second_pass(found.second)
        if found.strength is None:
            return
        if self.config.init is not None or self.config.axes.init is not None:
            self.put("strength", found.strength)
        else:
            what = found.init or "an image"
            self.leave("Denoising strength", found.strength, f"{what} was redrawn and is not in the metadata: give init=FILE")

    def _second_pass(self, second: SecondPass) -> None:
        found, family = self.metadata, self.family
        size = (found.width, found.height) if found.width and found.height else None
        try:
            hires = hires_of(
                second,
                size if "size" not in self.given else None,
                multiple=8 if family is None else family.size_multiple,
                sampling=Sampling(sampler=found.sampler, schedule=found.schedule, flow=self.is_flow, comfy=found.tool in COMFY),
            )
        except Refused as error:
            stated = {name: value for name, value in asdict(second).items() if value is not None}
            self.leave("second pass", stated, f"the first pass alone is drawn: {error} Or give hires={{...}}")
            return
        self.put("hires", hires.to_record())

    def _controls(self) -> None:
        if "controls" in self.given:
            return
        for one in self.metadata.controls:
            module = f", {one.module}" if one.module not in (None, "none") else ""
            value = f"{one} at {number(one.scale)}, {number(one.start)} to {number(one.end)} of the steps{module}"
            self.leave("ControlNet", value, "its image is not in the metadata: give controls=NET:IMAGE:SCALE")

    def _noise(self) -> None:
        noise, tool = self.metadata.noise, self.metadata.tool
        if noise is not None and noise.upper() != "CPU" and "seed" in self.settings:
            source = "" if noise.upper() == "GPU" else f" ({noise})"
            self.remarks.append(
                f"{tool} drew the noise of this seed on the GPU{source}, and here it is drawn on the CPU: the same settings, another"
                " start, another image. With RNG set to CPU, A1111 has the noise that is drawn here."
            )

    def _absent(self) -> None:
        """What a program left to its defaults is not guessed."""
        found = self.metadata
        stated: dict[str, object] = {
            "prompt": found.prompt,
            "seed": found.seed,
            "steps": found.steps,
            "sampler": found.sampler,
            "size": found.width,
        }
        stated["guidance"] = found.guidance if found.distilled is None else found.distilled
        absent = [name for name, value in stated.items() if value is None and name not in self.given]
        if absent:
            self.absent.append(f"The image says no {', '.join(absent)} that can be read: as the defaults here are.")

    def _from_render(self) -> None:
        """All settings of an image that was drawn here; its files are found by their sha256."""
        render = self.metadata.render
        assert render is not None
        for one in (one for one in SETTINGS.values() if one.help and one.name not in self.given):
            value = one.value(render)
            if one.name == "base" or value == one.value(type(render)(base=render.base)):
                continue
            if (kept := self._plain(one, value)) is not None:
                self.settings[one.name] = kept
        self.settings.pop("upsample", None)  # the prompt is the text that came of it

    def _plain(self, one: Setting, value: Any) -> Any:
        """A setting of a Render as a config has it."""
        spell = PLAIN_VALUES.get(one.name)
        if spell is not None:
            return spell(self, value)
        if isinstance(one.scalar, type) and issubclass(one.scalar, Enum):
            return one.scalar[value]
        return value


def _without_weights(text: str, dialect: str) -> str:
    try:
        return "".join(piece.text for piece in pieces_of(text, dialect))
    except Refused:
        return text


def _adapter(model: FoundModel, one: LoraName) -> Adapter:
    return Adapter(
        reference=model.reference or "?",
        weight=one.weight,
        text_weight=one.text_weight,
        start=one.start,
        end=one.end,
        blocks=one.blocks,
    )


def adapters_setting(adapters: list[Adapter]) -> Any:
    """The adapters as a setting: "ink:0.6+hat" where that says all, else a list of records."""
    text = "+".join(map(str, adapters))
    plain = all(one.text_weight is None and not one.is_ranged and one.blocks is None and ":" not in one.reference for one in adapters)
    if plain and len(split_joined(text)) == len(adapters):
        return text
    rows = [
        {
            "adapter": one.reference,
            "weight": one.weight,
            "text_weight": one.text_weight,
            "start": one.start,
            "end": one.end,
            "blocks": one.blocks,
        }
        for one in adapters
    ]
    idle = {"text_weight": None, "start": 0.0, "end": 1.0, "blocks": None}
    return [{name: value for name, value in row.items() if name not in idle or value != idle[name]} for row in rows]


def _render_adapters(taking: _Taking, adapters: tuple[Adapter, ...]) -> Any:
    names = {one.digits: one for one in taking.metadata.loras}
    found = [replace(one, reference=taking.find("LoRA", names[one.sha256]).reference or "?", sha256=None) for one in adapters]
    return adapters_setting(found) if found else None


def _render_controls(taking: _Taking, controls: tuple[Any, ...]) -> Any:
    names = {one.digits: one for one in taking.metadata.controls}
    return [
        {
            "net": taking.find("ControlNet", names[one.sha256]).reference,
            "image": one.picture.path,
            "scale": one.scale,
            "start": one.start,
            "end": one.end,
            **({"mode": one.mode} if one.mode is not None else {}),
            **({"prepare": replace(one.prepare, sha256=None).to_json()} if one.prepare is not None else {}),
        }
        for one in controls
    ]


def _render_embeddings(taking: _Taking, embeddings: tuple[Any, ...]) -> Any:
    names = {one.digits: one for one in taking.metadata.embeddings}
    return [{"embedding": taking.find("embedding", names[one.sha256]).reference, "token": one.token} for one in embeddings]


def _render_vae(taking: _Taking, _reference: str) -> Any:
    assert taking.metadata.vae is not None
    return taking.find("VAE", taking.metadata.vae).reference


def _render_base_config(taking: _Taking, reference: str) -> Any:
    return reference if expanded(reference).exists() else None


# the settings of a Render whose value a config spells in another way; None: it is left out
PLAIN_VALUES: dict[str, Callable[[_Taking, Any], Any]] = {
    "adapters": _render_adapters,
    "always": _render_adapters,
    "controls": _render_controls,
    "embeddings": _render_embeddings,
    "vae": _render_vae,
    "base_config": _render_base_config,
    "size": lambda _, size: f"{size[0]}x{size[1]}",
    "hires": lambda _, hires: hires.to_record(),
    "init": lambda _, file: file.path,
    "mask": lambda _, file: file.path,
    "device": lambda *_: None,  # of this machine
}
