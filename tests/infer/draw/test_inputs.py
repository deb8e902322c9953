"""Images given to a grid: what is read, kept, refused and reported; what is drawn of them, and drawn again."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy
import pytest
from PIL import Image

from infer.draw.files import ImageFile
from infer.draw.input_images import InputImages, check_fit, fitted, mask_of
from infer.draw.render import Render
from infer.draw.values import Fit
from infer.grid.config import Axes, GridConfig
from infer.grid.job import plan, run
from infer.output.png import read_png
from infer.output.reproduce import reproduce
from registry.errors import BadFile, Faults, NotFound, Refused
from tests.colour_profiles import adobe_rgb
from tests.infer.conftest import Shelf
from tests.infer.images import a1111_reads
from tests.tiny import tiny_control

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # of diffusers' schedulers under numpy 2


def noise(path: Path, size: tuple[int, int] = (32, 32), seed: int = 0) -> str:
    pixels = numpy.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=numpy.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return str(path)


def half(path: Path, size: tuple[int, int] = (32, 32)) -> str:
    """White on the left half."""
    mask = Image.new("L", size, 0)
    mask.paste(255, (0, 0, size[0] // 2, size[1]))
    mask.save(path)
    return str(path)


def config(shelf: Shelf, axes: dict[str, Any] | None = None, **settings: Any) -> GridConfig:
    given = {"base": "tiny", "prompt": "a cat", "steps": 4, "guidance": 3.0, "out": str(shelf.work)}
    return GridConfig(axes=Axes(**(axes or {})), **given | settings)


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "cells.jsonl").read_text().splitlines()]


def pixels(folder: Path, line: dict[str, Any]) -> Any:
    return numpy.asarray(Image.open(folder / line["image"]).convert("RGB"))


def faults(asked: GridConfig, shelf: Shelf) -> str:
    with pytest.raises(Faults) as reported:
        plan(asked, shelf.store)
    return str(reported.value)


# --- image-to-image


def test_a_strength_axis_walks_fewer_steps_the_weaker_it_is(shelf: Shelf, tmp_path: Path) -> None:
    asked = config(shelf, {"strength": [0.25, 0.5, 1.0]}, init=noise(tmp_path / "in.png"), sampler="ddim")
    planned = plan(asked, shelf.store)
    assert planned.forwards == 1 + 2 + 4
    outcome = run(asked, shelf.store)
    assert (outcome.result["forwards"], outcome.result["rendered"]) == (7, 3)
    reported = lines(outcome.folder)
    assert [line["axes"] for line in reported] == [{"strength": 0.25}, {"strength": 0.5}, {"strength": 1.0}]
    assert len({pixels(outcome.folder, line).tobytes() for line in reported}) == 3
    assert "in.png" in (outcome.folder / "report.html").read_text()


def test_the_image_the_pipeline_draws(shelf: Shelf, tmp_path: Path) -> None:
    import diffusers
    import torch

    outcome = run(config(shelf, init=noise(tmp_path / "in.png"), seed=5), shelf.store)  # strength and size are the plain call's own
    pipeline = diffusers.StableDiffusionImg2ImgPipeline.from_pretrained(shelf.base, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    expected = pipeline(
        "a cat",
        Image.open(tmp_path / "in.png"),
        num_inference_steps=4,
        guidance_scale=3.0,
        generator=torch.Generator("cpu").manual_seed(5),
    ).images[0]
    (line,) = lines(outcome.folder)
    assert line["render"]["strength"] == 0.8
    assert numpy.abs(pixels(outcome.folder, line).astype(int) - numpy.asarray(expected).astype(int)).max() <= 1  # one step of rounding


def test_contents_count_and_not_names(shelf: Shelf, tmp_path: Path) -> None:
    first = noise(tmp_path / "a.png")
    copied = tmp_path / "elsewhere" / "b.png"
    copied.parent.mkdir()
    copied.write_bytes(Path(first).read_bytes())
    run(config(shelf, init=first), shelf.store)
    assert run(config(shelf, init=str(copied)), shelf.store).result["reused"] == 1
    noise(Path(first), seed=9)
    assert run(config(shelf, init=first), shelf.store).result["rendered"] == 1


def test_an_image_is_upright_and_on_white(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (4, 2), (255, 0, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned to the right
    clear.save(tmp_path / "clear.png", exif=exif)
    images, file = InputImages(tmp_path / "kept"), ImageFile(path=str(tmp_path / "clear.png"))
    seen = images.read(file)
    assert seen.size == (2, 4) and seen.clear
    assert numpy.asarray(images.image(file)).min() == 255


def test_an_init_axis_with_none_is_drawn_from_noise(shelf: Shelf, tmp_path: Path) -> None:
    asked = config(shelf, {"init": [None, noise(tmp_path / "in.png")]}, strength=0.5, size=32)
    outcome = run(asked, shelf.store)
    first, second = lines(outcome.folder)
    assert first["render"]["init"] is None and first["render"]["strength"] is None and second["render"]["strength"] == 0.5
    plain = run(config(shelf, size=32), shelf.store)
    assert plain.result["reused"] == 1  # the very cell of a grid without images


def test_older_keys_stand_where_no_image_is_given() -> None:
    given: dict[str, Any] = {"base": "b", "base_sha256": "0" * 64, "steps": 1, "guidance": 1.0, "guided": False, "width": 8, "height": 8}
    assert Render(**given).key() == "ce6bf6d1cff05f81d2ff7f75f1868d1dc756cd0d8a4d847b33fcfe56e1f9814d"
    assert Render.from_json(Render(**given).to_json()) == Render(**given)


# --- masks


@pytest.mark.slow
def test_a_mask_keeps_the_rest_to_the_pixel(shelf: Shelf, tmp_path: Path) -> None:
    init, mask = noise(tmp_path / "in.png"), half(tmp_path / "mask.png")
    outcome = run(config(shelf, {"strength": [0.5, 1.0]}, init=init, mask=mask), shelf.store)
    given = numpy.asarray(Image.open(init))
    for line in lines(outcome.folder):
        drawn = pixels(outcome.folder, line)
        assert (drawn[:, 16:] == given[:, 16:]).all() and (drawn[:, :16] != given[:, :16]).any()
    loose = run(config(shelf, init=init, mask=mask, strength=0.5, paste=False), shelf.store)
    (line,) = lines(loose.folder)
    assert loose.result["rendered"] == 1 and (pixels(loose.folder, line)[:, 16:] != given[:, 16:]).any()


def test_a_mask_is_grey_halved_at_the_middle() -> None:
    image = Image.fromarray(numpy.array([[0, 127], [128, 255]], dtype=numpy.uint8))
    assert mask_of(image, (2, 2), None).tolist() == [[False, False], [True, True]]


@pytest.mark.parametrize(
    ("settings", "reported"),
    [
        ({"mask": "half"}, ["mask is given, but no init"]),
        ({"strength": 0.5, "paste": False, "fit": Fit.crop}, ["strength is given", "paste=false is given", "fit is given"]),
        ({"init": "in", "mask": "black"}, ["black all over"]),
        ({"init": "in", "mask": "thin"}, ["no white as wide as a latent cell of 4 pixels"]),
        ({"init": "in", "mask": "clear"}, ["see-through pixels"]),
        (
            {"init": "in", "mask": "tall", "strength": 1.5},
            ["32x48 pixels, another shape than the drawing's 32x32", "strength is 1.5"],
        ),
        ({"init": "in", "strength": 0.1}, ["strength 0.1 of 4 steps is less than one step", "at least 0.25"]),
        ({"init": "gone", "mask": "half"}, ["init: There is no image"]),
        ({"init": "text"}, ["init:", "no image format"]),
        ({"init": "moving"}, ["init:", "2 frames"]),
        ({"init": "in", "size": "64x32"}, ["init", "another shape than the drawing's 64x32", "fit=crop"]),
        ({"init": "odd"}, ["multiples of 8", "is 33x32 pixels, as the drawing then is. Give size=32x32 fit=crop"]),
    ],
)
def test_what_cannot_be_drawn_is_reported_all_at_once(shelf: Shelf, tmp_path: Path, settings: dict[str, Any], reported: list[str]) -> None:
    files = {"in": noise(tmp_path / "in.png"), "half": half(tmp_path / "half.png"), "odd": noise(tmp_path / "odd.png", (33, 32))}
    files |= {name: str(tmp_path / f"{name}.png") for name in ("black", "thin", "clear", "tall", "gone", "text", "moving")}
    Image.new("L", (32, 32), 0).save(files["black"])
    thin = Image.new("L", (32, 32), 0)
    thin.putpixel((5, 5), 255)
    thin.save(files["thin"])
    Image.new("RGBA", (32, 32), (255, 255, 255, 0)).save(files["clear"])
    Image.new("L", (32, 48), 255).save(files["tall"])
    Path(files["text"]).write_text("not an image")
    Image.new("L", (32, 32), 0).save(files["moving"], save_all=True, append_images=[Image.new("L", (32, 32), 255)])
    given = {name: files.get(str(value), value) if name in ("init", "mask") else value for name, value in settings.items()}
    text = faults(config(shelf, **given), shelf)
    for part in reported:
        assert part in text
    assert not shelf.work.exists() and not (shelf.home / "pictures").exists()


# --- sizes


def test_an_image_of_another_size_is_scaled_with_a_note(shelf: Shelf, tmp_path: Path) -> None:
    asked = config(shelf, init=noise(tmp_path / "in.png", (64, 64)), size=32)
    assert any("64x64 pixels: it is scaled to 32x32" in note for note in plan(asked, shelf.store).notes)
    cropped = plan(config(shelf, init=noise(tmp_path / "w.png", (96, 64)), size=32, fit=Fit.crop), shelf.store)
    assert any("its middle is cut out" in note for note in cropped.notes)
    own = plan(config(shelf, init=noise(tmp_path / "w.png", (96, 64))), shelf.store)
    assert (own.cells[0].render.width, own.cells[0].render.height) == (96, 64)
    assert any("tiny was made for 32x32" in note for note in own.notes)


def test_fits() -> None:
    image = Image.new("RGB", (40, 20), (255, 0, 0))
    image.paste((0, 0, 255), (10, 0, 30, 20))  # its middle
    assert set(fitted(image, (20, 20), "crop").get_flattened_data()) == {(0, 0, 255)}
    assert len(set(fitted(image, (20, 20), "stretch").get_flattened_data())) > 1
    assert fitted(image, (40, 20), None) is image


def test_a_shape_is_the_same_to_the_pixel(tmp_path: Path) -> None:
    seen = InputImages(tmp_path / "kept").read(ImageFile(path=noise(tmp_path / "p.png", (1000, 667))))
    check_fit("init", seen, (480, 320), None)  # 667 / 1000 of 480 is 320.2
    with pytest.raises(Refused, match="another shape"):
        check_fit("init", seen, (480, 328), None)


# --- ControlNets


@pytest.mark.slow
def test_a_steered_grid(shelf: Shelf, tmp_path: Path) -> None:
    """A scale of 0 and no net are one image, and the base's own; plan and run count the same."""
    hint = noise(tmp_path / "hint.png")
    shelf.store.add(tiny_control("sd1"), name="canny")
    asked = config(
        shelf, {"control": ["none", f"canny:{hint}:0.5"], "scale": [0.0, 0.5, 1.0]}, where="control != 'none' or scale == 0", size=32
    )
    assert "this cell has none" in faults(asked, shelf)
    asked = config(shelf, {"scale": [0.0, 0.5, 1.0]}, controls=f"canny:{hint}", size=32)
    planned = plan(asked, shelf.store)
    outcome = run(asked, shelf.store)
    reported = lines(outcome.folder)
    assert (outcome.result["forwards"], outcome.result["rendered"]) == (planned.forwards, 3)
    assert planned.control_calls == planned.forwards * 2 // 3  # none at a scale of 0
    assert len({pixels(outcome.folder, line).tobytes() for line in reported}) == 3
    assert run(config(shelf, size=32), shelf.store).result["reused"] == 1
    parameters = a1111_reads(read_png(outcome.folder / reported[1]["image"]).parameters)
    autov1 = shelf.store.hashed(shelf.store.find("canny")).hashes.autov1
    model = f"canny [{autov1}]" if autov1 else "canny"
    assert (
        parameters["ControlNet 0"]
        == f"Module: none, Model: {model}, Weight: 0.5, Guidance Start: 0, Guidance End: 1, Control Mode: Balanced"
    )


@pytest.mark.slow
def test_records_prepare_and_window(shelf: Shelf, tmp_path: Path) -> None:
    net = str(tiny_control("sd1"))
    record = {"net": net, "image": noise(tmp_path / "p.png"), "scale": 0.5, "end": 0.5, "prepare": "edges"}
    outcome = run(config(shelf, {"control": [record, f"{net}:{record['image']}:0.5"]}, size=32), shelf.store)
    first, second = lines(outcome.folder)
    assert (pixels(outcome.folder, first) != pixels(outcome.folder, second)).any()
    assert first["render"]["controls"][0]["end"] == 0.5 and first["axes"]["control"] != second["axes"]["control"]
    assert reproduce(outcome.folder / first["image"], shelf.store).equal


@pytest.mark.parametrize(
    ("controls", "reported"),
    [
        ("sdxl", ["another build than this base"]),
        ("flux1", ["is one of flux1, but tiny is sd1"]),
        (
            {"scale": 1000.0, "start": 0.5, "end": 0.2, "mode": 1, "prepare": "normals"},
            ["scale 1000", "start 0.5 and end 0.2", "no union net", "prepare is 'normals'"],
        ),
        ("missing", ["No controlnet is registered"]),
    ],
)
def test_nets_that_do_not_fit_are_refused_before_loading(shelf: Shelf, tmp_path: Path, controls: Any, reported: list[str]) -> None:
    image = noise(tmp_path / "p.png")
    if isinstance(controls, dict):
        given: Any = {"net": str(tiny_control("sd1")), "image": image, **controls}
    else:
        given = f"{'missing' if controls == 'missing' else tiny_control(controls)}:{image}"
    text = faults(config(shelf, controls=given), shelf)
    for part in reported:
        assert part in text


def test_a_net_with_the_same_hint_twice_is_refused(shelf: Shelf, tmp_path: Path) -> None:
    net, image, other = str(tiny_control("sd1")), noise(tmp_path / "p.png"), noise(tmp_path / "q.png", seed=1)
    shelf.store.add(net, name="canny")
    text = faults(config(shelf, size=32, controls=[f"{net}:{image}:0.5", f"canny:{image}:0.2"]), shelf)
    assert f"The ControlNets {net} and canny are one net with one hint, {image}. Give it once, with the sum of the scales." in text
    half_of_the_steps = {"net": net, "image": image, "end": 0.5}
    assert plan(config(shelf, size=32, controls=[f"{net}:{image}", f"{net}:{other}", half_of_the_steps]), shelf.store)


# --- drawn again


@pytest.mark.slow
def test_reproduce_finds_the_images_by_content(shelf: Shelf, tmp_path: Path) -> None:
    import shutil

    init, mask = Path(noise(tmp_path / "in.png")), Path(half(tmp_path / "mask.png"))
    outcome = run(config(shelf, init=str(init), mask=str(mask), strength=0.5), shelf.store)
    image = outcome.folder / lines(outcome.folder)[0]["image"]
    init.unlink()
    noise(mask, seed=3)  # another image under the old name
    assert reproduce(image, shelf.store).equal
    shutil.rmtree(shelf.home / "pictures")
    with pytest.raises(Faults) as reported:
        reproduce(image, shelf.store)
    assert len(reported.value.faults) == 2 and "it was called" in str(reported.value)


def test_a_kept_copy_that_is_damaged_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "in.png"
    images = InputImages(tmp_path / "kept")
    seen = images.read(ImageFile(path=noise(path)))
    known = ImageFile(path=str(path), sha256=seen.sha256)
    images.keep([known])
    (tmp_path / "kept" / seen.sha256[:2] / seen.sha256).write_bytes(b"damaged")
    assert InputImages(tmp_path / "kept").read(known).sha256 == seen.sha256  # the original is there
    path.unlink()
    with pytest.raises(NotFound, match="not here"):
        InputImages(tmp_path / "kept").read(known)
    with pytest.raises(BadFile, match="is no file"):
        images.read(ImageFile(path=str(tmp_path)))


# --- another VAE


def other_vae(shelf: Shelf, folder: Path, **changes: Any) -> Path:
    """The tiny base's VAE with a decoder of its own."""
    import torch
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_config({**AutoencoderKL.load_config(shelf.base / "vae"), **changes})
    vae.load_state_dict(AutoencoderKL.from_pretrained(shelf.base / "vae").state_dict())
    with torch.no_grad():
        vae.decoder.conv_out.weight.mul_(0.5)
    vae.save_pretrained(folder)
    return folder


def ldm_file(folder: Path, path: Path) -> Path:
    """The folder's VAE as a single file in LDM's names, attention as 1 x 1 convolutions."""
    from safetensors.torch import load_file, save_file

    from registry.architectures.unet.ldm_names import vae_name
    from registry.formats.model_folder import read_json

    config = {**read_json(folder / "config.json")}
    state = {vae_name(config, name): tensor for name, tensor in load_file(folder / "diffusion_pytorch_model.safetensors").items()}
    attention = {name: tensor[..., None, None] for name, tensor in state.items() if ".attn_1." in name and tensor.ndim == 2}
    save_file({name: tensor.contiguous() for name, tensor in (state | attention).items()}, path)
    return path


@pytest.mark.slow
def test_one_denoising_serves_every_vae(shelf: Shelf, tmp_path: Path) -> None:
    folder = other_vae(shelf, tmp_path / "soft")
    file = ldm_file(folder, tmp_path / "soft.safetensors")
    shelf.store.add(folder, name="soft")
    asked = config(shelf, {"vae": [None, "soft", str(file)], "seed": [1, 2]}, sampler="ddim")
    planned = plan(asked, shelf.store)
    outcome = run(asked, shelf.store)
    assert outcome.result["forwards"] == planned.forwards == 2 * 4 and outcome.result["rendered"] == 6
    reported = lines(outcome.folder)
    own, soft, single = (
        pixels(outcome.folder, next(line for line in reported if line["axes"]["vae"] == name)) for name in (None, "soft", str(file))
    )
    assert (own != soft).any() and (soft == single).all()  # a folder and a single file of one VAE are one
    parameters = read_png(outcome.folder / reported[-1]["image"]).parameters
    assert f"VAE hash: {reported[-1]['render']['vae_sha256'][:10]}, VAE: soft" in parameters
    assert reproduce(outcome.folder / reported[-1]["image"], shelf.store).equal
    again = run(config(shelf, {"vae": ["soft"], "seed": [1]}, sampler="ddim"), shelf.store)
    assert again.result["reused"] == 1


def test_a_vae_s_own_latents_are_not_shared(shelf: Shelf, tmp_path: Path) -> None:
    """With init each VAE encodes it for itself: nothing is shared."""
    vae = str(other_vae(shelf, tmp_path / "soft"))
    asked = config(shelf, {"vae": [None, vae]}, init=noise(tmp_path / "in.png"), strength=0.5, sampler="ddim")
    planned = plan(asked, shelf.store).forwards
    assert run(asked, shelf.store).result["forwards"] == planned == 2 * 2


@pytest.mark.parametrize(
    ("changes", "reported"),
    [
        ({"scaling_factor": 0.5}, "scaling_factor is 0.5, the base's 0.18215"),
        ({"shift_factor": 0.1}, "shift_factor is 0.1, the base's None"),
    ],
)
def test_a_vae_of_another_latent_space_is_refused(shelf: Shelf, tmp_path: Path, changes: dict[str, float], reported: str) -> None:
    assert reported in faults(config(shelf, vae=str(other_vae(shelf, tmp_path / "vae", **changes))), shelf)


def test_what_is_no_vae_is_refused(shelf: Shelf) -> None:
    assert "a vae was expected" in faults(config(shelf, vae=str(shelf.base)), shelf)


# --- textual inversion embeddings


def word(path: Path, key: str, *, count: int = 2, seed: int = 1) -> str:
    import torch
    from safetensors.torch import save_file

    save_file({key: torch.randn(count, 32, generator=torch.Generator().manual_seed(seed))}, path)
    return str(path)


@pytest.mark.slow
def test_textual_inversions_in_a_grid(shelf: Shelf, tmp_path: Path) -> None:
    shelf.store.add(word(tmp_path / "apple.safetensors", "<apple>"), name="apple")
    hands = word(tmp_path / "hands.safetensors", "emb_params", count=1, seed=2)
    record = {"embedding": hands, "token": "<h>"}
    asked = config(shelf, {"embedding": ["none", "apple", record, f"apple+{hands}"]}, prompt="an <apple> and <h>", sampler="ddim")
    planned = plan(asked, shelf.store)
    assert [note for note in planned.notes if "is in no prompt" in note] == [
        "The token 'hands' of a textual inversion embedding is in no prompt: it has no effect. Write it in the prompt."
    ]
    outcome = run(asked, shelf.store)
    assert (outcome.result["encodes"], outcome.result["rendered"]) == (planned.encodes, 4)
    reported = lines(outcome.folder)
    drawn = [pixels(outcome.folder, line).tobytes() for line in reported]
    assert len(set(drawn[:3])) == 3 and drawn[3] == drawn[1]  # `hands` is not in the last prompt
    assert reported[2]["render"]["embeddings"][0]["token"] == "<h>"
    assert read_png(outcome.folder / reported[1]["image"]).parameters.count("TI hashes: ") == 1
    for line in reported:
        assert reproduce(outcome.folder / line["image"], shelf.store).equal
    assert run(config(shelf, prompt="an <apple> and <h>", sampler="ddim"), shelf.store).result["reused"] == 1


@pytest.mark.parametrize(
    ("given", "reported"),
    [
        ("apple:0.5", "has no weight"),
        ({"embedding": "apple", "word": "x"}, "is no textual inversion embedding"),
        ([{"embedding": "apple"}, {"embedding": "apple"}], "both spelt '<apple>'"),
        ({"embedding": "apple", "token": "a"}, "in the base's vocabulary already"),
        ("wide", "vectors of width 48"),
    ],
)
def test_textual_inversions_that_cannot_be_read_are_refused(shelf: Shelf, tmp_path: Path, given: Any, reported: str) -> None:
    import torch
    from safetensors.torch import save_file

    shelf.store.add(word(tmp_path / "apple.safetensors", "<apple>"), name="apple")
    save_file({"<wide>": torch.zeros(1, 48)}, tmp_path / "wide.safetensors")
    shelf.store.add(tmp_path / "wide.safetensors", name="wide")
    assert reported in faults(config(shelf, embeddings=given), shelf)


def test_a_pattern_is_each_image(shelf: Shelf, tmp_path: Path) -> None:
    for name in ("b", "a"):
        noise(tmp_path / f"{name}.png", seed=ord(name))
    planned = plan(config(shelf, {"init": [f"{tmp_path}/*.png"]}), shelf.store)
    assert planned.layout.dimensions[0].labels == ("a.png", "b.png")
    assert "matches no file" in faults(config(shelf, {"init": [f"{tmp_path}/*.jpg"]}), shelf)


def test_the_colours_of_an_image_are_converted_to_srgb(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), (104, 179, 72)).save(tmp_path / "adobe.png", icc_profile=adobe_rgb())
    images = InputImages(tmp_path / "pictures")
    file = ImageFile(path=str(tmp_path / "adobe.png"))
    assert images.image(file).getpixel((0, 0)) == pytest.approx((28, 180, 60), abs=1)
    assert images.read(file).remarks == ("converted to sRGB from the colour profile Adobe RGB (1998)",)


def test_an_image_that_no_metadata_can_name_is_refused_before_anything_is_drawn(shelf: Shelf, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.png")
    Image.new("RGB", (32, 32)).save(path)
    assert "caf\\xe9.png: is called by bytes that are not UTF-8" in faults(config(shelf, init=str(path)), shelf)
    with pytest.raises(Faults, match="out must be UTF-8"):
        config(shelf, out=str(path))
