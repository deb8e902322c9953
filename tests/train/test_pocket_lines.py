"""The embedded base's ControlNet as it lies in registry/pocket_lines, the drawings beside it, and how its hints are made."""

import json
from pathlib import Path

import numpy as np
import pytest

from registry.home import pocket_dir, pocket_lines_dir
from registry.store import Store
from tests.train.test_pocket_base import header

ROOT = Path(__file__).resolve().parents[2]
LINES = ROOT / "registry" / "pocket_lines"
WEIGHTS = LINES / "diffusion_pytorch_model.safetensors"
DRAWINGS = ROOT / "datasets" / "lines"


def test_its_weights_are_float16_and_under_10_mb() -> None:
    assert 5e6 < WEIGHTS.stat().st_size <= 10e6
    assert {tensor["dtype"] for tensor in header(WEIGHTS).values()} == {"F16"}


def test_it_is_built_for_pocket_and_names_no_folder() -> None:
    config = json.loads((LINES / "config.json").read_text())
    base = json.loads((ROOT / "registry" / "pocket" / "unet" / "config.json").read_text())
    names = ("block_out_channels", "layers_per_block", "cross_attention_dim", "attention_head_dim", "in_channels", "norm_num_groups")
    assert {name: config[name] for name in names} == {name: base[name] for name in names}
    assert len(config["conditioning_embedding_out_channels"]) == 3, "two halvings: a latent cell is 4 pixels"
    assert "_name_or_path" not in config


def test_it_is_registered_in_a_fresh_home(tmp_path: Path) -> None:
    record = Store(tmp_path).find("pocket-lines", kind="controlnet")
    assert (record.id, record.family, record.licence, record.path) == ("pocket-lines", "sd1", "apache-2.0", str(pocket_lines_dir()))


def grid(tmp_path: Path, prompts: list[str], drawings: list[str], *, scale: float, steps: int) -> list[Path]:
    """The images of drawing i with prompt i, by the command's own job."""
    from infer.grid.config import Axes, GridConfig
    from infer.grid.job import run

    found = []
    for prompt, drawing in zip(prompts, drawings, strict=True):
        control = {"net": "pocket-lines", "image": str(DRAWINGS / f"{drawing}.png"), "scale": scale}
        config = GridConfig(name="lines", axes=Axes(prompt=[prompt]), controls=[control], seed=7, guidance=4.0, steps=steps, device="cpu")
        config.out = str(tmp_path / "runs")
        done = run(config, Store(tmp_path / "home"))
        cells = [json.loads(line) for line in (done.folder / "cells.jsonl").read_text().splitlines()]
        found += [done.folder / cell["image"] for cell in cells]
    return found


@pytest.mark.slow
def test_a_drawing_is_drawn_as_diffusers_own_pipeline_does(tmp_path: Path) -> None:
    import torch
    from diffusers import ControlNetModel, StableDiffusionControlNetPipeline
    from PIL import Image

    (actual,) = grid(tmp_path, ["a cat"], ["cat"], scale=1.0, steps=4)
    net = ControlNetModel.from_pretrained(LINES)
    pipeline = StableDiffusionControlNetPipeline.from_pretrained(pocket_dir(), controlnet=net, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    lines = Image.open(DRAWINGS / "cat.png").convert("RGB")
    seed = torch.Generator().manual_seed(7)
    expected = pipeline("a cat", image=lines, num_inference_steps=4, guidance_scale=4.0, generator=seed).images[0]
    apart = np.abs(np.asarray(Image.open(actual).convert("RGB"), np.int16) - np.asarray(expected, np.int16))
    assert apart.max() <= 1


@pytest.mark.slow
def test_images_follow_their_lines() -> None:
    from train.pocket.follows import SteeredArtist, agreements, ink_cases, line_cases

    artist, cases = SteeredArtist(LINES), [*ink_cases(), *line_cases()]
    before = np.array(agreements(artist.draw(cases, scale=0.0, steps=10), cases))
    after = np.array(agreements(artist.draw(cases, steps=10), cases))
    assert after.mean() > before.mean() + 0.1, (before.mean(), after.mean())
    assert (after > before).mean() >= 0.75


def test_drawings_are_white_lines_on_black_at_pockets_size() -> None:
    from PIL import Image

    from train.pocket.drawings import DRAWINGS as STROKES
    from train.pocket.drawings import draw

    assert {path.stem for path in DRAWINGS.glob("*.png")} == set(STROKES)
    for name, strokes in STROKES.items():
        with Image.open(DRAWINGS / f"{name}.png") as image:
            pixels = np.asarray(image.convert("RGB"))
            assert image.size == (64, 64)
            assert np.array_equal(pixels, np.asarray(draw(strokes))), f"{name} is not what its strokes give"
        assert 0.03 < float((pixels > 127).mean()) < 0.25


def disc(radius: int = 20) -> np.ndarray:
    """A red disc on white, (64, 64, 3)."""
    y, x = np.indices((64, 64)) - 31.5
    return np.where((x * x + y * y < radius * radius)[..., None], [200, 30, 30], 255).astype(np.uint8)


def test_the_outline_of_a_disc_is_its_rim() -> None:
    from train.pocket.lines import outline

    rim = outline(disc())
    assert rim is not None
    y, x = np.nonzero(rim)
    assert np.allclose(np.hypot(y - 31.5, x - 31.5), 19.5, atol=1.0)
    assert outline(np.full((64, 64, 3), 255, np.uint8)) is None


@pytest.mark.parametrize("seed", range(4))
def test_a_scribble_lies_near_the_edges_of_its_picture(seed: int) -> None:
    from train.pocket.lines import agreement, canny, scribble

    drawn = scribble(disc(), np.random.default_rng(seed))
    assert drawn.shape == (64, 64) and drawn.max() > 200
    assert agreement(drawn > 127, canny(disc()) > 0, tolerance_px=4) > 0.9


def test_agreement_is_f1_within_the_tolerance() -> None:
    from train.pocket.lines import agreement

    wanted = np.zeros((9, 9), bool)
    wanted[4, 1:8] = True
    above, far = np.roll(wanted, -2, 0), np.roll(wanted, -3, 0)
    assert agreement(above, wanted) == 1.0 and agreement(far, wanted) == 0.0
    half = wanted.copy()
    half[4, 1:3] = half[0, 1:3] = True
    half[4, 3:] = False  # 2 pixels on the line, 2 far from it: precision 1/2; 4 of 7 pixels of the line lie within 2 px: recall 4/7
    assert agreement(half, wanted) == pytest.approx(2 * (1 / 2) * (4 / 7) / (1 / 2 + 4 / 7))


def test_a_reshaped_picture_keeps_its_ground_and_changes_its_outline() -> None:
    from train.pocket.lines import agreement, canny, reshaped

    other = reshaped(disc(), np.random.default_rng(3))
    assert other.shape == (64, 64, 3) and (other[[0, 0, -1, -1], [0, -1, 0, -1]] == 255).all()
    assert 0.1 < agreement(canny(other) > 0, canny(disc()) > 0) < 0.95
