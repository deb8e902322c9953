"""memory= of a grid: what fits is found for each base by itself, exact settings first, and what is given or varied stays."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from infer.budget import fit
from infer.budget.need import Drawing, Largest
from infer.budget.savings import SEARCHED
from infer.grid.config import Axes, GridConfig
from infer.grid.job import plan, run
from registry.errors import Faults
from registry.families import FAMILIES
from tests.infer.conftest import Shelf
from tests.infer.draw.kinds import write_kind
from tests.infer.draw.test_kinds import shapes
from tests.tiny import tiny_model, tiny_parts

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # of diffusers' schedulers under numpy 2

PLAIN: dict[str, Any] = {"swap_blocks": 0, "vae_tiling": None, "text_encoder_dtype": None, "base_dtype": None}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """FLUX.1's tiny build with more blocks; its weights are never read."""
    place = tiny_model("flux1", tmp_path_factory.mktemp("deep") / "model")
    file = place / "transformer" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"num_layers": 6, "num_single_layers": 6}))
    return place


def drawing_of(folder: Path, *, rows: int = 1, side: int = 64) -> Drawing:
    family = FAMILIES["flux1"]
    return Drawing(family, family.load(folder, dtype=torch.float32, device="meta"), torch.bfloat16, Largest(side, side, rows=rows))


@pytest.mark.slow
def test_settings_that_change_no_image_come_first(folder: Path) -> None:
    drawing = drawing_of(folder)
    whole = drawing.peak(PLAIN)
    assert fit.search(PLAIN, drawing, whole, SEARCHED, swaps=True).chosen.values == PLAIN
    found = fit.search(PLAIN, drawing, whole - 1, SEARCHED, swaps=True)
    swapped = found.chosen.values
    assert found.fits and swapped | {"swap_blocks": 0} == PLAIN and swapped["swap_blocks"] >= 3 and (found.chosen.peak or 0) < whole
    assert found.cheaper is not None and found.cheaper.values == PLAIN
    least = min(drawing.peak(PLAIN | {"swap_blocks": count}) for count in range(13))
    beyond = fit.search(PLAIN, drawing, least - 1, SEARCHED, swaps=True).chosen.values
    assert beyond["text_encoder_dtype"] == "int8" or beyond["base_dtype"] is not None, "all that is exact was not enough"
    alone = fit.search(PLAIN, drawing, whole - 1, SEARCHED, swaps=False).chosen.values
    assert alone["swap_blocks"] == 0 and alone != PLAIN, "a device that shares main memory saves nothing by it"
    kept = fit.search(PLAIN, drawing, whole - 1, ["base_dtype"], swaps=True)
    assert kept.chosen.values == PLAIN | {"base_dtype": "int8"}, "what is not free stays"
    full = fit.search(PLAIN, drawing, whole - 1, ["swap_blocks"], swaps=True, main_memory=0)
    assert not full.fits and full.chosen.values == PLAIN, "main memory has no room for blocks"


@pytest.mark.slow
def test_tiles_come_after_what_is_exact_and_before_quantised_weights(folder: Path) -> None:
    drawing = drawing_of(folder, side=1024)
    whole = drawing.peak(PLAIN)
    assert drawing.stages(PLAIN).largest[0] == "an image is decoded"
    tiled = PLAIN | {"vae_tiling": 512}
    assert drawing.stages(tiled).decode < drawing.stages(PLAIN).decode / 2
    exact = min(drawing.peak(PLAIN | {"swap_blocks": count}) for count in range(13))
    found = fit.search(PLAIN, drawing, exact - 1, SEARCHED, swaps=True).chosen
    assert found.values | {"swap_blocks": 0} == tiled and (found.peak or 0) < exact <= whole
    assert fit.search(PLAIN, drawing, whole - 1, SEARCHED, swaps=False).chosen.values == tiled
    own = PLAIN | {"vae_tiling": 256}
    assert fit.search(own, drawing, 1, SEARCHED, swaps=True).chosen.values["vae_tiling"] == 256, "what is given stays"


@pytest.mark.slow
def test_a_search_that_finds_nothing_has_the_least_that_would_do(folder: Path) -> None:
    drawing = drawing_of(folder)
    none = fit.search(PLAIN, drawing, 1, SEARCHED, swaps=True, reserved=1000)
    assert not none.fits and (none.chosen.peak or 0) == drawing.peak(none.chosen.values) + 1000
    assert fit.search(PLAIN, drawing, none.chosen.peak or 0, SEARCHED, swaps=True, reserved=1000).chosen.values == none.chosen.values


@pytest.mark.parametrize(("base", "text"), [(None, None), ("int8", None), ("nf4", "int8")])
def test_weights_are_those_of_the_loaded_model(base: str | None, text: str | None) -> None:
    family, empty = tiny_parts("sd1")
    from registry.detect.loading import load_family

    given = {"base_config": None, "prediction": None, "base_dtype": base, "text_encoder_dtype": text}
    loaded = load_family(family, empty.source, dtype=torch.bfloat16, device="cpu", **given)
    modules = [loaded.denoiser, loaded.vae, *loaded.text_encoders.values()]
    sizes = {id(tensor): tensor.nbytes for module in modules for tensor in module.parameters()}
    codes = {id(t): t.nbytes for module in modules for name, t in module.named_buffers() if name.endswith(("codes", "scales"))}
    drawing = Drawing(family, empty, torch.bfloat16, Largest(32, 32, rows=1))
    assert drawing.weights(PLAIN | {"base_dtype": base, "text_encoder_dtype": text}) == sum((sizes | codes).values())


@pytest.mark.slow
def test_more_rows_and_pixels_need_more(folder: Path) -> None:
    small, wide, guided = (drawing_of(folder, rows=rows, side=side).stages(PLAIN) for rows, side in ((1, 64), (1, 128), (2, 64)))
    assert small.forward < min(guided.forward, wide.forward) and small.decode == guided.decode < wide.decode
    assert wide.largest == ("an image is decoded", wide.decode)


# --- on the command's own path, on the CPU


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the tests' process has taken is not counted: it differs from run to run."""
    monkeypatch.setattr(fit, "process_bytes", lambda _device: 96 * 2**20)


def config(axes: dict[str, Any] | None = None, **settings: Any) -> GridConfig:
    given = {"base": "tiny", "prompt": "a cat", "steps": 2, "guidance": 1.0}
    return GridConfig(axes=Axes(**(axes or {})), **{name: value for name, value in given.items() if name not in (axes or {})} | settings)


@pytest.mark.slow
@pytest.mark.usefixtures("alone")
def test_chosen_settings_are_in_the_images_settings_and_keys(shelf: Shelf) -> None:
    roomy = plan(config(memory="1GiB"), shelf.store).to_json()["memory"]
    (row,) = roomy["bases"]
    assert row["chosen"] == PLAIN and row["costs"] == {} and roomy["budget_bytes"] == 2**30 and roomy["peak_bytes"] == row["peak_bytes"]
    tight = plan(config(memory=f"{row['peak_bytes'] - 1}B"), shelf.store)
    made = tight.to_json()["memory"]["bases"][0]
    assert made["peak_bytes"] < row["peak_bytes"] and made["chosen"] != PLAIN and made["weight_error"] > 0
    assert {"which": "cheaper", "settings": PLAIN}.items() <= made["alternatives"][0].items()
    (cell,) = tight.cells
    by_hand = config(**{name: value for name, value in made["chosen"].items() if value})
    assert {name: getattr(cell.render, name) for name in SEARCHED} == made["chosen"]
    assert cell.render.key() == plan(by_hand, shelf.store).cells[0].render.key() != plan(config(), shelf.store).cells[0].render.key()
    assert "chosen: text_encoder_dtype=int8 (another image: a relative weight error of about 0.5%)" in tight.to_text()
    outcome = run(config(memory=f"{row['peak_bytes'] - 1}B", out=str(shelf.work)), shelf.store)
    assert outcome.result["rendered"] == 1
    assert run(config(**dict(by_hand_settings(made)), out=str(shelf.work)), shelf.store).result["reused"] == 1


def by_hand_settings(made: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(name, value) for name, value in made["chosen"].items() if value]


def test_small_images_that_are_decoded_at_once_may_have_more_pixels_than_the_largest(shelf: Shelf) -> None:
    planned = plan(config({"size": ["768x768", "512x512"], "seed": [1, 2, 3, 4]}), shelf.store)
    renders = [cell.render for cell in planned.cells]
    several, each = (fit.drawing_of(renders, planned.resolver, batch_size=size) for size in (4, 1))
    assert several.largest.together == (4, 512, 512) and each.largest.together == (1, 768, 768)
    assert several.stages(PLAIN).decode > 1.5 * each.stages(PLAIN).decode, "1,024 x 1,024 pixels where one has 768 x 768"


def test_second_passes_are_drawn_and_decoded_alone(shelf: Shelf) -> None:
    planned = plan(config({"seed": [1, 2, 3, 4]}, size="32x32", hires=2), shelf.store)
    drawing = fit.drawing_of([cell.render for cell in planned.cells], planned.resolver, batch_size=4)
    assert drawing.largest == Largest(64, 64, rows=1, at=(64, 64), together=(1, 64, 64))
    mixed = plan(config({"seed": [1, 2, 3, 4], "hires": [None, 1.5]}, size="32x32"), shelf.store)
    drawing = fit.drawing_of([cell.render for cell in mixed.cells], mixed.resolver, batch_size=4)
    assert drawing.largest == Largest(48, 48, rows=4, at=(32, 32), together=(4, 32, 32)), "the four that have none share their calls"


def test_cells_that_differ_in_their_vae_alone_are_denoised_once(shelf: Shelf) -> None:
    vae = shelf.work / "vae"
    shutil.copytree(shelf.base / "vae", vae)
    planned = plan(config({"seed": [1, 2], "vae": [None, str(vae)]}, size="32x32"), shelf.store)
    drawing = fit.drawing_of([cell.render for cell in planned.cells], planned.resolver, batch_size=4)
    assert drawing.largest == Largest(32, 32, rows=2, at=(32, 32), together=(2, 32, 32))


def test_what_the_vae_encodes_is_whole_where_it_decodes_in_tiles(shelf: Shelf) -> None:
    hires = {"scale": 2, "upscaler": "lanczos", "strength": 0.5}
    planned = plan(config(size="128x128", hires=hires, vae_tiling=64), shelf.store)
    drawing = fit.drawing_of([cell.render for cell in planned.cells], planned.resolver)
    assert drawing.largest.encoded == (256, 256)
    stages = drawing.stages(PLAIN | {"vae_tiling": 64})
    assert stages.largest == ("an image is encoded", stages.encode) and stages.encode > 2 * stages.decode


@pytest.mark.slow
@pytest.mark.usefixtures("alone")
def test_what_is_given_or_varied_stays_and_each_base_has_its_own(shelf: Shelf) -> None:
    other = tiny_model("sdxl", shelf.work / "other")
    shelf.store.add(other, name="other")
    both = plan(config({"base": ["tiny", "other"]}, memory="1GiB"), shelf.store).to_json()["memory"]["bases"]
    least, most = sorted(row["peak_bytes"] for row in both)
    mixed = plan(config({"base": ["tiny", "other"]}, memory=f"{most - 1}B"), shelf.store)
    chosen = {row["base"]: row["chosen"] for row in mixed.to_json()["memory"]["bases"]}
    assert least < most and sorted(values == PLAIN for values in chosen.values()) == [False, True]
    varied = plan(config({"basedtype": [None, "nf4"]}, memory="1GiB", text_encoder_dtype="int8"), shelf.store)
    rows = varied.to_json()["memory"]["bases"]
    assert [row["chosen"]["base_dtype"] for row in rows] == [None, "nf4"] and {row["chosen"]["text_encoder_dtype"] for row in rows} == {
        "int8"
    }
    assert rows[1]["given"] == ["text_encoder_dtype=int8", "base_dtype=nf4"]


@pytest.mark.slow
@pytest.mark.usefixtures("alone")
def test_what_does_not_fit_is_refused_with_the_least_memory_that_would(shelf: Shelf) -> None:
    with pytest.raises(Faults, match=r"memory=1MiB, .*, does not do for tiny\. The least that would is .* or ([\d,]+) bytes") as caught:
        plan(config(memory="1MiB"), shelf.store)
    words = str(caught.value)
    least = int(words.split(" bytes, needed while")[0].rsplit(" ", 1)[1].replace(",", ""))
    assert "base_dtype=nf4" in words and plan(config(memory=f"{least}B"), shelf.store).memory is not None
    with pytest.raises(Faults, match="does not do"):
        plan(config(memory=f"{least - 1}B"), shelf.store)
    with pytest.raises(Faults, match="memory needs a unit: 12GiB"):
        config(memory="12")


@pytest.mark.slow
@pytest.mark.usefixtures("alone")
def test_an_adapter_that_is_drawn_in_the_weights_keeps_the_base_whole(shelf: Shelf) -> None:
    path = shelf.work / "kron.safetensors"
    shelf.work.mkdir()
    write_kind("lokr", shapes(tiny_parts("sd1")[1]), path)
    shelf.store.add(path, name="kron")
    (row,) = plan(config(memory="1GiB", adapters="kron"), shelf.store).to_json()["memory"]["bases"]
    with pytest.raises(Faults, match="does not do for tiny"):
        plan(config(memory=f"{row['peak_bytes'] // 2}B", adapters="kron"), shelf.store)
    beside = plan(config(memory="1GiB", adapters="ink"), shelf.store).to_json()["memory"]["bases"][0]
    plain = plan(config(memory="1GiB"), shelf.store).to_json()["memory"]["bases"][0]
    assert beside["peak_bytes"] > plain["peak_bytes"]
