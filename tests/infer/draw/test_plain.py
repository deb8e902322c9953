"""A cell is the image that the plain diffusers pipeline draws, whatever the family, with the settings that a person gives."""

from pathlib import Path
from typing import Any

import numpy
import pytest
from PIL import Image

from infer.grid.config import Axes, GridConfig
from infer.grid.job import plan, run
from infer.output.reproduce import reproduce
from registry.store import Store
from tests.tiny import plain_pipeline, shared_folder, tiny_adapter, tiny_sd1, tiny_sdxl, tiny_single_file

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # of diffusers' schedulers under numpy 2


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("LORALOOM_HOME", str(tmp_path / "home"))
    return Store(tmp_path / "home")


def drawn(config: GridConfig, store: Store) -> Any:
    with Image.open(run(config, store).folder / "images" / "image.png") as image:
        return numpy.asarray(image.convert("RGB"), dtype=int)


T5 = {"max_sequence_length": 48}  # what the tiny T5 tokenizer holds
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "sd1": ("sd1", {}, {}),
    "sd1 all settings": (
        "sd1",
        {"negative": "a tree", "guidance": 4.0, "size": "48x32", "adapters": "ink:0.6"},
        {"negative_prompt": "a tree", "guidance_scale": 4.0, "width": 48, "height": 32},
    ),
    "sdxl": ("sdxl", {}, {}),
    "sdxl all settings": (
        "sdxl",
        {"negative": "", "guidance": 4.0, "size": "48x32", "adapters": "ink:0.6"},
        {"negative_prompt": "", "guidance_scale": 4.0, "width": 48, "height": 32},
    ),
    "flux1": ("flux1", {"size": 64}, {"width": 64, "height": 64, **T5}),
    "flux1 all settings": (
        "flux1",
        {"guidance": 2.0, "size": "96x64", "adapters": "ink:0.6"},
        {"guidance_scale": 2.0, "width": 96, "height": 64, **T5},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "settings", "options"),
    [pytest.param(*case, id=name, marks=[] if "all settings" in name else [pytest.mark.slow]) for name, case in CASES.items()],
)
def test_a_cell_is_the_plain_pipelines_image(
    family: str, settings: dict[str, Any], options: dict[str, Any], store: Store, tmp_path: Path
) -> None:
    import torch

    folder = shared_folder(family)
    pipeline = plain_pipeline(family)
    if "adapters" in settings:
        store.add(tiny_adapter(folder, tmp_path / "ink.safetensors", family=family), name="ink")
        pipeline.load_lora_weights(tmp_path / "ink.safetensors", adapter_name="ink")
        pipeline.set_adapters(["ink"], [0.6])
    expected = pipeline("a red cat", num_inference_steps=4, generator=torch.Generator("cpu").manual_seed(3), **options).images[0]
    actual = drawn(GridConfig(base=str(folder), prompt="a red cat", steps=4, seed=3, out=str(tmp_path / "runs"), **settings), store)
    reference = numpy.asarray(expected, dtype=int)
    assert actual.shape == reference.shape and actual.std() > 5  # an image, not a plain ground
    assert abs(actual - reference).max() <= 1  # 1e-5 of the loop may cross the edge between two bytes


@pytest.mark.slow
@pytest.mark.slow
@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_a_single_file_draws_what_its_folder_draws(family: str, store: Store, tmp_path: Path) -> None:
    folder = {"sd1": tiny_sd1, "sdxl": tiny_sdxl}[family](tmp_path / "folder", standard=True)
    single = tiny_single_file(folder, tmp_path / "single.safetensors", family=family)
    reported = tiny_single_file(folder, tmp_path / "configs.safetensors", family=family, configs=True)
    for seed, base in enumerate((str(single), str(reported))):
        # the file has no scheduler: the sampler is named, so that both step alike
        asked: dict[str, Any] = {
            "prompt": "a red cat",
            "steps": 3,
            "seed": seed,
            "sampler": "euler",
            "size": 32,
            "out": str(tmp_path / "runs"),
        }
        assert (drawn(GridConfig(base=base, **asked), store) == drawn(GridConfig(base=str(folder), **asked), store)).all()
    assert plan(GridConfig(base=str(reported), prompt="a", steps=3), store).cells[0].render.width == 32


@pytest.mark.slow
def test_a_single_file_with_base_config(store: Store, tmp_path: Path) -> None:
    folder = tiny_sd1(tmp_path / "folder")
    single = tiny_single_file(folder, tmp_path / "single.safetensors")
    asked = GridConfig(
        base=str(single),
        base_config=str(folder),
        prompt="a prompt that is too long for it",
        steps=3,
        out=str(tmp_path / "runs"),
        axes=Axes(seed=[1]),
    )
    planned = plan(asked, store)
    assert planned.cells[0].render.width == 32 and "24 fit" in planned.notes[0]
    outcome = run(asked, store)
    assert (
        drawn(GridConfig(base=str(folder), prompt=asked.prompt, steps=3, seed=1, out=str(tmp_path / "runs")), store)
        == _image(outcome.folder)
    ).all()
    assert reproduce(outcome.folder / "images" / "seed-1.png", store).equal


def _image(folder: Path) -> Any:
    (path,) = (folder / "images").iterdir()
    with Image.open(path) as image:
        return numpy.asarray(image.convert("RGB"), dtype=int)


def test_an_embedded_scale_takes_no_negative(store: Store) -> None:
    from registry.errors import Faults

    with pytest.raises(Faults, match="has its guidance embedded"):
        plan(GridConfig(base=str(shared_folder("flux1")), prompt="a", negative="b"), store)
    with pytest.raises(Faults, match="cannot step a flow-matching base"):
        plan(GridConfig(base=str(shared_folder("flux1")), prompt="a", sampler="ddim"), store)
