"""Resolves a Render: references found, defaults filled in, contents hashed.

Each file is read once, however many cells name it, and no weights are loaded. What follows from a base's content alone is asked of its
`answers`, which the home keeps: a plan of a known base imports neither torch nor diffusers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from infer.draw.controls import control_faults
from infer.draw.files import Adapter, ControlNet, Embedding
from infer.draw.input_images import InputImages
from infer.draw.inputs import image_faults, own_size, with_contents
from infer.draw.machine import made_with, pick_device
from infer.draw.named_adapters import with_networks
from infer.draw.render import SETTINGS, Render
from infer.hints.hints import Hints
from infer.hires.passes import second_pass
from infer.hires.setting import enlarged_size, hires_faults, schedule_fault, without_second_pass
from infer.prompt.dialect import A1111, dialect_faults
from infer.prompt.marks import network_fault
from infer.prompt.upsampling.upsample import Upsampler
from infer.remembered.answers import Answers, Plain
from infer.remembered.base import Base, BaseFacts, Skeletons
from registry.adapters.in_place import is_beside, layout_of, placed
from registry.adapters.reader import Adapter as AdapterFile
from registry.adapters.reader import read_adapter
from registry.errors import FamilyMismatch, Faults, LoomError, Refused, gathered
from registry.formats.peft_config import config_beside
from registry.merging.adapter_blocks import blocks_of, on_blocks
from registry.quantised.checks import compute_faults, device_faults, refuse_fused, stored_faults
from registry.quantised.skeleton import stored_titles
from registry.tensors.finite import number_faults

if TYPE_CHECKING:
    from registry.architectures.text.textual_inversion import TextualInversion
    from registry.parts import Parts
    from registry.record import Record
    from registry.store import Store


T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Found:
    """An adapter or a ControlNet that was found. `short_hash` is A1111's: 12 digits of the data section's sha256; "" without one."""

    record: Record
    path: Path
    sha256: str
    short_hash: str


def _base_key(render: Render) -> tuple[str, str, str]:
    """The settings a base is found and loaded by."""
    return render.base, render.base_config or "", render.prediction or ""


class Resolver:
    """Resolves Renders against a Store; remembers what it found, refusals too."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[tuple[str, ...], Any] = {}
        self._answers: dict[Path, Answers] = {}
        self._skeletons = Skeletons()
        self.images = InputImages(store.home / "pictures")
        self.hints = Hints(self.images, store.home / "hints", store.file_sha256)
        self.upsampler = Upsampler(store.home / "upsampled", store.file_sha256)

    def base(self, render: Render) -> Base:
        """The base that a Render names. Raises Refused with the reason."""
        return self._once(("base", *_base_key(render)), lambda: self._find_base(render))  # type: ignore[no-any-return]

    def adapter(self, reference: str) -> Found:
        """The adapter of that name. Raises Refused with the reason."""
        return self._once(("adapter", reference), lambda: self._find_file(reference, "adapter"))  # type: ignore[no-any-return]

    def lasting(self, reference: str) -> str:
        """The reference of a model as it is valid from any folder."""
        return self._once(("lasting", reference), lambda: self._store.lasting(reference))  # type: ignore[no-any-return]

    def is_beside(self, reference: str) -> bool:
        """Whether an adapter acts beside the weights, where each row of a forward may have its own. Raises Refused, BadFile."""
        from registry.adapters.in_place import is_beside
        from registry.adapters.reader import read_adapter

        return self._once(("beside", reference), lambda: is_beside(read_adapter(self.adapter(reference).path)))  # type: ignore[no-any-return]

    def controlnet(self, reference: str) -> Found:
        """The ControlNet of that name. Raises Refused with the reason."""
        return self._once(("controlnet", reference), lambda: self._find_file(reference, "controlnet"))  # type: ignore[no-any-return]

    def ask(self, base: Base, question: Sequence[Plain], find: Callable[[], T], *, keep: Callable[[T], bool] = lambda answer: True) -> T:
        """What the home knows of a base, or else `find` finds out, once: what it raises is remembered here, and not in the home."""
        what = ("asked", str(base.answers.path), json.dumps(question))
        return self._once(what, lambda: base.answers.ask(question, find, keep=keep))  # type: ignore[no-any-return]

    def keep_answers(self) -> None:
        """Keep in the home what was found out of bases, for the next plan."""
        for one in self._answers.values():
            one.save()

    def textual_inversions(self, render: Render) -> list[TextualInversion]:
        """The textual inversion embeddings of a Render for its base, in their order. Raises Refused with the reason."""
        return [self._textual_inversion(one, render) for one in render.embeddings]

    def _textual_inversion(self, one: Embedding, render: Render) -> TextualInversion:
        what = ("textual inversion", one.reference, one.token or "", render.base, render.base_config or "")
        return self._once(what, lambda: self._find_textual_inversion(one, render))  # type: ignore[no-any-return]

    def _find_textual_inversion(self, one: Embedding, render: Render) -> TextualInversion:
        from registry.architectures.text.textual_inversion import read_textual_inversion

        found, base = self.embedding(one.reference), self.base(render)
        if wrong := number_faults(found.path):
            raise Refused(f"The embedding {one.reference} cannot be drawn with: {' '.join(wrong)}")
        return read_textual_inversion(found.path, base.skeleton, token=one.token, name=found.record.name)

    def embedding(self, reference: str) -> Found:
        """The textual inversion embedding of that name. Raises Refused with the reason."""
        return self._once(("embedding", reference), lambda: self._find_file(reference, "embedding"))  # type: ignore[no-any-return]

    def vae(self, reference: str) -> Found:
        """The VAE of that name. Raises Refused with the reason."""
        return self._once(("vae", reference), lambda: self._find_file(reference, "vae"))  # type: ignore[no-any-return]

    def resolve(self, render: Render, *, upsample: bool = True) -> Render:
        """The Render with nothing left open, ready for `key()`. Raises Faults with everything that is wrong with it.

        Without `upsample` the prompt stays as typed, and no language model is loaded: to find the other faults first.
        """
        faults: list[str] = []
        render = gathered(faults, lambda: with_networks(render)) or render
        render = gathered(faults, lambda: self._upsampled(render, upsample)) or render
        base = gathered(faults, lambda: self.base(render))
        render = replace(
            render,
            adapters=self._adapters(render.adapters, render, base, faults),
            always=self._adapters(render.always, render, base, faults),
        )
        faults += _twice(render)
        dtypes = {"base_dtype": render.base_dtype, "text_encoder_dtype": render.text_encoder_dtype}
        faults += device_faults(dtypes, pick_device(render.device))
        faults += compute_faults(render.compute, render.base_dtype, pick_device(render.device))
        faults += self._stored_faults(base, dtypes, pick_device(render.device)) if base else []
        render = replace(render, embeddings=self._embeddings(render, base, faults))
        if render.vae is not None:
            render = replace(render, vae_sha256=gathered(faults, lambda: self._vae_sha256(str(render.vae), render, base)))
        render = with_contents(render, self.hints, faults)
        render = replace(render, controls=self._controls(render, base, faults))
        faults += _controls_twice(render)
        if base:
            render = self._with_defaults(render, base)
            faults += self._setting_faults(render, base)
            faults += _text_faults(render, base)
            render = self._with_second_pass(render, base, faults)
            gathered(faults, lambda: base.family.check_chunks(render.prompt_chunks))
            if (skip := render.clip_skip) is not None:
                gathered(faults, lambda: self.ask(base, ["skip", skip], lambda: _try_clip_skip(base, skip)))
            faults += image_faults(render, base.family, self.hints, cell=base.facts.latent_factor)
        if faults or base is None:
            raise Faults("This cannot be drawn:", faults)
        device = pick_device(render.device)
        made = made_with(device, adapters=frozenset(self._is_beside(one.reference) for one in render.active))
        return replace(
            render,
            prediction=base.prediction,
            base_sha256=base.sha256,
            base_config_sha256=base.config_sha256,
            device=device,
            versions=tuple(sorted((*made, *self._schedule_version(render, base), *self._configs_beside(render.active)))),
        )

    def _stored_faults(self, base: Base, dtypes: Mapping[str, str | None], device: str) -> list[str]:
        """What cannot go with a base that is quantised in its file."""
        question = ["stored", *dtypes.values(), device]
        return self.ask(base, question, lambda: _stored_faults_of(base, dtypes, device), keep=lambda faults: not faults)

    def _upsampled(self, render: Render, write: bool) -> Render:
        """The Render with the text that its prompt becomes."""
        how, dialect = render.upsample, render.prompt_dialect
        if how is None or render.typed_prompt is not None:
            return render
        self.upsampler.check(how, render.prompt, dialect)
        if not write:
            return render
        text = self.upsampler.text(how, render.prompt, dialect, device=pick_device(render.device))
        return replace(render, prompt=text, typed_prompt=render.prompt)

    def _with_defaults(self, render: Render, base: Base) -> Render:
        """The stock pipeline's defaults for what was not given; the size is that of the input images, where there are any."""
        size = own_size(render, self.hints) or (base.facts.resolution, base.facts.resolution)
        strength = render.strength
        if render.init is not None and strength is None:
            strength = base.family.strength if render.mask is None else base.family.inpaint_strength
        guidance = base.family.guidance if render.guidance is None else render.guidance
        return replace(
            render,
            steps=base.family.steps if render.steps is None else render.steps,
            guidance=guidance,
            guided=self.guided(base, guidance, negative=render.negative is not None),
            width=size[0] if render.width is None else render.width,
            height=size[1] if render.height is None else render.height,
            strength=strength,
            clip_skip=render.clip_skip or None,
        )

    def _with_second_pass(self, render: Render, base: Base, faults: list[str]) -> Render:
        """The Render with its second pass filled in; what is wrong with that goes to the faults, what the first pass has too does not."""
        if render.hires is None:
            return render
        hires, first = render.hires, (render.width or 0, render.height or 0)
        wrong = [*hires_faults(hires), *without_second_pass(render)]
        size = None if wrong else gathered(wrong, partial(enlarged_size, hires, first, multiple=base.family.size_multiple))
        if size is None:
            faults += wrong
            return render
        guidance = (render.guidance or 0.0) if hires.guidance is None else hires.guidance
        hires = replace(
            hires,
            width=size[0],
            height=size[1],
            steps=render.steps if hires.steps is None else hires.steps,
            guided=self.guided(base, guidance, negative=render.negative is not None),
        )
        second = second_pass(render, hires)
        own = [fault] if (fault := schedule_fault(hires, lambda steps: _steps_fit(second, base, steps))) else []
        second = replace(second, steps=1) if own else second  # that nobody typed are in no other fault
        own += [*self._setting_faults(second, base), *_text_faults(second, base)]
        own += image_faults(second, base.family, self.hints, cell=base.facts.latent_factor)
        known = {*self._setting_faults(render, base), *_text_faults(render, base)}
        known |= {*image_faults(render, base.family, self.hints, cell=base.facts.latent_factor)}
        faults += [f"The second pass (hires {hires}): {one}" for one in own if one not in known]
        return replace(render, hires=hires)

    def guided(self, base: Base, guidance: float, *, negative: bool) -> bool:
        """Whether the base makes an unconditional pass at this guidance, with or without a negative prompt."""
        return self.ask(base, ["guided", guidance, negative], lambda: base.family.guided(base.skeleton, guidance, negative=negative))

    def _setting_faults(self, render: Render, base: Base) -> list[str]:
        """Faults of the settings with their defaults, by the base's family; the prompts aside."""
        own = [fault for one in SETTINGS.values() if (fault := one.fault(render))]
        sizes = [render.width, render.height, render.vae_tiling, render.swap_blocks, render.device]
        steps = [render.steps, render.sampler, render.schedule, render.sigma_min, render.sigma_max, render.eta]
        return [*self.ask(base, ["settings", *sizes, *steps], lambda: _setting_faults(render, base), keep=lambda faults: not faults), *own]

    def _schedule_version(self, render: Render, base: Base) -> list[tuple[str, str]]:
        """The version of the sampler's noise schedule, where it was another one before: part of what computes the pixels."""
        from infer.draw.samplers import drawn_schedule

        samplers = {"noise schedule": render.sampler}
        if render.hires is not None and render.hires.sampler not in (None, render.sampler):
            samplers["noise schedule of hires"] = render.hires.sampler
        asked = {
            name: self.ask(base, ["schedule", sampler], lambda sampler=sampler: drawn_schedule(base.skeleton, sampler))  # type: ignore[misc]
            for name, sampler in samplers.items()
        }
        return [(name, version) for name, version in asked.items() if version is not None]

    def _adapters(self, given: Sequence[Adapter], render: Render, base: Base | None, faults: list[str]) -> tuple[Adapter, ...]:
        """The adapters with their contents; what is wrong with them, and with each on this base, goes to the faults."""
        adapters: list[Adapter] = []
        for one in given:
            found = gathered(faults, lambda one=one: self.adapter(one.reference))  # type: ignore[misc]
            if found and base:
                gathered(faults, lambda one=one: self._check_fit(one.reference, render))  # type: ignore[misc]
            if one.blocks and base:
                one = gathered(faults, lambda one=one: self._by_block(one, base)) or one  # type: ignore[misc]
            adapters.append(replace(one, sha256=found.sha256) if found else one)
        return tuple(adapters)

    def _by_block(self, one: Adapter, base: Base) -> Adapter:
        """The adapter with its block weights by the names of this base's blocks. Raises Refused."""
        names, attended = self.blocks(base)
        try:
            return replace(one, blocks=on_blocks(str(one.blocks), names, attended))
        except Refused as error:
            raise Refused(f"blocks of the adapter {one.reference}: {error}") from None

    def blocks(self, base: Base) -> tuple[list[str], list[str]]:
        """The blocks of a base's denoiser in their order, and those with attention."""
        found = self.ask(base, ["blocks"], lambda: _blocks_of(base))
        return found["names"], found["attended"]

    def _controls(self, render: Render, base: Base | None, faults: list[str]) -> tuple[ControlNet, ...]:
        """The ControlNets with their contents; what is wrong with them, and with each on this base, goes to the faults."""
        controls: list[ControlNet] = []
        for one in render.controls:
            modes: int | None = None
            found = gathered(faults, lambda one=one: self.controlnet(one.reference))  # type: ignore[misc]
            if found and base:
                modes = gathered(faults, lambda one=one: self._modes(one.reference, render))  # type: ignore[misc]
            faults += control_faults(one, modes=modes)
            prepare = one.prepare and gathered(faults, lambda one=one: self.hints.resolved(one.prepare))  # type: ignore[misc]
            controls.append(replace(one, sha256=found.sha256 if found else None, prepare=prepare or one.prepare))
        return tuple(controls)

    def _embeddings(self, render: Render, base: Base | None, faults: list[str]) -> tuple[Embedding, ...]:
        """The textual inversion embeddings with their spellings and contents; what is wrong with them goes to the faults."""
        embeddings: list[Embedding] = []
        for one in render.embeddings:
            found = gathered(faults, lambda one=one: self.embedding(one.reference))  # type: ignore[misc]
            token = gathered(faults, lambda one=one: self._token(one, render)) if found and base else None  # type: ignore[misc]
            embeddings.append(replace(one, sha256=found.sha256, token=token) if found and token else one)
        tokens = [one.token for one in embeddings if one.token is not None]
        twice = sorted({token for token in tokens if tokens.count(token) > 1})
        faults += [f"Two textual inversion embeddings are both spelt {token!r}. Give one of them another token." for token in twice]
        return tuple(embeddings)

    def _token(self, one: Embedding, render: Render) -> str:
        """The spelling of a textual inversion embedding, once it is checked against the base."""
        found = self.embedding(one.reference)
        question = ["token", found.sha256, one.token, found.record.name]
        return self.ask(self.base(render), question, lambda: self._textual_inversion(one, render).token)

    def _vae_sha256(self, reference: str, render: Render, base: Base | None) -> str:
        """The content of the VAE, once it is checked against the base's latent space."""
        found = self.vae(reference)
        if base is not None:
            self.ask(base, ["vae", found.sha256, str(found.path)], lambda: _checked_vae(found, base))
        return found.sha256

    def _modes(self, reference: str, render: Render) -> int:
        """How many hint kinds a union net has (0: it takes no mode), once it is checked against the base."""
        found = self.controlnet(reference)
        question = ["modes", found.sha256, str(found.path), found.record.family, found.record.variant]
        return self.ask(self.base(render), question, lambda: self._fitting(reference, render))

    def _fitting(self, reference: str, render: Render) -> int:
        import torch

        from infer.draw.control import control_of

        base, found = self.base(render), self.controlnet(reference)
        control = control_of(base.family)
        if found.record.family not in (None, base.family.name):
            raise FamilyMismatch(f"The ControlNet {reference} is one of {found.record.family}, but {render.base} is {base.family.name}.")
        if found.record.variant is not None and "controlnet" not in found.record.variant:
            raise Refused(f"{reference} is a {found.record.variant}, which is not drawn with here. Expected a ControlNet.")
        return control.modes(control.load(found.path, base.skeleton, dtype=torch.float32, device="meta"))

    def _once(self, what: tuple[str, ...], find: Callable[[], Any]) -> Any:
        if what not in self._known:
            try:
                self._known[what] = find()
            except LoomError as error:
                self._known[what] = error
        if isinstance(found := self._known[what], LoomError):
            raise found
        return found

    def _find_base(self, render: Render) -> Base:
        from registry.detect.loading import family_of, prediction_override

        record, base_config = self._store.find(render.base, expected="checkpoint"), render.base_config
        path = _path_of(record)
        prediction = render.prediction or prediction_override(record)
        family = family_of(record)
        load = partial(self._skeletons.get, _base_key(render), partial(_skeleton, record, base_config, prediction))
        if not self._store.is_hashed(record):
            load()  # a base that cannot be loaded is refused before its gigabytes are hashed
        sha256 = self._store.sha256(record)
        config_sha256 = self._store.sha256(self._store.find(base_config)) if base_config is not None else None
        answers = self._answers_on([str(path), sha256, config_sha256, prediction, family.name, record.variant])
        facts = answers.ask(["facts"], lambda: BaseFacts.of(family, load()))
        return Base(
            record=record,
            path=path,
            family=family,
            facts=BaseFacts(**facts),
            answers=answers,
            load=load,
            prediction=prediction,
            sha256=sha256,
            config_sha256=config_sha256,
        )

    def _answers_on(self, content: Sequence[str | None]) -> Answers:
        name = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]
        path = self._store.home / "plans" / f"{name}.json"
        if path not in self._answers:
            self._answers[path] = Answers(path)
        return self._answers[path]

    def _find_file(self, reference: str, kind: str) -> Found:
        found = self._store.find(reference, kind=kind)
        path = _path_of(found)
        record = self._store.hashed(found)
        data = record.hashes.tensors_sha256 or ""
        return Found(record=record, path=path, sha256=self._store.sha256(record), short_hash=data[:12])

    def _is_beside(self, reference: str) -> bool:
        """Whether peft draws the adapter beside the weights; else its change is in the weights."""
        return self._once(("beside", reference), lambda: is_beside(self._read(reference)))  # type: ignore[no-any-return]

    def _read(self, reference: str) -> AdapterFile:
        return self._once(("read", reference), lambda: read_adapter(self.adapter(reference).path))  # type: ignore[no-any-return]

    def _configs_beside(self, adapters: Sequence[Adapter]) -> Iterator[tuple[str, str]]:
        """(name, digest) of each adapter_config.json beside an adapter that acts: it holds the alpha, and the weights' hash does not."""
        for one in adapters:
            if (digest := self._config_beside(self.adapter(one.reference))) is not None:
                yield f"adapter_config of {(one.sha256 or '')[:12]}", digest[:12]

    def _config_beside(self, adapter: Found) -> str | None:
        """The digest of the adapter_config.json beside an adapter, read once; None where there is none."""
        return self._once(("config beside", str(adapter.path)), lambda: _config_digest(adapter.path))  # type: ignore[no-any-return]

    def _check_fit(self, reference: str, render: Render) -> None:
        base, adapter = self.base(render), self.adapter(reference)
        of_adapter = [adapter.sha256, str(adapter.path), self._config_beside(adapter), adapter.record.family, adapter.record.variant]
        question = ["fit, finite", *of_adapter, render.base_dtype, render.text_encoder_dtype]
        self.ask(base, question, lambda: self._fit(reference, render))

    def _fit(self, reference: str, render: Render) -> bool:
        from registry.detect.compatibility import fits

        base, adapter = self.base(render), self.adapter(reference)
        mine, its = adapter.record.variant, base.record.variant
        if adapter.record.family == base.family.name and mine and its and not base.family.same_build(mine, its):
            raise Refused(
                f"The adapter {reference} was made for {base.family.title} {mine}, but the base {render.base} is {base.family.title} "
                f"{its}. Use it on a {mine} base, or an adapter made for {its}."
            )
        fit = fits(adapter.path, base.path)
        if not fit.ok:
            raise Refused(f"The adapter {reference} does not fit the base {render.base}{_other_family(adapter, base)}: {fit.explain()}")
        if wrong := number_faults(self._read(reference).path):
            raise Refused(f"The adapter {reference} cannot be drawn with: {' '.join(wrong)}")
        if not self._is_beside(reference):
            changed = placed(self._read(reference), base.family, base.skeleton).components
            for component in sorted(changed):
                given = render.base_dtype if component == base.family.denoiser else render.text_encoder_dtype
                refuse_fused(reference, given or ", ".join(stored_titles(_component(base, component), rounded=True)) or None)
        return True


def _stored_faults_of(base: Base, dtypes: Mapping[str, str | None], device: str) -> list[str]:
    modules = {base.family.denoiser: base.skeleton.denoiser, **base.skeleton.text_encoders}
    given = {name: dtypes["base_dtype" if name == base.family.denoiser else "text_encoder_dtype"] for name in modules}
    return [fault for name, module in modules.items() for fault in stored_faults(name, module, given[name], device)]


def _blocks_of(base: Base) -> dict[str, list[str]]:
    found = blocks_of(layout_of(base.family, base.skeleton))
    return {"names": list(found.names), "attended": list(found.attended)}


def _component(base: Base, name: str) -> Any:
    return base.skeleton.denoiser if name == base.family.denoiser else base.skeleton.text_encoders[name]


def _other_family(adapter: Found, base: Base) -> str:
    """' (it is for sdxl, the base is sd1)' where the adapter is known to be another family's."""
    family = adapter.record.family
    if family is None or family == base.family.name:
        return ""
    return f" (it is for {' '.join(filter(None, (family, adapter.record.variant)))}, the base is {base.family.name})"


def _skeleton(record: Record, base_config: str | None, prediction: str | None) -> Parts:
    """The Parts of a base without weights."""
    import torch

    from registry.detect.loading import load_base

    return load_base(record, dtype=torch.float32, device="meta", base_config=base_config, prediction=prediction)[1]


def _config_digest(adapter: Path) -> str | None:
    config = config_beside(adapter)
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest() if config else None


def _checked_vae(found: Found, base: Base) -> bool:
    from registry.architectures.vae.override import load_vae

    load_vae(found.path, base.skeleton, device="meta")
    return True


def _path_of(record: Record) -> Path:
    if record.path is None or not Path(record.path).exists():
        raise Refused(
            f"{record.name} is registered, but {record.path or 'its file'} is not there. Put it back, or scan the folder it moved to."
        )
    return Path(record.path)


def _twice(render: Render) -> list[str]:
    """Files that an image is given more than once, in its own adapters or beside those of every cell."""
    by_content: dict[str, list[Adapter]] = {}
    for one in render.every_adapter:
        if one.sha256 is not None:
            by_content.setdefault(one.sha256, []).append(one)
    faults = []
    for group in (group for group in by_content.values() if len(group) > 1):
        names = [one.reference for one in group]
        always = [one.reference for one in group if one in render.always]
        own = [one.reference for one in group if one in render.adapters]
        if always and own:
            faults.append(
                f"The adapter {always[0]} is in `always`, and a cell has it as its own too ({own[0]}). Leave it out of one of them."
            )
        else:
            faults.append(f"The adapters {' and '.join(names)} are one file. Give it once, with the sum of the weights.")
    return faults


def _controls_twice(render: Render) -> list[str]:
    """ControlNets that an image has twice with one hint in the same steps: they would act as one with the sum of their scales."""
    by_content: dict[object, list[ControlNet]] = {}
    for one in render.controls:
        if one.sha256 is not None and one.picture.sha256 is not None:  # else a fault of its own
            by_content.setdefault((one.sha256, one.picture.sha256, one.start, one.end, one.mode, one.prepare), []).append(one)
    return [
        f"The ControlNets {' and '.join(one.reference for one in group)} are one net with one hint, {group[0].picture}. Give it once, with"
        " the sum of the scales."
        for group in by_content.values()
        if len(group) > 1
    ]


def _steps_fit(render: Render, base: Base, steps: int) -> bool:
    """Whether a pass of the Render's sampler can have so many steps."""
    from infer.draw.samplers import check_steps

    prediction, config = base.skeleton.prediction, base.skeleton.scheduler_config
    faults = [fault] if (fault := SETTINGS["steps"].fault(replace(render, steps=steps))) else []
    gathered(faults, lambda: check_steps(render.sampler, steps, prediction=prediction, config=config))
    return not faults


def _setting_faults(render: Render, base: Base) -> list[str]:
    """What the samplers, the schedules and the base's build refuse."""
    from infer.draw.denoise import check_size
    from infer.draw.samplers import check_sampler, check_steps
    from infer.sampling.checks import check_ends, check_eta, check_schedule
    from infer.sampling.scheduled import chosen_schedule
    from infer.sampling.swapped import check_swapped
    from registry.architectures.vae.tiles import check_tile

    assert render.width is not None and render.height is not None
    faults: list[str] = []
    width, height = render.width, render.height
    gathered(faults, lambda: check_size(base.family, base.skeleton, width=width, height=height))
    prediction, config = base.skeleton.prediction, base.skeleton.scheduler_config
    gathered(faults, lambda: check_steps(render.sampler, render.steps or 0, prediction=prediction, config=config))
    gathered(faults, lambda: check_sampler(render.sampler, prediction=prediction, config=config))
    if render.vae_tiling is not None:
        gathered(faults, partial(check_tile, base.skeleton, render.vae_tiling))
    gathered(faults, lambda: check_swapped(render, base.family, base.skeleton))
    gathered(faults, lambda: check_eta(base.skeleton, render.sampler, render.eta))
    chosen = gathered(faults, lambda: chosen_schedule(render.schedule, render.sigma_min, render.sigma_max))
    gathered(faults, lambda: check_ends(base.skeleton, chosen))
    gathered(faults, lambda: check_schedule(base.skeleton, render.sampler, chosen))
    return faults


def _text_faults(render: Render, base: Base) -> list[str]:
    """What is wrong with the prompts for the base's family."""
    faults: list[str] = []
    if render.negative is not None and not base.facts.classifier_free:
        faults.append(f"negative is given, but {base.family.title} has its guidance embedded and no unconditional pass. Leave it out.")
    texts = {"prompt": render.prompt, "negative": render.negative or ""}
    steps, chunks = render.steps or 1, render.prompt_chunks
    faults += dialect_faults(base.family, render.prompt_dialect, texts, steps=steps, guided=bool(render.guided), chunks=chunks)
    for name, text in texts.items():
        if (render.prompt_dialect not in A1111 or name == "negative") and (fault := network_fault(name, text)):
            faults.append(fault)
        if "\0" in text or not _is_unicode(text):
            faults.append(f"{name} {text!r} holds bytes that are no text. Expected UTF-8 without NUL.")
    return faults


def _try_clip_skip(base: Base, clip_skip: int) -> bool:
    """True where the family can skip so many layers of its text encoders, tried on the empty model. Raises Refused."""
    import torch

    with torch.no_grad():
        base.family.encode_prompts(base.skeleton, [""], clip_skip=clip_skip)
    return True


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # a lone surrogate: what Python makes of bytes on the command line that are no UTF-8
        return False
    return True
