"""Class images that the base itself draws before it learns, where there are no regularisation images (data.prior_images).

They are in the home's cache under a key of all that they depend on: base, prompt, size, sampling settings. Image n has seed n. So another
run with the same settings, one with more of them, and a resume use the same bytes.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infer.draw.render import Render
from infer.draw.resolve import Resolver
from registry.detect.few_step import few_step_of
from registry.errors import Faults
from registry.files.locks import held
from registry.formats.atomic_file import atomic_file
from registry.formats.hashing import value_sha256
from registry.formats.image_file import Size
from registry.home import home_dir
from registry.progress import Report, Tick
from train.data.dataset import Sample, read_images
from train.data.subsets import PRIOR
from train.settings.sets import Subset

if TYPE_CHECKING:
    from registry.store import Store
    from train.config import Precision, TrainConfig
    from train.plan.base import Base


@dataclass(frozen=True)
class DrawnImages:
    """The images that the base draws: image n by `render` with seed n."""

    render: Render  # resolved
    count: int
    weight: float

    @cached_property
    def folder(self) -> Path:
        """Where they are: whatever the device and the versions of libraries, so that a resume elsewhere finds them by the same name."""
        return home_dir() / "cache" / "prior" / replace(self.render, seed=0, device="cpu", versions=()).key()[:32]

    def file(self, number: int) -> Path:
        return self.folder / f"{number:05d}.png"

    @property
    def missing(self) -> list[int]:
        """The numbers of those that are not drawn yet."""
        return [number for number in range(self.count) if not self.file(number).is_file()]

    def samples(self) -> tuple[Sample, ...]:
        """The images, those that are not drawn yet without their bytes. Raises Faults for files that are none."""
        missing = set(self.missing)
        subset = Subset(path=str(self.folder), name=PRIOR, prior=True, weight=self.weight)
        there = [number for number in range(self.count) if number not in missing]
        entries = [(self.file(number).name, self.file(number).read_bytes, (self.render.prompt,)) for number in there]
        found = read_images(entries, subset)
        if found.faults:
            raise Faults(f"{self.folder} has damaged class images. Remove these files, and they are drawn again:", found.faults)
        samples = dict(zip(there, found.samples, strict=True)) | {number: self._planned(number) for number in missing}
        return tuple(samples[number] for number in range(self.count))

    def _planned(self, number: int) -> Sample:
        """The image before it is drawn, with a hash of what it is drawn by in place of its own."""

        def nothing() -> bytes:
            raise AssertionError("a class image is drawn before it is read")

        return Sample(
            name=f"{PRIOR}/{self.file(number).name}",
            sha256=value_sha256(["not drawn yet", self.folder.name, number]),
            size=Size(int(self.render.width or 0), int(self.render.height or 0)),
            caption=self.render.prompt,
            read=nothing,
            set=PRIOR,
            weight=self.weight,
            prior=True,
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values, stable keys."""
        render = self.render
        return {
            "prompt": render.prompt,
            "images": self.count,
            "missing": len(self.missing),
            "steps": render.steps,
            "guidance": render.guidance,
            "width": render.width,
            "height": render.height,
            "folder": str(self.folder),
        }


def drawn_images(config: TrainConfig, base: Base, side: int, precision: Precision, store: Store) -> DrawnImages | None:
    """What the base is to draw; None: nothing. Raises Faults where it cannot draw it.

    A few-step build is drawn in its own steps and guidance, others in those of the stock pipeline.
    """
    if config.data.prior_images is None:
        return None
    few = few_step_of(base.family.few_steps, base.record)
    render = Render(
        base=config.base,
        base_config=config.base_config,
        prediction=config.prediction,
        prompt=str(config.data.prior_prompt),
        steps=few.kind.steps if few else None,
        guidance=few.kind.guidance if few else None,
        width=side,
        height=side,
        clip_skip=config.clip_skip,
        prompt_chunks=config.prompt_chunks,
        precision=precision.name,
        base_dtype=config.base_dtype,
        text_encoder_dtype=config.text_encoder_dtype,
        swap_blocks=config.swap_blocks,
        device=config.device,
    )
    try:
        resolved = Resolver(store).resolve(render)
    except Faults as error:
        raise Faults(f"data.prior_images={config.data.prior_images}: {base.name} cannot draw the class images:", error.faults) from error
    return DrawnImages(resolved, config.data.prior_images, config.data.prior_weight)


def keeping(config: TrainConfig) -> contextlib.AbstractContextManager[None]:
    """While it lasts, `loraloom registry gc` leaves the drawn images of a run."""
    return contextlib.nullcontext() if config.data.prior_images is None else held(home_dir() / "cache", shared=True)


def draw(drawn: DrawnImages, store: Store, *, report: Report) -> None:
    """Draw what is missing: of several processes one draws, the others wait. Each image is whole or not there."""
    from infer.draw.session import Counts, Session, free_memory

    with held(drawn.folder):
        missing = drawn.missing
        if not missing:
            return
        drawn.folder.mkdir(parents=True, exist_ok=True)
        renders = [replace(drawn.render, seed=number) for number in missing]
        session = Session(Resolver(store), renders, Counts(), report=report)
        try:
            for index, number in enumerate(missing):
                data, _ = session.draw(index)
                with atomic_file(drawn.file(number)) as file:
                    file.write(data)
                report(Tick("draw class images", index + 1, len(missing)))
        finally:
            session.close()
            free_memory()
