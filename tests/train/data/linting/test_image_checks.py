"""Faults of images that were planted are found, and sound drawings and textures are not flagged."""

import io
from pathlib import Path

import numpy
import pytest
from PIL import Image, ImageDraw, ImageFilter

from registry.images.image_hash import small_copy
from train.config import DataConfig
from train.data.duplicates.small_copies import SmallCopies
from train.data.lint import Lint, lint
from train.data.linting import measures
from train.data.linting.finding import Finding
from train.data.linting.measures import measure
from train.data.overview import overview

ROOT = Path(__file__).resolve().parents[4]


def texture(seed: int, side: int = 512) -> Image.Image:
    """Noise with the spectrum of photographs: amplitude 1/f^1.25 (Field 1987: 1 to 1.5), with a few sharp shapes on it."""
    random = numpy.random.default_rng(seed)
    across, down = numpy.fft.rfftfreq(side), numpy.fft.fftfreq(side)[:, None]
    waves = numpy.fft.rfft2(random.normal(size=(side, side))) / numpy.maximum(numpy.hypot(across, down), 1 / side) ** 1.25
    values = numpy.fft.irfft2(waves, (side, side))
    image = Image.fromarray((128 + 45 * (values - values.mean()) / values.std()).clip(0, 255).astype(numpy.uint8)).convert("RGB")
    for _ in range(4):
        x, y = random.integers(0, side * 3 // 4, 2).tolist()
        ImageDraw.Draw(image).ellipse((x, y, x + side // 5, y + side // 6), fill=tuple(random.integers(0, 256, 3).tolist()))
    return image


@pytest.fixture(scope="module")
def photograph() -> Image.Image:
    """Matplotlib's sample, 512 x 600 pixels."""
    from matplotlib.cbook import get_sample_data

    with Image.open(get_sample_data("grace_hopper.jpg", asfileobj=False)) as opened:
        return opened.convert("RGB")


def as_jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(io.BytesIO(buffer.getvalue())).convert("RGB")


def saved(folder: Path, images: dict[str, Image.Image]) -> str:
    folder.mkdir()
    for number, (name, image) in enumerate(images.items()):
        image.save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text(f"texture {number}")
    return str(folder)


def found_by(found: Lint) -> dict[str, tuple[str, ...]]:
    return {finding.check: finding.images for finding in found.findings}


def test_planted_faults_are_found_and_nothing_else(tmp_path: Path, photograph: Image.Image) -> None:
    images = {f"sharp-{seed}": texture(seed) for seed in range(6)}
    images["blurred"] = texture(6).filter(ImageFilter.GaussianBlur(5))
    images["enlarged"] = texture(7, 256).resize((512, 512), Image.Resampling.LANCZOS)
    images["enlarged-jpeg"] = as_jpeg(photograph.resize((256, 300)).resize((512, 600), Image.Resampling.LANCZOS), 85)
    images["white"] = Image.new("RGB", (512, 512), (250, 251, 250))
    images["copy"] = as_jpeg(images["sharp-0"], 60)
    assert found_by(lint(DataConfig(path=saved(tmp_path / "set", images)))) == {
        "near-image": ("copy.png", "sharp-0.png"),
        "one-colour": ("white.png",),
        "blurred": ("blurred.png",),
        "enlarged": ("enlarged-jpeg.png", "enlarged.png"),
    }


def test_an_enlarged_image_with_enough_detail_is_not_flagged(tmp_path: Path) -> None:
    images = {f"sharp-{seed}": texture(seed) for seed in range(3)} | {"large": texture(7, 256).resize((512, 512), Image.Resampling.LANCZOS)}
    path = saved(tmp_path / "set", images)
    assert "enlarged" not in found_by(lint(DataConfig(path=path), resolution=256))  # half of it is 256
    (found,) = (one for one in lint(DataConfig(path=path), resolution=512).findings if one.check == "enlarged")
    assert found.images == ("large.png",) and "below 512 pixels" in found.what


@pytest.mark.parametrize("quality", [60, 75, 95])
def test_jpeg_does_not_hide_or_make_detail(photograph: Image.Image, quality: int) -> None:
    half = photograph.resize((256, 300), Image.Resampling.LANCZOS)
    sharp = [as_jpeg(image, quality) for image in (photograph, half, texture(0))]
    assert [measure(image, overview(image)).detail for image in sharp] == [1.0, 1.0, 1.0]
    for way in (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS):
        soft = as_jpeg(half.resize((512, 600), way), quality)
        assert measure(soft, overview(soft)).detail == 0.5


def test_sharpness_of_a_photograph_falls_with_its_blur(photograph: Image.Image) -> None:
    images = [photograph.filter(ImageFilter.GaussianBlur(radius)) for radius in (0, 2, 4)]
    sharp, soft, blurred = (measure(image, overview(image)).sharpness for image in images)
    assert 0.1 < sharp < 0.2 and 0.008 < soft < 0.02 and blurred < 0.003
    small = photograph.resize((307, 360), Image.Resampling.LANCZOS)  # measured at one scale, whatever the size
    assert measure(small, overview(small)).sharpness == pytest.approx(sharp, rel=0.4)


@pytest.mark.parametrize("name", ["ink", "ink/heldout", "blob", "blob/heldout"])
def test_the_sets_of_the_project_have_no_finding(name: str) -> None:
    assert lint(DataConfig(path=str(ROOT / "datasets" / name))).findings == ()


def test_soft_images_are_no_fault_where_all_are(tmp_path: Path) -> None:
    images = {f"soft-{seed}": texture(seed).filter(ImageFilter.GaussianBlur(5)) for seed in range(5)}
    assert "blurred" not in found_by(lint(DataConfig(path=saved(tmp_path / "set", images))))


def test_a_drawing_of_two_colours_equal_in_brightness_is_not_one_colour(tmp_path: Path) -> None:
    image = Image.new("RGB", (300, 300), (150, 76, 76))  # luma 98 of both
    image.paste((30, 149, 25), (0, 0, 150, 300))
    assert found_by(lint(DataConfig(path=saved(tmp_path / "set", {"two": image})))) == {}


def test_a_finding_is_one_line_with_stable_keys() -> None:
    finding = Finding("blurred", "blurred", tuple(f"{number}.png" for number in range(14)), "Remove them")
    assert finding.to_text(2) == "[blurred] blurred: 0.png, 1.png and 12 more. Remove them"
    assert set(finding.to_json()) == {"check", "what", "images", "advice"}


@pytest.mark.parametrize("dark", [64, 8192])
def test_the_share_of_one_brightness_is_measured_where_the_small_copy_has_one_colour(dark: int) -> None:
    values = numpy.full((256, 256), 255, numpy.uint8)
    values[::8].reshape(-1)[:dark] = 0
    one_colour, several = bytes([250, 250, 250, 254, 250, 250]), bytes([250, 250, 250, 255, 250, 250])
    assert measures._of_one_colour(one_colour) and not measures._of_one_colour(several)
    assert measures._plain(values) == pytest.approx(float((values == 255).mean()), abs=1e-12)
    values[::8] = 252  # to SAME levels it is one colour, in its small copy too
    white, spotted = (Image.fromarray(values).convert("RGB") for _ in range(2))
    spotted.paste("black", (0, 0, 64, 64))
    assert measure(white, overview(white)).plain == 1.0 and measure(spotted, overview(spotted)).plain == 0.0


@pytest.mark.parametrize("size", [(256, 256), (256, 288), (129, 48), (300, 487), (511, 333)])
def test_rows_of_the_luma_are_those_that_pillow_takes(size: tuple[int, int]) -> None:
    """So detail is the same number, whether the whole image's luma is there or its rows alone are converted."""
    noise = numpy.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), dtype=numpy.uint8)
    image = Image.fromarray(noise)
    assert numpy.array_equal(measures._rows_of(image, numpy.asarray(image.convert("L"))), measures._rows_of(image, None))


def test_powers_are_those_of_the_windowed_rows() -> None:
    image = Image.fromarray(numpy.random.default_rng(2).integers(0, 256, (48, 256, 3), dtype=numpy.uint8))
    rows = numpy.asarray(image.convert("L")).astype(numpy.float32)
    waves = numpy.fft.rfft((rows - rows.mean(1, keepdims=True)) * numpy.hanning(256), axis=1)
    for (low, high), given in zip((measures.COARSE, measures.FINE), measures._waves(256), strict=True):
        expected = (numpy.abs(waves[:, round(low * 256) : round(high * 256)]) ** 2).mean()
        assert measures._powers(numpy.stack([rows] * 2), given) == pytest.approx([expected] * 2, rel=1e-5)


@pytest.mark.parametrize(("even", "odd"), [(9.0, 0.0), (0.0, 9.0), (2.5, 2.5), (4.4, 0.0), (1.0, 1.0), (0.0, 1.0), (0.0, 4.4)])
def test_detail_is_that_of_all_rows(even: float, odd: float) -> None:
    """Also where every second row, which is looked at first, has all of it or nothing."""
    along = numpy.arange(256) * 2 * numpy.pi
    rows = 128 + 20 * numpy.cos(0.125 * along) + numpy.where(numpy.arange(48)[:, None] % 2, odd, even) * numpy.cos(0.3125 * along)
    rows = rows.round().astype(numpy.uint8)
    coarse, fine = (measures._powers(rows[None].astype(numpy.float32), waves)[0] for waves in measures._waves(256))
    expected = 0.5 if fine < measures.HALF * coarse else 1.0
    assert measures._details([rows, rows[::-1]]) == [expected, expected] and coarse >= measures.NOISE


def test_measures_are_the_same_alone_and_together(photograph: Image.Image) -> None:
    """Whatever the sizes, and however many wait: each image's are in its place."""
    images = [photograph.resize(size) for size in ((300, 256), (700, 520), (40, 2), (300, 256), (129, 300), (2200, 1100), (5000, 256))] * 3
    together, copies = measures.SetMeasures(), SmallCopies()
    for image in images:
        together.add(image, overview(image), copies)
    for one, image in zip(together, images, strict=True):
        alone = measure(image, overview(image))
        assert (one.sharpness, one.detail, one.plain) == pytest.approx((alone.sharpness, alone.detail, alone.plain), rel=1e-6)
    assert [*together] == [*together] and len({one.sharpness for one in together}) == 6
    views = map(overview, images)
    assert [copies[place] for place in range(len(copies))] == [small_copy(view.image, view.box) for view in views]
