"""Many Renders drawn with few loads: their order, what each load serves, and what one fault leaves of the rest."""

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from infer.draw.files import Adapter, ControlNet, Embedding, ImageFile
from infer.draw.render import Render
from infer.grid.cells import CellStore
from infer.grid.engine import CellResult, Counts, in_order, render_cells
from infer.output.png import hash_pixels
from registry.errors import Faults
from registry.progress import Tick
from tests.infer.conftest import Shelf
from tests.infer.images import resolved
from tests.tiny import tiny_sd1

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # of diffusers' schedulers under numpy 2

INK, HAT = Adapter(reference="ink", sha256="1"), Adapter(reference="hat", sha256="2")


def pixels(path: Path | None) -> str:
    assert path is not None
    with Image.open(path) as image:
        return hash_pixels(image.convert("RGB"))


def cell(**changes: Any) -> Render:
    given: dict[str, Any] = {"base": "tiny", "prompt": "a cat", "steps": 1, "sampler": "ddim"}
    return Render(**given | changes)


def test_bases_and_adapters_change_as_rarely_as_can_be() -> None:
    renders = [
        resolved(base_sha256=base, adapters=adapters, seed=seed)
        for seed in (1, 2)
        for adapters in ((), (INK,), (HAT,))
        for base in ("x", "y")
    ]
    ordered = in_order(renders)
    assert [(one.base_sha256, one.adapters, one.seed) for one in ordered] == [
        (base, adapters, seed) for base in ("x", "y") for adapters in ((), (INK,), (HAT,)) for seed in (1, 2)
    ]


def test_equal_adapters_are_together_whatever_their_weights() -> None:
    weights = [(INK, 0.5), (HAT, 1.0), (INK, 1.0), (HAT, 0.5), (INK, 0.5)]
    ordered = in_order([resolved(adapters=(replace(one, weight=weight),), seed=seed) for seed, (one, weight) in enumerate(weights)])
    assert [(one.adapters[0].reference, one.adapters[0].weight) for one in ordered] == [
        ("ink", 0.5),
        ("ink", 0.5),
        ("ink", 1.0),
        ("hat", 0.5),
        ("hat", 1.0),
    ]


def test_equal_embeddings_are_together_under_equal_adapters() -> None:
    apple, pear = ((Embedding(reference=name, token=name, sha256=name),) for name in ("apple", "pear"))
    asked = [(INK, apple), (INK, pear), (HAT, apple), (INK, apple)]
    ordered = in_order([resolved(adapters=(one,), embeddings=words) for one, words in asked])
    assert [(one.adapters[0].reference, one.embeddings[0].reference) for one in ordered] == [
        ("ink", "apple"),
        ("ink", "apple"),
        ("ink", "pear"),
        ("hat", "apple"),
    ]


def test_controlnets_are_outside_of_adapters_and_vaes_inside() -> None:
    """A net is loaded for seconds, an adapter switched in one, a VAE acts after the denoising."""
    nets = [(ControlNet(reference=name, picture=ImageFile(path="a.png", sha256="a"), sha256=name),) for name in ("canny", "depth")]
    asked = [(net, one, vae) for vae in ("x", None) for one in (INK, HAT) for net in nets]
    ordered = in_order([resolved(controls=net, adapters=(one,), vae=vae, vae_sha256=vae) for net, one, vae in asked])
    assert [(one.controls[0].reference, one.adapters[0].reference, one.vae) for one in ordered] == [
        (net, one, vae) for net in ("canny", "depth") for one in ("ink", "hat") for vae in ("x", None)
    ]


@pytest.fixture
def second_base(shelf: Shelf, tmp_path: Path) -> Path:
    """Another base, registered as `second`."""
    folder = tiny_sd1(tmp_path / "second", prediction="v_prediction")
    shelf.store.add(folder, name="second")
    return folder


def test_each_base_is_loaded_once_and_the_results_are_in_the_order_asked(shelf: Shelf, second_base: Path, tmp_path: Path) -> None:
    counts = Counts()
    asked = [cell(base=base, seed=seed) for seed in (1, 2) for base in ("tiny", "second")]
    results = render_cells(asked, shelf.store, CellStore(tmp_path / "cells"), counts=counts)
    assert counts.model_loads == 2 and [(one.render.base, one.render.seed) for one in results] == [(one.base, one.seed) for one in asked]
    assert len({pixels(one.path) for one in results}) == 4


def test_a_base_that_cannot_be_loaded_fails_its_own_cells(shelf: Shelf, second_base: Path, tmp_path: Path) -> None:
    def cut(result: CellResult) -> None:  # after everything was checked, before the second load
        for path in second_base.glob("unet/*.safetensors"):
            path.write_bytes(path.read_bytes()[:-8])

    asked = [cell(base=base, seed=seed) for seed in (1, 2) for base in ("tiny", "second")]
    results = render_cells(asked, shelf.store, CellStore(tmp_path / "cells"), on_result=cut)
    assert [one.status for one in results] == ["rendered", "failed", "rendered", "failed"]
    assert results[1].error and results[1].error == results[3].error


@pytest.mark.slow
def test_the_order_of_cells_does_not_change_an_image(shelf: Shelf, tmp_path: Path) -> None:
    half, hat, words = Adapter(reference="ink", weight=0.5), Adapter(reference="hat", weight=0.3), Adapter(reference="words")
    adapters = ((), (half,), (Adapter(reference="ink"), hat), (words,))
    renders = [cell(prompt=prompt, adapters=each) for prompt in ("a cat", "a dog") for each in adapters]
    found: list[dict[str, str]] = []
    for order in (renders, random.Random(1).sample(renders, len(renders))):
        results = render_cells(order, shelf.store, CellStore(tmp_path / f"cells{len(found)}"))
        found.append({one.key: pixels(one.path) for one in results})
    assert found[0] == found[1] and len(found[0]) == 8
    (alone,) = render_cells(renders[:1], shelf.store, CellStore(tmp_path / "alone"))
    assert pixels(alone.path) == found[0][alone.key]  # the base with no adapter attached before


@pytest.mark.slow
def test_an_adapter_is_attached_once_and_let_go_after_its_last_use(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    import infer.draw.session
    from infer.draw import adapters

    calls: list[str] = []

    def spy(word: str, done: Callable[..., None]) -> Callable[..., None]:
        def call(*arguments: Any, **options: Any) -> None:
            calls.extend(f"{word} {name}" for name in arguments[-1])
            done(*arguments, **options)

        return call

    monkeypatch.setattr(infer.draw.session, "attach", spy("on", adapters.attach))
    monkeypatch.setattr(infer.draw.session, "detach", spy("off", adapters.detach))
    asked = [
        cell(adapters=(Adapter(reference=name, weight=weight),), seed=seed)
        for seed in (1, 2)
        for name in ("ink", "hat")
        for weight in (0.5, 1)
    ]
    render_cells(asked, shelf.store, CellStore())
    names = [f"a{shelf.store.sha256(shelf.store.find(name))[:16]}" for name in ("ink", "hat")]
    assert calls == [f"on {names[0]}", f"off {names[0]}", f"on {names[1]}", f"off {names[1]}"]


def test_renders_from_code(shelf: Shelf, tmp_path: Path) -> None:
    ticks: list[Tick] = []
    counts = Counts()
    renders = [
        Render(base="tiny", prompt="a cat", steps=2, seed=seed, adapters=(Adapter(reference="ink", weight=0.5),)) for seed in (1, 2, 1)
    ]
    results = render_cells(renders, shelf.store, CellStore(tmp_path / "cells"), report=ticks.append, counts=counts)
    assert [one.status for one in results] == ["rendered"] * 3
    assert results[0].key == results[2].key != results[1].key and results[0].render.base_sha256
    assert [tick.done for tick in ticks if tick.stage == "cells"] == [1, 2] and counts.forwards == 6 and counts.model_loads == 1
    with pytest.raises(Faults, match="nix"):
        render_cells([Render(base="tiny"), Render(base="nix")], shelf.store, CellStore(tmp_path / "cells"))


def test_a_prompt_that_is_cut_is_reported_where_the_plan_could_not(shelf: Shelf, tmp_path: Path) -> None:
    counts = Counts()
    render_cells(
        [Render(base="tiny", prompt="a very long prompt that does not fit", steps=1)], shelf.store, CellStore(tmp_path), counts=counts
    )
    assert len(counts.notes) == 1 and "24 fit" in counts.notes[0]
