from pathlib import Path

import pytest

from registry.errors import Refused
from train.masks.files import check_source, lone_masks, mask_files, named_as_masks


def touched(place: Path, *names: str) -> list[Path]:
    for name in names:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).touch()
    return [place / name for name in names]


def test_masks_beside_and_in_their_folder_are_found(tmp_path: Path) -> None:
    images = touched(tmp_path, "a.png", "b.jpg", "c.webp", "d.png")
    beside = touched(tmp_path, "a-masklabel.png", "b_mask.png")
    touched(tmp_path, "masks/c.png", "masks/d_mask.png", "masks/z.png")
    assert named_as_masks([*images, *beside], set()) == beside
    found = mask_files(tmp_path, images, beside, "files")
    assert {image.name: [file.name for file in files] for image, files in found.items()} == {
        "a.png": ["a-masklabel.png"],
        "b.jpg": ["b_mask.png"],
        "c.webp": ["c.png"],
        "d.png": ["d_mask.png"],
    }
    assert [file.name for file in lone_masks(tmp_path, images, "files")] == ["z.png"]
    assert not mask_files(tmp_path, images, beside, "none")


def test_a_folder_of_masks_has_the_images_names(tmp_path: Path) -> None:
    """As sd-scripts' conditioning_data_dir; the masks of another folder of images lie in a subfolder of its name."""
    images = touched(tmp_path / "set", "a.png")
    held = touched(tmp_path / "set" / "heldout", "b.png")
    touched(tmp_path / "kept", "a.png", "heldout/b.png")
    masks = str(tmp_path / "kept")
    assert mask_files(tmp_path / "set", images, [], masks) == {images[0]: [tmp_path / "kept" / "a.png"]}
    assert mask_files(tmp_path / "set" / "heldout", held, [], masks) == {held[0]: [tmp_path / "kept" / "heldout" / "b.png"]}


def test_a_mask_with_a_caption_is_an_image(tmp_path: Path) -> None:
    files = touched(tmp_path, "a.png", "a_mask.png")
    assert named_as_masks(files, {files[1]}) == []


def test_the_setting_is_a_word_or_a_folder(tmp_path: Path) -> None:
    for good in ("none", "auto", "alpha", "files", str(tmp_path)):
        check_source(good)
    with pytest.raises(Refused, match=r"data\.masks='alhpa': give none, auto, alpha or files, or a folder .* Did you mean 'alpha'\?"):
        check_source("alhpa")
