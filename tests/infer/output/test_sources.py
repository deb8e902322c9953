"""The source images that sheet and report show: each once, small, hints as the ControlNet gets them."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

import infer.output.sources
from infer.draw.files import ControlNet, ImageFile
from infer.draw.input_images import InputImages
from infer.hints.hints import Hints
from infer.hints.setting import Prepare
from infer.output.sources import cell_sources, source_images
from tests.infer.images import resolved, square


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """White, with a black square whose sides are edges."""
    image = square((255, 255, 255))
    image.paste((0, 0, 0), (16, 16, 48, 48))
    image.save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def made_hints(home: Path) -> Hints:
    return Hints(InputImages(home / "pictures"), home / "hints", lambda path: "")


def read(images: InputImages, path: Path) -> ImageFile:
    file = ImageFile(path=str(path))
    return replace(file, sha256=images.read(file).sha256)


def test_each_source_image_once_and_hints_as_the_net_gets_them(photo: Path, tmp_path: Path) -> None:
    hints = made_hints(tmp_path)
    file = read(hints.images, photo)
    control = ControlNet(reference="canny", picture=file, prepare=Prepare(name="edges"))
    renders = [resolved(init=file, mask=file, strength=1.0, controls=(control,), seed=seed) for seed in (1, 2)]
    found, notes = source_images([*renders, resolved()], hints)
    assert [one.label for one in found] == ["init photo.png", "mask photo.png", "hint for canny: edges of photo.png"] and notes == []
    init, _mask, hint = (Image.open(io.BytesIO(one.png)) for one in found)
    assert init.getpixel((4, 4)) == (255, 255, 255) and init.getpixel((32, 32)) == (0, 0, 0)
    assert hint.getpixel((4, 4)) == hint.getpixel((32, 32)) == (0, 0, 0) and max(hint.getextrema()[0]) == 255  # type: ignore[arg-type]


def test_each_cell_knows_its_own(photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hints = made_hints(tmp_path)
    square((0, 0, 90)).save(tmp_path / "other.png")
    file, other = read(hints.images, photo), read(hints.images, tmp_path / "other.png")
    control = ControlNet(reference="canny", picture=file, prepare=Prepare(name="edges"))
    renders = [
        resolved(),
        resolved(controls=(control,)),
        resolved(init=other, strength=1.0, controls=(control,)),
        resolved(init=other, strength=1.0),
    ]
    labels = [one.label for one in source_images(renders, hints)[0]]
    assert labels == ["image photo.png", "hint for canny: edges of photo.png", "init other.png"]
    assert cell_sources(renders, hints) == [(), (0, 1), (0, 1, 2), (2,)]
    redrawn = [resolved(init=file, strength=1.0), resolved(controls=(control,))]
    assert cell_sources(redrawn, hints) == [(0,), (0, 1)]  # the image to redraw is the one that the hint is made of
    monkeypatch.setattr(infer.output.sources, "MOST", 1)
    assert cell_sources(renders, hints) == [(), (0,), (0,), ()]


def test_a_prepared_hint_stands_behind_its_image(photo: Path, tmp_path: Path) -> None:
    hints = made_hints(tmp_path)
    file = read(hints.images, photo)
    given = [ControlNet(reference="canny", picture=file, prepare=prepare) for prepare in (Prepare(name="edges"), None)]
    found, _notes = source_images([resolved(controls=tuple(given))], hints)
    labels = ["image photo.png", "hint for canny: edges of photo.png", "hint for canny: photo.png"]
    assert [one.label for one in found] == labels and found[0].png == found[2].png != found[1].png


def test_large_ones_are_made_small_and_many_are_cut_with_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(infer.output.sources, "MOST", 2)
    hints = made_hints(tmp_path)
    renders = []
    for number in range(3):
        square((number, 0, 0), (2048, 1024)).save(tmp_path / f"{number}.png")
        renders.append(resolved(init=read(hints.images, tmp_path / f"{number}.png"), strength=1.0))
    found, notes = source_images(renders, hints)
    assert [one.size for one in found] == [(512, 256)] * 2 and notes == ["The sheet and the report show 2 of 3 source images."]
