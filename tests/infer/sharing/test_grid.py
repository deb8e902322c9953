"""Cells that share forwards: the images drawn alone within the tolerance, in any order, whatever fails or stops between them."""

from __future__ import annotations

import random
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from infer.draw.files import Adapter, ImageFile
from infer.draw.render import Render
from infer.draw.resolve import Resolver
from infer.draw.session import Session
from infer.grid.cells import CellStore
from infer.grid.config import Axes, GridConfig
from infer.grid.engine import CellResult, Counts, render_cells
from infer.grid.job import plan, run
from infer.output.png import read_png
from infer.output.reproduce import reproduce
from infer.sharing.alone import TOLERANCE
from registry.progress import Tick
from registry.store import Store
from tests.infer.conftest import Shelf
from tests.infer.draw.kinds import write_kind
from tests.infer.draw.test_kinds import shapes
from tests.patience import PATIENCE
from tests.tiny import tiny_adapter, tiny_parts

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # of diffusers' schedulers under numpy 2


def ink(weight: float = 1.0, *, end: float = 1.0) -> Adapter:
    return Adapter(reference="ink", weight=weight, end=end)


HAT, WORDS = Adapter(reference="hat", weight=0.3), Adapter(reference="words", weight=0.7)
MIXED: tuple[dict[str, Any], ...] = (
    {},
    {"adapters": (ink(),), "sampler": "euler_a", "steps": 3},
    {"adapters": (ink(0.5), HAT), "prompt": "a dog", "guidance": 1.0},
    {"adapters": (WORDS,), "sampler": "dpmpp_2m", "rescale": 0.7},
    {"adapters": (WORDS, ink(-0.5)), "negative": "a dog", "seed": 2},
    {"adapters": (ink(end=0.5),), "steps": 4, "sampler": "heun"},
    {"sampler": "ddim", "eta": 1.0, "steps": 3},
    {"width": 48, "height": 32},
    {"prompt": "a [red:blue:0.5] cat AND a dog :0.5", "prompt_dialect": "a1111"},
)


def cells_of(shelf: Shelf, *changes: dict[str, Any], shared: bool = True) -> list[Render]:
    given: dict[str, Any] = {"base": "tiny", "prompt": "a cat", "steps": 2, "sampler": "euler", "guidance": 4.0, "seed": 1}
    resolver = Resolver(shelf.store)
    return [replace(resolver.resolve(Render(**given | change)), shared=shared) for change in changes]


def drawn(shelf: Shelf, renders: list[Render], folder: Path, **options: Any) -> list[CellResult]:
    return render_cells(renders, shelf.store, CellStore(folder), **options)


def apart(one: CellResult, other: CellResult) -> int:
    """The largest difference of 255."""
    assert one.path is not None and other.path is not None, (one.error, other.error)
    with Image.open(one.path) as first, Image.open(other.path) as second:
        return int(abs(numpy.asarray(first, dtype=int) - numpy.asarray(second, dtype=int)).max())


@pytest.mark.slow
def test_images_of_one_seed_share_their_first_unconditional_row_and_the_decoder(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """3 prompts x 2 weights: of the 12 rows of the first step 2 without prompt are computed, one a weight."""
    from infer.draw import session
    from infer.draw.denoise import Counter

    module: Any = session
    rows: list[int] = []
    decoded: list[int] = []
    own, images = module.advance, module.draw_images

    def advance(family: Any, parts: Any, walks: Any, counter: Counter, **options: Any) -> None:
        own(family, parts, walks, counter, **options)
        rows.append(counter.rows)

    def draw_images(family: Any, parts: Any, latents: torch.Tensor) -> Any:
        decoded.append(len(latents))
        return images(family, parts, latents)

    monkeypatch.setattr(module, "advance", advance)
    monkeypatch.setattr(module, "draw_images", draw_images)
    changes = [{"prompt": prompt, "adapters": (ink(weight),)} for weight in (0.5, 1.0) for prompt in ("a cat", "a dog", "a red fox")]
    together = drawn(shelf, cells_of(shelf, *changes), tmp_path / "shared", batch_size=6)
    assert rows == [6 + 2, 12] and decoded == [6]
    alone = drawn(shelf, cells_of(shelf, *changes, shared=False), tmp_path / "alone")
    assert max(apart(one, other) for one, other in zip(alone, together, strict=True)) <= TOLERANCE["fp32"]


@pytest.mark.slow
def test_cells_that_differ_in_everything_share_forwards_in_any_order(shelf: Shelf, tmp_path: Path) -> None:
    write_kind("lokr", shapes(tiny_parts("sd1")[1]), tmp_path / "lokr.safetensors")
    shelf.store.add(tmp_path / "lokr.safetensors", name="lokr")
    in_weights = ({"adapters": (Adapter(reference="lokr"), ink()), "seed": seed} for seed in (1, 2))
    for name, colour in {"photo": (200, 0, 0), "mask": (0, 0, 0)}.items():
        image = Image.new("RGB", (32, 32), colour)
        image.paste((255, 255, 255), (0, 0, 16, 32))
        image.save(tmp_path / f"{name}.png")
    photo, mask = (ImageFile(path=str(tmp_path / f"{name}.png")) for name in ("photo", "mask"))
    from_images = ({"init": photo, "steps": 4, "adapters": (HAT,)}, {"init": photo, "mask": mask, "strength": 1.0})
    changes = [*MIXED, *in_weights, *from_images]
    counts, fewer = Counts(), Counts()
    alone = drawn(shelf, cells_of(shelf, *changes, shared=False), tmp_path / "alone", counts=counts)
    shared = cells_of(shelf, *changes)
    together = drawn(shelf, shared, tmp_path / "shared", batch_size=4, counts=fewer)
    assert [one.status for one in together] == ["rendered"] * len(changes)
    assert max(apart(one, other) for one, other in zip(alone, together, strict=True)) <= TOLERANCE["fp32"]
    assert fewer.forwards < counts.forwards / 2 and fewer.encodes == counts.encodes and fewer.notes == []
    assert {one.key for one in alone}.isdisjoint(one.key for one in together)
    order = random.Random(1).sample(range(len(shared)), len(shared))
    shuffled = drawn(shelf, [shared[place] for place in order], tmp_path / "shuffled", batch_size=3)
    assert max(apart(one, together[place]) for one, place in zip(shuffled, order, strict=True)) <= TOLERANCE["fp32"]
    again = Counts()
    assert {one.status for one in drawn(shelf, shared, tmp_path / "shared", batch_size=4, counts=again)} == {"reused"}
    assert again.forwards == again.model_loads == 0
    assert all(one.path is not None and read_png(one.path).render.shared for one in together)


@pytest.mark.slow
def test_adapters_are_attached_while_a_cell_in_flight_needs_them(shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory stays flat over many adapters: no more are attached than cells are in flight."""
    for number in range(4):
        tiny_adapter(shelf.base, tmp_path / f"{number}.safetensors", seed=number + 7)
        shelf.store.add(tmp_path / f"{number}.safetensors", name=f"many{number}")
    attached: list[int] = []
    own = Session.advance

    def advance(session: Session, walks: list[Any]) -> None:
        attached.append(len(getattr(session.parts.denoiser, "peft_config", {})))
        own(session, walks)

    monkeypatch.setattr(Session, "advance", advance)
    changes = ({"adapters": (Adapter(reference=f"many{number}"),), "seed": seed} for number in range(4) for seed in (1, 2, 3))
    found = drawn(shelf, cells_of(shelf, *changes), tmp_path / "cells", batch_size=2)
    assert [one.status for one in found] == ["rendered"] * 12
    assert max(attached) == 2 and attached.count(2) < len(attached) / 2


def test_a_width_that_the_memory_decides(shelf: Shelf, tmp_path: Path) -> None:
    renders = cells_of(shelf, *({"seed": seed} for seed in range(4)))
    counts = Counts()
    drawn(shelf, renders, tmp_path / "auto", batch_size=None, counts=counts)
    assert counts.forwards == 3  # one of the first cell alone, which is measured, one of all and the last of the others


@pytest.mark.slow
def test_a_cell_that_fails_leaves_its_neighbours(shelf: Shelf, tmp_path: Path) -> None:
    """One image overflows, and the adapter of another is damaged once it was checked: each fails by itself, as it does alone."""
    save_file(load_file(shelf.store.find("hat").files[0].path), tmp_path / "cut.safetensors", metadata={"another": "file"})
    shelf.store.add(tmp_path / "cut.safetensors", name="cut")
    changes: list[dict[str, Any]] = [{}, {"adapters": (ink(1e30),)}, {"adapters": (Adapter(reference="cut"),)}, {"seed": 2}, {"seed": 3}]
    renders = cells_of(shelf, *changes)

    counts = Counts()

    def cut(tick: Tick) -> None:
        if tick.stage == "load":
            (tmp_path / "cut.safetensors").write_bytes((tmp_path / "cut.safetensors").read_bytes()[:-8])

    found = drawn(shelf, renders, tmp_path / "cells", batch_size=4, counts=counts, report=cut)
    assert [one.status for one in found] == ["rendered", "failed", "failed", "rendered", "rendered"]
    assert "not-a-number" in str(found[1].error) and "cut.safetensors" in str(found[2].error) and counts.notes == []
    fine = drawn(shelf, [renders[place] for place in (0, 3, 4)], tmp_path / "fine")
    assert max(apart(one, found[place]) for one, place in zip(fine, (0, 3, 4), strict=True)) <= TOLERANCE["fp32"]


@pytest.mark.slow
@pytest.mark.parametrize("out_of_memory", [False, True])
def test_a_forward_that_fails_is_not_the_end_of_its_cells(
    out_of_memory: bool, shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = torch.OutOfMemoryError("no room") if out_of_memory else RuntimeError("a kernel failed")
    own, widths = Session.advance, []

    def advance(session: Session, walks: list[Any]) -> None:
        widths.append(len(walks))
        if len(widths) == 2:
            raise error
        own(session, walks)

    monkeypatch.setattr(Session, "advance", advance)
    renders, counts = cells_of(shelf, *({"seed": seed} for seed in range(6))), Counts()
    found = drawn(shelf, renders, tmp_path / "cells", batch_size=4, counts=counts)
    assert [one.status for one in found] == ["rendered"] * 6
    alone = drawn(shelf, [replace(one, shared=False) for one in renders], tmp_path / "alone")
    assert max(apart(one, other) for one, other in zip(alone, found, strict=True)) <= TOLERANCE["fp32"]
    (note,) = counts.notes
    if out_of_memory:
        assert widths == [4, 4, *[2] * 6] and note == "4 cells do not fit the memory at once: from here on 2 share a forward."
    else:
        assert widths == [4, 4, 2, 2] and "drawn alone after all: sharing forwards failed with RuntimeError: a kernel failed" in note


@pytest.mark.slow
def test_an_interrupt_loses_the_cells_in_flight_alone(shelf: Shelf, tmp_path: Path) -> None:
    renders = cells_of(shelf, *({"seed": seed, "steps": 1 + seed} for seed in range(6)))
    kept: list[CellResult] = []

    def stop(result: CellResult) -> None:
        kept.append(result)
        if len(kept) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        drawn(shelf, renders, tmp_path / "cells", batch_size=3, on_result=stop)
    assert not list((tmp_path / "cells").rglob("*.lock"))
    counts = Counts()
    found = drawn(shelf, renders, tmp_path / "cells", batch_size=3, counts=counts)
    assert [one.status for one in found] == ["reused"] * 2 + ["rendered"] * 4


def test_two_processes_over_the_same_cells_draw_each_once(shelf: Shelf, tmp_path: Path) -> None:
    renders, second = cells_of(shelf, *({"seed": seed} for seed in range(8))), []
    begun = threading.Event()

    def draw_too() -> None:
        store = Store(shelf.home)
        second.extend(render_cells(renders, store, CellStore(tmp_path / "cells"), batch_size=2, on_result=lambda _: begun.set()))
        store.close()

    other = threading.Thread(target=draw_too)

    def after_the_first(_: CellResult) -> None:
        if not other.ident:
            other.start()
            assert begun.wait(PATIENCE)  # both are at work before the next cells

    first = drawn(shelf, renders, tmp_path / "cells", batch_size=2, on_result=after_the_first)
    other.join()
    every = [one.key for one in (*first, *second) if one.status == "rendered"]
    assert sorted(every) == sorted(one.key for one in first) and not list((tmp_path / "cells").rglob("*.lock"))
    assert {one.status for one in (*first, *second)} == {"rendered", "reused"}


def config(shelf: Shelf, axes: dict[str, Any], **settings: Any) -> GridConfig:
    given: dict[str, Any] = {"base": "tiny", "prompt": "a cat", "steps": 2, "sampler": "euler", "out": str(shelf.work)}
    return GridConfig(axes=Axes(**axes), **given | settings)


@pytest.mark.slow
def test_the_plan_counts_what_the_run_then_takes_and_says_what_is_drawn_alone(shelf: Shelf, tmp_path: Path) -> None:
    write_kind("lokr", shapes(tiny_parts("sd1")[1]), tmp_path / "lokr.safetensors")
    shelf.store.add(tmp_path / "lokr.safetensors", name="lokr")
    axes = {"adapter": ["ink", "words:0.5", "lokr"], "adapterend": [0.5, 1.0], "seed": "1-3"}
    asked = config(shelf, axes, batch_size=4)
    planned = plan(asked, shelf.store)
    assert planned.notes == (
        "3 cells are drawn alone, without sharing forwards: an adapter that is added to the weights acts on a part of their steps.",
    )
    assert planned.to_json()["shared"] == planned.shared == planned.distinct - 3
    assert f"{planned.shared} of them share their denoiser calls: up to 4 at once" in planned.to_text()
    result = run(asked, shelf.store).result
    assert (result["forwards"], result["encodes"], result["rendered"]) == (planned.forwards, planned.encodes, planned.distinct)
    assert planned.forwards < plan(replace(asked, batch_size=1), shelf.store).forwards / 2


@pytest.mark.slow
def test_one_denoising_serves_the_vaes_of_a_cell(shelf: Shelf, tmp_path: Path) -> None:
    import diffusers

    torch.manual_seed(5)
    own = diffusers.AutoencoderKL.from_pretrained(shelf.base / "vae")
    diffusers.AutoencoderKL.from_config(own.config).save_pretrained(tmp_path / "vae")
    shelf.store.add(tmp_path / "vae", name="soft")
    for width in (2, 4):  # its latents are there when the second VAE's turn comes, or still on their way
        asked = config(shelf, {"vae": [None, "soft"], "seed": [width, width + 1]}, batch_size=width)
        planned = plan(asked, shelf.store)
        result = run(asked, shelf.store).result
        assert result["rendered"] == 4 and result["forwards"] == planned.forwards == 2


@pytest.mark.slow
def test_cells_that_were_drawn_alone_are_not_drawn_again(shelf: Shelf) -> None:
    run(config(shelf, {"seed": [1, 2]}), shelf.store)
    result = run(config(shelf, {"seed": [1, 2, 3, 4]}, batch_size=4), shelf.store).result
    assert (result["reused"], result["rendered"], result["forwards"]) == (2, 2, 2)
    alone = run(config(shelf, {"seed": [3]}), shelf.store).result
    assert alone["rendered"] == 1, "bytes are promised: an image of shared forwards does not stand for the one drawn alone"


@pytest.mark.slow
def test_an_image_of_shared_forwards_is_reproduced_within_the_tolerance(shelf: Shelf) -> None:
    folder = run(config(shelf, {"seed": [1, 2], "adapter": ["none", "ink"]}, batch_size=4, steps=3), shelf.store).folder
    for image in sorted((folder / "images").glob("*.png")):
        found = reproduce(image, shelf.store)
        assert found.reproduced and found.tolerance == TOLERANCE["fp32"] and not found.edited
        assert found.notes == ("drawn in forwards that it shared with other cells, here alone: the last bits differ, within a tolerance",)
    assert found.to_json()["reproduced"] is True
