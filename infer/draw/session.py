"""A loaded base and its state: adapters attached and detached, prompts encoded once, images as labelled PNG bytes."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from infer.draw.adapters import attach, changes_text, detach, set_weights
from infer.draw.control import Steering, is_within
from infer.draw.denoise import Counter, Walk, advance, begin
from infer.draw.draw import Prompts, calls_of, draw_image, draw_images, draw_latents, job_of, most_decoded
from infer.draw.files import Adapter, Embedding
from infer.draw.inputs import hint_pixels, pasted, start_of
from infer.draw.render import Render
from infer.draw.resolve import Resolver
from infer.draw.start import Start
from infer.hires.passes import Pass, enlarged_start, passes_of
from infer.output.model_names import model_names
from infer.output.png import encode_png
from infer.remembered.base import Base
from infer.sampling.swapped import swapped
from infer.sharing.adapter_rows import RowAdapters
from infer.sharing.alone import kind_of
from infer.sharing.uses import Uses
from infer.stages.latents import LatentsError, LatentsStore
from infer.stages.loading import load_decoder, load_whole
from registry.architectures.text.textual_inversion import add_tokens, remove_tokens, with_tokens
from registry.architectures.vae.override import load_vae
from registry.budget.freed import give_back
from registry.budget.held import Held
from registry.errors import WriteFailed
from registry.family import Family
from registry.parts import Parts
from registry.progress import Report, Tick, silent
from registry.quantised.errors import weight_error

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from torch import Tensor

LOG = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Counts:
    """The work of a run, and notes on it for a person."""

    model_loads: int = 0
    encodes: int = 0
    forwards: int = 0
    latents_reused: int = 0  # images decoded from latents of an earlier run
    notes: list[str] = field(default_factory=list)

    def note(self, note: str) -> None:
        """Keep a note once."""
        if note not in self.notes:
            self.notes.append(note)
            LOG.info(note)


class Session:
    """A loaded base with the adapters its Renders need: attached at first use, detached after the last."""

    def __init__(
        self,
        resolver: Resolver,
        renders: Sequence[Render],
        counts: Counts,
        *,
        report: Report = silent,
        latents: LatentsStore | None = None,
        peak: int | None = None,
    ) -> None:
        """`latents`: where those of earlier runs are, and those of this one are kept; None: every image is denoised.

        `peak`: bytes of this process that drawing on a CPU is held to; None: freed memory is kept for the next tensors.
        """
        self._held = None if peak is None or renders[0].device != "cpu" else Held(peak)
        self._resolver = resolver
        self._renders = renders
        self._counts = counts
        self._base: Base = resolver.base(renders[0])
        self._attached: dict[str, bool] = {}  # name -> whether it changes the text encoders
        self._refused: dict[str, Exception] = {}
        self._left = Uses(renders)
        self._vaes: dict[str, Any] = {}  # by content
        self._drawn: dict[str, Tensor] = {}  # latents by their key, while a later Render needs them
        self._decoded: dict[int, Image] = {}  # that `finish` has not taken yet
        self._kept = latents
        self._nets: dict[str, Any] = {}  # ControlNets, by content
        self._report = report
        self.family: Family
        self.parts: Parts
        self._decodes_alone = False  # whether only the VAE has weights, because all latents are here
        if latents is None or not all(latents.has(render.latents_key()) for render in renders) or not self._load_decoder():
            self._load()

    def _load(self) -> None:
        """Load the base, with nothing attached."""
        from registry.quantised.products import set_compute

        first, name = self._renders[0], self._base.record.name
        self._report(Tick("load", 0, 1, note=name))
        self.family, self.parts = load_whole(self._base.record, first)
        if first.compute is not None:
            set_compute(self.parts.denoiser, first.compute)
        self._begin()
        self._swap = swapped(self.family, self.parts, first.swap_blocks, first.device) if first.swap_blocks else None
        self._counts.model_loads += 1
        for component, module in {self.family.denoiser: self.parts.denoiser, **self.parts.text_encoders}.items():
            if (error := weight_error(module)) is not None:
                self._counts.note(error.sentence(component))
        self._report(Tick("load", 1, 1, note=name))

    def _load_decoder(self) -> bool:
        """Load what decodes, and nothing of the denoiser and the text encoders; False where that cannot be loaded by itself."""
        self._report(Tick("load", 0, 1, note=self._base.record.name))
        found = load_decoder(self._base.record, self._renders)
        if found is not None:
            self.family, self.parts = found
            self._begin()
            self._swap, self._decodes_alone = None, True
            self._report(Tick("load", 1, 1, note=self._base.record.name))
        return found is not None

    def _need_denoiser(self) -> None:
        """Load the base where kept latents turned out to be damaged, or were deleted."""
        if self._decodes_alone:
            self._decodes_alone = False
            self._load()

    def _hold(self, module: Any) -> Any:
        """The module, whose blocks look at the memory where it is held to a plan."""
        if self._held is not None:
            self._held.hold(module)
        return module

    def _begin(self) -> None:
        self._hold(self.parts.vae)
        self._hold(self.parts.denoiser)
        self._rows = RowAdapters(self.parts.denoiser)
        for warning in self.parts.warnings:
            self._counts.note(warning)
        self._active_adapters: dict[str, tuple[float, float | None]] | None = {}  # name -> weights as set in the model; None: not known
        self._off: frozenset[str] = frozenset()  # adapters that the denoiser is without at this step
        self._active_embeddings: tuple[Embedding, ...] = ()
        self._own_embedding_tables: dict[str, Any] = {}  # the original input embeddings of the text encoders that were extended
        self._own_tokenizers = self.parts.tokenizers
        self._prompts = Prompts(self.family, self.parts, on_note=self._counts.note)

    @property
    def _device(self) -> torch.device:
        """Where latents are decoded."""
        import torch

        return torch.device(self._renders[0].device) if self._decodes_alone else self.parts.device

    def draw(self, index: int, *, watch: Callable[[Any], None] | None = None) -> tuple[bytes, int]:
        """PNG bytes of the Render at `index`, and its denoiser calls. `watch` gets its fresh scheduler; it is then denoised in any case."""
        counter = Counter()
        try:
            with self._counted(counter):
                return self._encoded(index, self._latents(index, counter, watch)), counter.forwards
        finally:
            self.release(index)

    def begin(self, index: int) -> Walk:
        """The denoising of the Render at `index`, to share forwards by `advance`. Its adapters are in its own rows alone."""
        import torch

        self._need_denoiser()
        render = self._renders[index]
        with self._counted(Counter()), torch.no_grad():
            self._set_adapters(render, in_rows=True)
            parts, start = self._parts(render), start_of(render, self._resolver.images)
            job = job_of(
                self.family,
                parts,
                render,
                self._prompts,
                start=start,
                adapters=self._weights_by_step(render),
            )
            return begin(self.family, parts, index, job)

    def advance(self, walks: Sequence[Walk]) -> None:
        """One denoiser call for all, and one sampler step each. What fails leaves them where nothing can go on."""
        import torch

        counter = Counter()
        if not self._rows.installed:
            self._rows.install()
        with self._counted(counter), torch.no_grad():
            advance(self.family, self.parts, walks, counter, adapters=self._rows)

    def decode_together(self, walks: Sequence[Walk]) -> None:
        """Decode denoisings that are done in few calls, for `finish`; what fails is decoded alone there, and has its own error.

        A call has no more pixels than one large image.
        """
        import torch

        alike: dict[Hashable, list[Walk]] = {}
        for walk in walks:
            render = self._renders[walk.index]
            if render.vae_tiling is None:
                alike.setdefault((render.vae_sha256, walk.latents.shape), []).append(walk)
        for group in alike.values():
            first = group[0].job
            most = most_decoded(first.width, first.height, images=len(group))
            for start in range(0, len(group), most) if most > 1 else ():
                some = group[start : start + most]
                try:
                    latents = torch.cat([walk.latents for walk in some]).to(self._device)
                    images = draw_images(self.family, self._parts(self._renders[some[0].index]), latents)
                    for walk, image in zip(some, images, strict=True):
                        self._decoded[walk.index] = pasted(image, self._renders[walk.index], self._resolver.images)
                except Exception as error:
                    LOG.debug("images are decoded alone", exc_info=error)

    def finish(self, walk: Walk) -> bytes:
        """PNG bytes of a denoising that is done."""
        try:
            key = self._renders[walk.index].latents_key()
            self._keep(key, walk.latents)
            if self._left.latents[key] > 1:
                self._drawn[key] = walk.latents
            return self._encoded(walk.index, walk.latents)
        finally:
            self.release(walk.index)

    def is_denoised(self, index: int) -> bool:
        """Whether the latents of the Render at `index` are here, from one that shares them or from an earlier run."""
        return self._recalled(self._renders[index].latents_key())

    def kind(self, index: int) -> Hashable:
        """Renders with an equal one can share forwards."""
        return kind_of(self._renders[index], self._resolver)

    def release(self, index: int) -> None:
        """Detach the adapters, drop the ControlNets, the VAE and latents that no other Render still needs: memory stays flat."""
        render, left = self._renders[index], self._left
        left.release(index)
        if not left.vaes[render.vae_sha256]:
            self._vaes.pop(str(render.vae_sha256), None)
        for key in (one.key for one in passes_of(render) if not left.latents[one.key]):
            self._drawn.pop(key, None)
        for one in render.steering:
            if not left.nets[one.sha256]:
                self._nets.pop(str(one.sha256), None)
        done = [_name(one) for one in render.active if not left.adapters[one.sha256, one.blocks]]
        if done := [name for name in done if name in self._attached]:
            self._remove_textual_inversions()
            self._active_adapters = None
            self._rows.remove()
            detach(self.parts, done)
            for name in done:
                del self._attached[name]

    def clear(self) -> None:
        """Detach all adapters and embeddings: the weights and tokenizers are the base's own. What needs them attaches them again."""
        self._remove_textual_inversions()
        self._active_adapters = None
        self._rows.remove()
        detach(self.parts, list(self._attached))
        self._attached.clear()

    def close(self) -> None:
        """Drop the model; `free_memory` returns its memory before the next one is loaded."""
        del self.family, self.parts, self._prompts, self._nets, self._vaes, self._drawn, self._own_embedding_tables, self._rows

    @contextmanager
    def _counted(self, counter: Counter) -> Iterator[None]:
        """The forwards of `counter`, and what is encoded meanwhile, are the run's."""
        encodes = self._prompts.encodes
        try:
            yield
        finally:
            self._counts.forwards += counter.forwards
            self._counts.encodes += self._prompts.encodes - encodes

    def _encoded(self, index: int, latents: Tensor) -> bytes:
        render = self._renders[index]
        image = self._decoded.pop(index, None)
        return encode_png(self.decoded(index, latents) if image is None else image, render, model_names(self._resolver, render))

    def _latents(self, index: int, counter: Counter, watch: Callable[[Any], None] | None = None) -> Tensor:
        """The Render's latents, kept while another Render needs them (it differs in what acts after the latents)."""
        render = self._renders[index]
        *earlier, last = passes_of(render)
        if watch is not None or not self._recalled(last.key):
            self._need_denoiser()
            for one in earlier:
                if not self._recalled(one.key):
                    self._denoise(one, start_of(one.render, self._resolver.images), counter)
            start = self._enlarged(render, earlier[0]) if earlier else start_of(render, self._resolver.images)
            self._denoise(last, start, counter, before=earlier[0].render if earlier else None, watch=watch)
        return self._drawn[last.key]

    def _denoise(
        self,
        one: Pass,
        start: Start | None,
        counter: Counter,
        *,
        before: Render | None = None,
        watch: Callable[[Any], None] | None = None,
    ) -> None:
        """Draw the latents of a pass, drawn behind the pass `before`, and keep them."""
        render = one.render
        if self._rows.installed:
            self._rows.remove()
            self._active_adapters = None
        self._set_adapters(render)
        self._drawn[one.key] = draw_latents(
            self.family,
            self._parts(render),
            render,
            self._prompts,
            start=start,
            before=calls_of(self.parts, before) if before is not None else 0,
            steerings=self._steerings(render),
            counter=counter,
            before_step=self._switch(render),
            watch=watch,
        )
        if self._off:
            self._active_adapters, self._off = None, frozenset()
        self._keep(one.key, self._drawn[one.key])

    def _enlarged(self, render: Render, first: Pass) -> Start:
        """Where the second pass starts: the first one's latents, or its image, enlarged."""
        assert render.hires is not None
        latents, parts = self._drawn[first.key], self._parts(render)
        if not render.hires.of_image:
            return enlarged_start(render.hires, parts, latents=latents)
        image = draw_image(self.family, parts, latents.to(parts.device), tile=render.vae_tiling)
        return enlarged_start(render.hires, parts, image=image)

    def _recalled(self, key: str) -> bool:
        """Whether latents are here; those of an earlier run are read."""
        if key in self._drawn or self._kept is None:
            return key in self._drawn
        try:
            found = self._kept.get(key, self._device)
        except LatentsError as error:
            self._counts.note(f"Kept latents were damaged, and are drawn again: {error}.")
            return False
        if found is not None:
            self._drawn[key] = found
            self._counts.latents_reused += 1
        return found is not None

    def _keep(self, key: str, latents: Tensor) -> None:
        """Keep latents for later runs, as far as the disk takes them."""
        if self._kept is None:
            return
        try:
            self._kept.put(key, latents)
        except WriteFailed as error:
            LOG.debug("latents are not kept: %s", error)  # the image goes to the same disk, and has the error
            self._counts.note(f"{self._kept.folder} takes no file, so that latents are not kept: another VAE will have to denoise again.")
            self._kept = None

    def decoded(self, index: int, latents: Tensor) -> Image:
        """The image of latents (1, C, H, W) as the Render at `index` is decoded: its VAE, its tiles, what its mask keeps."""
        render = self._renders[index]
        image = draw_image(self.family, self._parts(render), latents.to(self._device), tile=render.vae_tiling)
        return pasted(image, render, self._resolver.images)

    def _parts(self, render: Render) -> Parts:
        """The loaded Parts, with the VAE that the Render names, if any."""
        if render.vae is None:
            return self.parts
        key = str(render.vae_sha256)
        if key not in self._vaes:
            self._vaes[key] = self._hold(load_vae(self._resolver.vae(render.vae).path, self.parts, device=self._device))
        return replace(self.parts, vae=self._vaes[key])

    def _set_adapters(self, render: Render, *, in_rows: bool = False) -> None:
        """Activate exactly the Render's adapters at its weights, in the order of their sha256.

        `in_rows`: those that act beside the denoiser's weights alone are only attached: each row of a shared forward has its own.
        """
        if in_rows and any(_name(one) not in self._attached for one in render.active):
            self._remove_textual_inversions()
            self._active_adapters = None
            for one in render.active:
                self._attach(one)
            self._rows.remove()  # of layers that have other adapters now
        active_adapters = {_name(one): (one.weight, one.text_weight) for one in render.active if not in_rows or self._is_set(_name(one))}
        if active_adapters != self._active_adapters:
            if self._swap is not None:
                self._swap.wait()  # weights in main memory may change
            self._remove_textual_inversions()  # an adapter may change the very table that they lengthen
            self._active_adapters = None
            for one in render.active:
                self._attach(one)
            text_weights = {name: apart for name, (_, apart) in active_adapters.items() if apart is not None}
            self._rows.remove()  # peft has them from here on
            set_weights(self.parts, {name: weight for name, (weight, _) in active_adapters.items()}, text_weights=text_weights)
            self._active_adapters = active_adapters
        self._set_textual_inversions(render)
        tokens = tuple((one.sha256, one.token) for one in render.embeddings)
        self._prompts.set_state(tokens, *((name, weight) for name, weight in active_adapters.items() if self._attached[name]))

    def _is_set(self, name: str) -> bool:
        """Whether an adapter acts elsewhere than beside the denoiser's weights, where each row may have its own."""
        return self._attached[name] or (self.parts.changes is not None and name in self.parts.changes.names)

    def _weights_by_step(self, render: Render) -> Callable[[int, int], Mapping[str, float]]:
        """The weights of the adapters beside the denoiser's own at each step of an image."""
        in_weights = self.parts.changes.names if self.parts.changes is not None else ()
        beside = [one for one in render.active if _name(one) not in in_weights]
        return lambda step, steps: {_name(one): one.weight for one in beside if is_within(step, steps, one.start, one.end)}

    def _switch(self, render: Render) -> Callable[[int, int], None] | None:
        """What takes adapters off the denoiser, and puts them on, between the steps of an image; None where none has a range."""
        if not any(one.is_ranged for one in render.active):
            return None

        def before_step(step: int, steps: int) -> None:
            off = frozenset(_name(one) for one in render.active if not is_within(step, steps, one.start, one.end))
            if off == self._off:
                return
            weights = {_name(one): one.weight for one in render.active}
            text = {_name(one): one.weight if one.text_weight is None else one.text_weight for one in render.active}
            set_weights(self.parts, {name: 0.0 if name in off else weight for name, weight in weights.items()}, text_weights=text)
            self._off = off

        return before_step

    def _set_textual_inversions(self, render: Render) -> None:
        """Activate exactly the Render's textual inversion embeddings, in the tokenizers and the text encoders."""
        if render.embeddings == self._active_embeddings:
            return
        self._remove_textual_inversions()
        textual_inversions = self._resolver.textual_inversions(render)
        self._own_embedding_tables = add_tokens(self.parts, textual_inversions)
        self._active_embeddings = render.embeddings
        self.parts.tokenizers = with_tokens(replace(self.parts, tokenizers=self._own_tokenizers), textual_inversions).tokenizers

    def _remove_textual_inversions(self) -> None:
        remove_tokens(self.parts, self._own_embedding_tables)
        self._active_embeddings, self._own_embedding_tables = (), {}
        self.parts.tokenizers = self._own_tokenizers

    def _attach(self, one: Adapter) -> None:
        name = _name(one)
        if name in self._refused:
            raise self._refused[name]
        if name in self._attached:
            return
        try:
            path = self._resolver.adapter(one.reference).path
            attach(self.family, self.parts, {name: path}, blocks={name: one.blocks} if one.blocks else None)
        except Exception as error:
            self._refused[name] = error
            raise
        self._attached[name] = changes_text(self.parts, name)

    def _steerings(self, render: Render) -> list[Steering]:
        """The Render's ControlNets with their hints, each net loaded at its first use."""
        from infer.draw.control import control_of

        for one in render.steering:
            key = str(one.sha256)
            if key not in self._nets:
                path, dtype = self._resolver.controlnet(one.reference).path, self.parts.dtype
                self._report(Tick("load", 0, 1, note=one.reference))
                self._nets[key] = self._hold(control_of(self.family).load(path, self.parts, dtype=dtype, device=self.parts.device))
                self._report(Tick("load", 1, 1, note=one.reference))
        pixels = {one: hint_pixels(render, one, self._resolver.hints) for one in render.steering}
        for one in (one for one, hint in pixels.items() if not bool(hint.any())):
            self._counts.note(f"The hint for {one.reference} of {one.picture} is black all over: the ControlNet sees nothing in it.")
        return [
            Steering(
                net=self._nets[str(one.sha256)],
                pixels=pixels[one],
                scale=one.scale,
                start=one.start,
                end=one.end,
                mode=one.mode,
            )
            for one in render.steering
        ]


def _name(one: Adapter) -> str:
    """An adapter's name inside the model, of its own for each of its block weights: peft takes no dots."""
    blocks = f"b{sha256(one.blocks.encode()).hexdigest()[:16]}" if one.blocks else ""
    return f"a{(one.sha256 or '')[:16]}{blocks}"


def free_memory() -> None:
    """Return the memory of closed sessions: modules are in reference cycles, and glibc and CUDA keep what was freed."""
    import torch

    gc.collect()
    give_back()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
