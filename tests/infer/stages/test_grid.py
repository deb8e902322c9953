"""Grids over kept latents: what only decoding depends on denoises nothing again, and gives the bytes of a cell drawn whole."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from infer.draw.session import Session
from infer.grid.config import Axes, GridConfig
from infer.grid.job import GridOutcome, cells_of, plan, run
from registry.errors import Faults
from registry.store import Store
from tests.infer.conftest import Shelf
from tests.tiny import shared_folder, tiny_single_file

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # of diffusers' schedulers under numpy 2

FAMILIES: dict[str, dict[str, Any]] = {
    "pocket": {"size": 32},
    "sdxl": {"precision": "bf16"},
    "sdxl file": {"precision": "bf16", "size": 32},
    "sana": {"size": 32},
}


def other_vae(base: Path, folder: Path) -> str:
    """A VAE of the base's latent space whose images are others."""
    shutil.copytree(base / "vae", folder)
    (file,) = folder.glob("*.safetensors")
    save_file({name: weight * 1.1 if "decoder" in name else weight for name, weight in load_file(file).items()}, file)
    return str(folder)


def config(work: Path, axes: dict[str, Any] | None = None, **settings: Any) -> GridConfig:
    given = {"base": "tiny", "prompt": "a cat", "steps": 2, "out": str(work), "axes": Axes(**(axes or {}))}
    return GridConfig(**given | settings)


def images(outcome: GridOutcome, store: Store) -> dict[str, bytes]:
    """The bytes of each cell's image in the home, by key."""
    import json

    lines = (outcome.folder / "cells.jsonl").read_text().splitlines()
    found = {key: cells_of(store).get(key) for key in (json.loads(line)["key"] for line in lines)}
    return {key: one.png for key, one in found.items() if one is not None}


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """What has weights of each base that is loaded, once its last cell is drawn."""
    found: list[set[str]] = []
    close = Session.close

    def closed(session: Session) -> None:
        modules = {"denoiser": session.parts.denoiser, "vae": session.parts.vae, **session.parts.text_encoders}
        found.append({name for name, module in modules.items() if any(one.device.type != "meta" for one in module.parameters())})
        close(session)

    monkeypatch.setattr(Session, "close", closed)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_another_vae_denoises_nothing_and_draws_the_same_bytes(shelf: Shelf, tmp_path: Path, name: str, read: list[set[str]]) -> None:
    base = Path(str(shelf.store.find("pocket").path)) if name == "pocket" else shared_folder(name.removesuffix(" file"))
    settings = {"base": str(base), **FAMILIES[name]}
    if name.endswith(" file"):
        settings |= {"base": str(tiny_single_file(base, tmp_path / "model.safetensors", family="sdxl")), "base_config": str(base)}
    vaes = [None, other_vae(base, tmp_path / "other")]
    seeds = {"seed": [1, 2]}
    first = run(config(shelf.work, seeds, **settings), shelf.store)
    assert first.result["forwards"] >= 4 and first.result["latents_reused"] == 0
    asked = config(shelf.work, {**seeds, "vae": vaes}, **settings)
    planned = plan(asked, shelf.store)
    assert (planned.forwards, planned.encodes, planned.latents_reused) == (0, 0, 2) and "2 denoised before" in planned.to_text()
    assert planned.model_loads == 0
    second = run(asked, shelf.store)
    shown = {name: second.result[name] for name in ("rendered", "reused", "forwards", "encodes", "latents_reused")}
    assert shown == {"rendered": 2, "reused": 2, "forwards": 0, "encodes": 0, "latents_reused": 2}
    assert second.result["model_loads"] == 0
    drawn = images(second, shelf.store)
    shutil.rmtree(shelf.home / "cells")
    assert run(asked, shelf.store).result["forwards"] == 0
    assert "vae" in read[0] and len(read[0]) > 1 and read[1:] == [set(), {"vae"}]  # an override's weights are beside the base's
    assert images(second, shelf.store) == drawn
    fresh = Store(tmp_path / "fresh")
    whole = run(config(shelf.work, {**seeds, "vae": vaes}, keep_latents="0", **settings), fresh)
    assert whole.result["forwards"] == first.result["forwards"] and not (fresh.home / "latents").exists()
    assert len(set(drawn.values())) == 4 and images(whole, fresh) == drawn


@pytest.mark.slow
def test_cells_that_share_forwards_are_kept_too(shelf: Shelf, tmp_path: Path) -> None:
    seeds, vae = {"seed": [1, 2, 3]}, other_vae(shelf.base, tmp_path / "other")
    run(config(shelf.work, seeds, batch_size=2), shelf.store)
    again = run(config(shelf.work, {**seeds, "vae": [vae]}, batch_size=2), shelf.store)
    assert (again.result["rendered"], again.result["forwards"], again.result["latents_reused"]) == (3, 0, 3)


@pytest.mark.slow
def test_latents_that_were_drawn_alone_are_taken_by_cells_that_would_share(shelf: Shelf, tmp_path: Path) -> None:
    run(config(shelf.work, {"seed": [1]}), shelf.store)
    asked = config(shelf.work, {"seed": [1, 2, 3], "vae": [other_vae(shelf.base, tmp_path / "other")]}, batch_size=2)
    planned = plan(asked, shelf.store)
    assert [cell.render.shared for cell in planned.cells] == [False, True, True]
    assert (planned.latents_reused, planned.shared) == (1, 2) and run(asked, shelf.store).result["forwards"] == planned.forwards


@pytest.mark.slow
def test_a_vae_that_encodes_an_image_is_a_part_of_the_latents(shelf: Shelf, tmp_path: Path) -> None:
    Image.new("RGB", (32, 32), (200, 0, 0)).save(tmp_path / "photo.png")
    given: dict[str, Any] = {"init": str(tmp_path / "photo.png"), "strength": 0.5}
    run(config(shelf.work, **given), shelf.store)
    again = run(config(shelf.work, vae=other_vae(shelf.base, tmp_path / "other"), **given), shelf.store)
    assert again.result["forwards"] > 0 and again.result["latents_reused"] == 0


@pytest.mark.slow
def test_damaged_latents_are_drawn_again_and_said_so(shelf: Shelf, tmp_path: Path, read: list[set[str]]) -> None:
    first = run(config(shelf.work), shelf.store)
    (kept,) = (shelf.home / "latents").rglob("*.safetensors")
    whole = load_file(kept)["latents"].clone()  # the file is mapped
    kept.write_bytes(kept.read_bytes()[:-1])
    again = run(config(shelf.work, vae=other_vae(shelf.base, tmp_path / "other")), shelf.store)
    assert (
        again.result["forwards"] == first.result["forwards"]
        and any("damaged" in note for note in again.notes)
        and "denoiser" in read[-1]
        and load_file(kept)["latents"].equal(whole)
    )


def test_the_setting_is_checked_before_anything_is_drawn(shelf: Shelf) -> None:
    with pytest.raises(Faults, match="keep_latents must be a size such as 2GiB, or 0, got '2'"):
        config(shelf.work, keep_latents="2")
