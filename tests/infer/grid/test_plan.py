"""The plan: every fault before a model is loaded, and counts that the run then keeps."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from infer.grid.cells import CellStore
from infer.grid.config import Axes, GridConfig
from infer.grid.job import plan
from registry.errors import Faults
from registry.store import Store
from tests.infer.conftest import Shelf
from tests.tiny import shared_folder, tiny_adapter

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # of diffusers' schedulers under numpy 2


def config(axes: dict[str, Any] | None = None, **settings: Any) -> GridConfig:
    axes = axes or {}
    given = {"base": "tiny", "prompt": "a cat", "steps": 2}
    return GridConfig(axes=Axes(**axes), **{name: value for name, value in given.items() if name not in axes} | settings)


def test_defaults_are_the_plain_pipelines(shelf: Shelf) -> None:
    (cell,) = plan(GridConfig(base="tiny", prompt="a cat"), shelf.store).cells
    render = cell.render
    assert (render.steps, render.guidance, render.width, render.height) == (50, 7.5, 32, 32)
    assert render.sampler is None and render.negative is None and render.precision == "fp32"
    assert render.base_sha256 == shelf.store.sha256(shelf.store.find("tiny"))
    assert {name for name, _ in render.versions} >= {"torch", "diffusers", "transformers"}


def test_what_other_programs_read_as_commands_is_refused_or_noted(shelf: Shelf) -> None:
    with pytest.raises(Faults) as caught:
        plan(config(prompt="a cat <lora:ink:0.8>", negative="<lora:hat:1>", sampler="lcm", steps=80), shelf.store)
    asked = "\n".join(caught.value.faults)
    assert "prompt holds <lora:ink:0.8>." in asked and "adapters=ink:0.8" in asked and "negative holds <lora:hat:1>." in asked
    assert "steps is 80, but sampler 'lcm' picks its steps among the 50 that models are distilled over" in asked and "strength" not in asked
    (note,) = plan(config({"prompt": ["a (red:1.3) cat", "(red:1.3) [a|b]", "a (cat)"]}), shelf.store).notes
    assert note.endswith(": (red:1.3), [a|b]. They mean something with prompt_dialect=a1111.")


def test_a_weight_that_its_axis_replaces_is_noted(shelf: Shelf) -> None:
    (note,) = plan(config({"weight": [0, 1]}, adapters="ink:0.2"), shelf.store).notes
    assert note == "axes.weight replaces the weight given with ink:0.2: it has no effect."
    (note,) = plan(config({"weight": [0.5], "adapter": ["ink", "hat:0.4+ink"]}), shelf.store).notes
    assert note == "axes.weight replaces the weight given with hat:0.4: it has no effect."
    assert plan(config({"weight": [0, 1]}, adapters="ink"), shelf.store).notes == ()


def test_the_axis_of_strength_leaves_out_the_cells_without_init(shelf: Shelf, tmp_path: Path) -> None:
    Image.new("RGB", (32, 32), (200, 0, 0)).save(tmp_path / "photo.png")
    axes = {"init": [None, str(tmp_path / "photo.png")], "strength": [0.5, 1.0]}
    assert len(plan(config(axes, where="init != null"), shelf.store).cells) == 2


def test_what_is_null_and_what_is_spelt_out_have_one_key(shelf: Shelf) -> None:
    def key(**settings: Any) -> str:
        return plan(config(**settings), shelf.store).cells[0].render.key()

    assert key() == key(guidance=7.5, size=32, clip_skip=0) == key(base=str(shelf.base)) == key(adapters="ink:0")
    assert key() != key(guidance=7.4)
    assert key(adapters="ink:0.5+hat") == key(adapters=["hat", "ink:0.5"])


def test_faults_of_the_models_are_reported_together(shelf: Shelf, tmp_path: Path) -> None:
    other = _wider_adapter(tmp_path)
    shelf.store.add(other, family="sdxl")
    with pytest.raises(Faults) as caught:
        plan(
            config(
                {"adapter": ["none", "inc", "ink+ink", str(other)], "sampler": ["eulre"], "size": [33]},
                steps=0,
                guidance=float("inf"),
                clip_skip=9,
                negative="\ud800",
                seed=-1,
            ),
            shelf.store,
        )
    reported = caught.value.faults
    parts = [
        "'inc'",
        "ink and ink are one file",
        "does not fit the base tiny (it is for sdxl, the base is sd1): ",
        "'eulre'. Did you mean 'euler'",
        "multiples of 8",
    ]
    for part in [*parts, "steps is 0", "guidance is inf", "clip_skip is 9", "no text", "seed is -1"]:
        assert sum(part in fault for fault in reported) == 1, (part, reported)
    assert caught.value.exit_code == 2


def test_unknown_base_and_an_adapter_as_base(shelf: Shelf) -> None:
    with pytest.raises(Faults, match="tinny"):
        plan(config(base="tinny"), shelf.store)
    with pytest.raises(Faults, match="ink is of kind adapter"):
        plan(config(base="ink"), shelf.store)


def test_counts(shelf: Shelf) -> None:
    found = plan(_grid(), shelf.store)
    assert (len(found.cells), found.distinct, found.stored) == (16, 16, 0)
    # PNDM makes one call more than steps, Heun two a step but the last
    assert found.forwards == 8 * 3 + 8 * 3
    # two prompts and the empty negative, each under {none} and under `words`, which changes the text encoder
    assert found.encodes == 3 * 2
    assert found.model_loads == 1 and found.seconds is None
    assert found.to_json() | {"notes": []} == {
        "cells": 16, "distinct": 16, "stored": 0, "to_draw": 16, "model_loads": 1, "encodes": 6, "shared": 0,
        "forwards": 48, "seconds": None,
        "control_calls": 0,
        "latents_reused": 0,
        "axes": {"adapter": ["none", "words"], "prompt": ["a cat", "a dog"], "guidance": ["1", "4"], "sampler": ["base's own", "heun"]},
        "rows": "prompt", "columns": "adapter", "notes": [],
    }  # fmt: skip
    assert "16 cells: 2 adapter x 2 prompt x 2 sampler x 2 guidance" in found.to_text()


def _grid() -> GridConfig:
    return GridConfig(
        base="tiny", steps=2, axes=Axes(prompt=["a cat", "a dog"], adapter=["none", "words"], guidance=[1, 4], sampler=[None, "heun"])
    )


def test_equal_cells_are_one_image(shelf: Shelf) -> None:
    found = plan(config({"weight": [0, 1], "seed": [1, 2]}, adapters="ink"), shelf.store)
    assert (len(found.cells), found.distinct) == (4, 4)
    found = plan(config({"adapter": ["none", "ink:0", "ink"]}), shelf.store)
    assert (len(found.cells), found.distinct) == (3, 2) and "2 distinct images" in found.to_text()


def test_a_prompt_that_is_too_long_is_reported(shelf: Shelf) -> None:
    long = "a very long prompt that does not fit"
    found = plan(config(prompt=long, negative="no"), shelf.store)
    assert [note for note in found.notes if "truncated" in note] == [
        f"The prompt {long!r} is truncated: it needs {_tokens(long)} tokens and 24 fit; the model does not see its end."
        " prompt_chunks=2 reads all of it."
    ]
    assert plan(config(prompt=long, negative="no", prompt_chunks=2), shelf.store).notes == ()
    assert plan(config(prompt="short"), shelf.store).notes == ()


def _tokens(text: str) -> int:
    return len(text.replace(" ", "")) + 2  # the tiny tokenizer knows single letters only; and two marks


def test_a_negative_prompt_that_nothing_reads_is_reported(shelf: Shelf) -> None:
    assert "no effect" in plan(config(negative="blurry", guidance=1), shelf.store).notes[0]


def test_a_file_in_the_place_of_the_runs_folder_and_a_long_name_are_refused(shelf: Shelf, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for out, what in (("file", "file is a file"), ("file/runs", "file is a file"), ("link", "link is a broken link")):
        with pytest.raises(Faults, match=what):
            plan(config(out=str(tmp_path / out)), shelf.store)
    with pytest.raises(Faults, match="at most 200 bytes"):
        config(name="é" * 101)


def test_a_dry_run_writes_nothing(shelf: Shelf, tmp_path: Path) -> None:
    plan(config(out=str(tmp_path / "runs")), shelf.store).to_text()
    assert not (tmp_path / "runs").exists() and not CellStore().folder.exists()


def test_an_adapter_with_numbers_that_are_none_is_refused_by_name_in_every_plan(shelf: Shelf, tmp_path: Path) -> None:
    values = load_file(str(shelf.store.find("ink").path))
    name = next(iter(values))
    values[name] = values[name].clone()
    values[name].view(-1)[-1] = float("inf")
    save_file(values, tmp_path / "broken.safetensors")
    for _ in range(2):
        with pytest.raises(
            Faults, match=rf"The adapter .*broken.safetensors cannot be drawn with: 1 of its \d+ tensors has numbers .*{name}"
        ):
            plan(config(adapters=str(tmp_path / "broken.safetensors")), shelf.store)


def _wider_adapter(folder: Path) -> Path:
    """A LoRA of a base with other widths: ink's keys, one factor two columns too wide."""
    from safetensors.torch import load_file, save_file

    from tests.tiny import tiny_sd1

    tiny_sd1(folder / "other")
    path = tiny_adapter(folder / "other", folder / "wide.safetensors")
    state = load_file(path)
    name = next(key for key in state if "lora_A" in key or "lora.down" in key)
    state[name] = state[name].repeat(1, 2)
    save_file(state, path)
    return path


def test_an_adapter_of_another_family_that_fits_is_reported(tmp_path: Path) -> None:
    """Chroma's blocks are named and sized as FLUX.1's, so shapes alone say nothing."""
    file = tiny_adapter(shared_folder("chroma"), tmp_path / "ink.safetensors", family="chroma")
    save_file(load_file(file), tmp_path / "declared.safetensors", metadata={"modelspec.architecture": "flux-1-dev/lora"})
    asked = GridConfig(base=str(shared_folder("chroma")), prompt="a", size=64, adapters=str(tmp_path / "declared.safetensors"))
    notes = plan(asked, Store(tmp_path / "home")).notes
    assert any("is known as one for flux1; its layers fit this chroma base" in note for note in notes)
