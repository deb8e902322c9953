"""`loraloom explain`: everything that led to one image, measured on the image's own settings."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from infer.draw.files import spell_adapters
from infer.draw.render import Render
from infer.draw.resolve import Resolver
from infer.draw.session import Counts, Session
from infer.explain.blocks import BlockChange, changes_by_block
from infer.explain.changes import ADAPTER, Difference, Variant, difference, name_of, plain, variants_of
from infer.explain.filmstrip import Filmstrip, Frame
from infer.explain.similarity import Similarity, similarities
from infer.explain.tokens import Tokens, tokens_of
from infer.output.gallery import spell_settings
from infer.output.lossy import through_encoder
from infer.output.png import read_png
from infer.output.reproduce import compare, with_found_files
from infer.sharing.alone import TOLERANCE
from registry.architectures.text.textual_inversion import with_tokens
from registry.errors import JobFailed, LoomError, Refused
from registry.printable import as_lines
from registry.progress import Report, Tick, silent

if TYPE_CHECKING:
    from PIL.Image import Image

    from registry.store import Store

MOST_FRAMES = 64


@dataclass(frozen=True, kw_only=True)
class ExplainPlan:
    """An image that can be explained: its resolved Render, and the images that are drawn beside it."""

    path: Path
    render: Render
    variants: tuple[Variant, ...]
    why_not: dict[str, str]
    against: tuple[str, ...]
    frames: int
    resolver: Resolver

    def to_json(self) -> dict[str, Any]:
        """Plain values with stable keys."""
        return {
            "image": str(self.path),
            "key": self.render.key(),
            "draws": ["the image", *(one.name for one in self.variants)],
            "steps": self.render.steps,
            "frames": self.frames,
            "adapters": [name_of(one, self.resolver) for one in self.render.active],
            "against": list(self.against),
            "not_drawn": self.why_not,
        }

    def to_text(self) -> str:
        """The plan for a person."""
        lines = [f"{self.path}: {1 + len(self.variants)} images of {self.render.steps} steps are drawn"]
        lines += [f"  {name}" for name in ["the image, and its frames", *(one.name for one in self.variants)]]
        return as_lines([*lines, *(f"note: {why}" for why in dict.fromkeys(self.why_not.values()))])


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A frame with its image: what the denoiser predicts at a call, or at the end the image itself (`frame` None)."""

    frame: Frame | None
    image: Image


@dataclass(frozen=True, kw_only=True)
class Change:
    """An image with something left out, and how it differs."""

    variant: Variant
    image: Image
    difference: Difference


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """One image's way."""

    plan: ExplainPlan
    settings: dict[str, str]
    image: Image
    largest_difference: int  # of 255, to the pixels of the file
    tokens: tuple[Tokens, ...]
    similar: tuple[Similarity, ...]
    frames: tuple[Shown, ...]
    changes: tuple[Change, ...]
    blocks: dict[str, list[BlockChange]]  # by the adapter's reference
    forwards: int
    seconds: float
    notes: tuple[str, ...]


def plan_explanation(path: Path, store: Store, *, against: Sequence[str] = (), frames: int = 8) -> ExplainPlan:
    """What explaining the image at `path` takes. Raises BadFile when it carries no settings, Faults when its models are not found."""
    if not 2 <= frames <= MOST_FRAMES:
        raise Refused(f"frames is {frames}. Expected 2 to {MOST_FRAMES}: the first prediction and the image among them.")
    if any(not text.strip() for text in against):
        raise Refused("A prompt to compare with is empty. Give its text.")
    resolver = Resolver(store)
    try:
        render = resolver.resolve(with_found_files(read_png(path).render, store))
        variants, why = variants_of(render, resolver)
    finally:
        resolver.keep_answers()
    return ExplainPlan(
        path=path,
        render=render,
        variants=tuple(variants),
        why_not=why,
        against=tuple(dict.fromkeys(against)),
        frames=frames,
        resolver=resolver,
    )


def explain(plan: ExplainPlan, *, report: Report = silent) -> Explanation:
    """Draw and measure. Raises JobFailed when the image cannot be drawn."""
    began, counts = monotonic(), Counts()
    renders = [plan.render, *(one.render for one in plan.variants)]
    session = Session(plan.resolver, renders, counts, report=report)  # without kept latents: every step is wanted
    try:
        found = _explained(plan, session, counts, report)
    except LoomError:
        raise
    except Exception as error:
        raise JobFailed(f"The image could not be explained: {type(error).__name__}: {error}") from error
    finally:
        session.close()
    return replace(found, forwards=counts.forwards, seconds=round(monotonic() - began, 3), notes=(*found.notes, *counts.notes))


def _explained(plan: ExplainPlan, session: Session, counts: Counts, report: Report) -> Explanation:
    render, family = plan.render, session.family
    named = with_tokens(session.parts, plan.resolver.textual_inversions(render))
    tokens = tokens_of(render, family, named)
    others = [*([render.negative] if render.guided and render.negative else []), *plan.against]
    similar = similarities(session.parts, render.prompt, list(dict.fromkeys(others))) if others and render.prompt.strip() else []
    blocks = {}
    for one in render.active:  # before any is attached: the base's own weights

        def on_weight(done: int, total: int, name: str = name_of(one, plan.resolver)) -> None:
            report(Tick("measure", done, total, note=name))

        path = plan.resolver.adapter(one.reference).path
        blocks[one.reference] = changes_by_block(one, path, family, session.parts, on_weight=on_weight)
    strip = Filmstrip(prediction=session.parts.prediction, count=plan.frames - 1)
    total = 1 + len(plan.variants)
    image = _image(session.draw(0, watch=strip.watch)[0])
    report(Tick("draw", 1, total))
    frames = [Shown(frame=frame, image=_decoded(session, frame)) for frame in strip.frames]
    changes = []
    for index, variant in enumerate(plan.variants, 1):
        other = _image(session.draw(index)[0])
        changes.append(Change(variant=variant, image=other, difference=difference(image, other)))
        report(Tick("draw", index + 1, total))
    there, again, encoding = _image(plan.path.read_bytes()), image, read_png(plan.path).encoding
    if encoding is not None:  # a lossy image is compared behind its own encoder
        again = through_encoder(image, format=encoding.format, quality=encoding.quality)
    apart = compare(again, there)[0]
    return Explanation(
        plan=plan,
        settings=_settings(render, plan.resolver),
        image=image,
        largest_difference=apart,
        tokens=tuple(tokens),
        similar=tuple(similar),
        frames=(*frames, Shown(frame=None, image=image)),
        changes=tuple(changes),
        blocks=blocks,
        forwards=0,
        seconds=0.0,
        notes=tuple(_notes(render, apart, resized=None if there.size == image.size else there.size)),
    )


def _settings(render: Render, resolver: Resolver) -> dict[str, str]:
    """The settings for a person, adapters by their names."""
    base = resolver.base(render)
    named = [replace(one, reference=name_of(one, resolver)) for one in render.every_adapter]
    shown = spell_settings(render, base=base.record.name, scheduler=base.facts.scheduler_class)
    return shown | ({"adapters": spell_adapters(tuple(named))} if named else {})


def _decoded(session: Session, frame: Frame) -> Image:
    """A frame's image; numbers that are none (at the first step of a model that has no signal there) become grey."""
    import torch

    clean = torch.nan_to_num(frame.clean, nan=0.0, posinf=0.0, neginf=0.0)
    return session.decoded(0, clean.to(session.parts.dtype if not session.family.fp32_latents else torch.float32))


def _image(png: bytes) -> Image:
    from PIL import Image

    with Image.open(io.BytesIO(png)) as opened:
        return opened.convert("RGB")


def _notes(render: Render, apart: int, *, resized: tuple[int, int] | None) -> list[str]:
    if resized is not None:
        size = f"{resized[0]}x{resized[1]}"
        return [f"The file has {size} pixels, the image {render.width}x{render.height}: it was cropped or scaled, and is drawn whole here."]
    tolerance = TOLERANCE[render.precision] if render.shared else 0
    if apart <= tolerance:
        return []
    return [f"The image is not drawn again to the bit here: the largest difference is {apart} of 255. `loraloom reproduce` says why."]


def document(found: Explanation, images: dict[str, str]) -> dict[str, Any]:
    """explain.json: plain values with stable keys. `images` has the file of each image by its name."""
    plan = found.plan

    def change(name: str, one: Change) -> dict[str, Any]:
        return {"name": one.variant.name, **plain(one.difference), "image": images[name], "map": images[f"{name}-map"]}

    named = {f"{one.variant.what}-{number}": one for number, one in enumerate(found.changes)}
    rows = {
        what: [change(name, one) for name, one in named.items() if one.variant.what == what] for what in ("negative", "guidance", ADAPTER)
    }
    return {
        "image": str(plan.path),
        "key": plan.render.key(),
        "render": plan.render.to_json(),
        "largest_difference": found.largest_difference,
        "tokens": [one.to_json() for one in found.tokens],
        "similarity": [one.to_json() for one in found.similar],
        "frames": [_frame(one, images[f"frame-{number}"]) for number, one in enumerate(found.frames)],
        "negative": rows["negative"][0] if rows["negative"] else None,
        "guidance": rows["guidance"][0] if rows["guidance"] else None,
        "adapters": [
            {
                "adapter": name_of(one, plan.resolver),
                "sha256": one.sha256,
                "weight": one.weight,
                **row,
                "blocks": [block.to_json() for block in found.blocks[one.reference]],
            }
            for one, row in zip(plan.render.active, rows[ADAPTER], strict=True)
        ],
        "not_drawn": plan.why_not,
        "forwards": found.forwards,
        "seconds": found.seconds,
        "notes": list(found.notes),
    }


def _frame(one: Shown, file: str) -> dict[str, Any]:
    if one.frame is None:
        return {"call": None, "timestep": None, "noise": 0.0, "image": file}
    return {"call": one.frame.call, "calls": one.frame.calls, "timestep": one.frame.timestep, "noise": one.frame.noise, "image": file}
