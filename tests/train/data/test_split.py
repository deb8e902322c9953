"""Which images are held out: the number that is asked for, by content, near duplicates on one side."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from registry.errors import Refused
from registry.formats.image_file import Size
from registry.images.image_hash import small_copy
from tests import tiny
from train.config import DataConfig
from train.data.dataset import Sample, read_set
from train.data.duplicates.near_duplicates import near_duplicates
from train.data.duplicates.small_copies import SmallCopies
from train.data.split import fold_by_content, near_leaks, split_by_content


def samples(count: int) -> list[Sample]:
    return [Sample(f"{i}.png", f"{i:064x}", Size(8, 8), "a", bytes) for i in range(count)]


@pytest.mark.parametrize(("count", "share", "held"), [(6, 0.2, 1), (10, 0.2, 2), (12, 0.25, 3), (20, 0.2, 4), (100, 0.07, 7), (6, 0.01, 1)])
def test_the_share_is_the_number_that_is_held_out(count: int, share: float, held: int) -> None:
    every = samples(count)
    for start in range(0, 200, count):
        chosen = [replace(sample, sha256=f"{start + i:064x}") for i, sample in enumerate(every)]
        train, out = split_by_content(chosen, share)
        assert (len(train), len(out)) == (count - held, held)


def test_the_choice_follows_the_content_and_not_the_order_or_the_names() -> None:
    every = samples(40)
    held = {sample.sha256 for sample in split_by_content(every, 0.25)[1]}
    renamed = [replace(sample, name=f"x{sample.name}") for sample in reversed(every)]
    assert {sample.sha256 for sample in split_by_content(renamed, 0.25)[1]} == held


def test_most_of_the_choice_stays_when_images_are_added() -> None:
    few, many = samples(60), samples(66)
    held = {sample.name for sample in split_by_content(few, 0.25)[1]}
    still = {sample.name for sample in split_by_content(many, 0.25)[1]}
    assert len(held) == 15 and len(held & still) >= 12  # of six more, few have a lower rank


def test_both_sides_hold_something() -> None:
    for share in (1e-6, 0.999999):
        train, held = split_by_content(samples(2), share)
        assert len(train) == len(held) == 1


def test_twins_are_never_on_both_sides() -> None:
    twins = [*samples(8), *samples(8)]
    train, held = split_by_content(twins, 0.4)
    assert len(held) == 6 and not {s.sha256 for s in train} & {s.sha256 for s in held}


def as_jpeg(path: Path) -> bytes:
    buffer = io.BytesIO()
    Image.open(path).save(buffer, "JPEG", quality=60)
    return buffer.getvalue()


def test_near_duplicates_are_never_on_both_sides(tmp_path: Path) -> None:
    folder = tiny.tiny_dataset(tmp_path / "set", 8, size=64)
    for number in range(8):
        (folder / f"again-{number}.jpg").write_bytes(as_jpeg(folder / f"{number:03d}.png"))
        (folder / f"again-{number}.txt").write_text("a disc")
    found = read_set(DataConfig(path=str(folder)))
    train, held = split_by_content(found.samples, 0.25)
    assert len(held) == 4
    numbers = {sample.name: int("".join(filter(str.isdigit, sample.name))) for sample in found.samples}
    assert not {numbers[s.name] for s in train} & {numbers[s.name] for s in held}
    assert any("000.png ~ again-0.jpg" in note for note in found.notes)


def drawing(number: int, quality: int) -> Sample:
    """A drawing of one thin line on white, and its number for a name."""
    image = Image.new("RGB", (512, 512), "white")
    ImageDraw.Draw(image).line([(17 * number, 0), (500, 40 * number), (30, 480)], fill="black", width=2)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    small = small_copy(Image.open(buffer))
    copies = SmallCopies()
    copies.append(small)
    return Sample(f"{number}-{quality}.jpg", f"{100 * number + quality:064x}", Size(512, 512), "a line", bytes, copies)


def test_sparse_drawings_are_alike_only_where_they_are_the_same() -> None:
    drawings = [drawing(number, quality) for number in range(8) for quality in (60, 95)]
    assert near_duplicates(drawings) == [[2 * number, 2 * number + 1] for number in range(8)]


def test_a_held_out_image_that_is_nearly_a_training_image_is_noted(tmp_path: Path) -> None:
    folder = tiny.tiny_dataset(tmp_path / "set", 4, size=64)
    tiny.tiny_dataset(folder / "heldout", 2, seed=9, size=64)
    (folder / "heldout" / "same.jpg").write_bytes(as_jpeg(folder / "002.png"))
    (folder / "heldout" / "same.txt").write_text("a disc")
    sets = [read_set(DataConfig(path=str(place))).samples for place in (folder, folder / "heldout")]
    (note,) = near_leaks(*sets)
    assert note.startswith("same.jpg: nearly the training image 002.png")


def test_a_set_of_one_image_cannot_be_split() -> None:
    with pytest.raises(Refused, match="at least two different images"):
        split_by_content([*samples(1), *samples(1)], 0.5)


@pytest.mark.parametrize(("count", "folds", "sizes"), [(6, 3, [2, 2, 2]), (7, 3, [2, 2, 3]), (5, 5, [1] * 5)])
def test_the_parts_hold_every_image_once_and_are_about_equal(count: int, folds: int, sizes: list[int]) -> None:
    every = samples(count)
    held = [fold_by_content(every, folds, fold)[1] for fold in range(folds)]
    assert sorted(sample.name for part in held for sample in part) == sorted(sample.name for sample in every)
    assert sorted(map(len, held)) == sizes
    backwards = [replace(sample, name=f"x{sample.name}") for sample in reversed(every)]
    assert {s.sha256 for s in fold_by_content(backwards, folds, 0)[1]} == {s.sha256 for s in held[0]}


def test_twins_are_in_one_part_and_more_parts_than_images_are_refused() -> None:
    twins = [*samples(3), *samples(3)]
    assert sorted(len(fold_by_content(twins, 3, fold)[1]) for fold in range(3)) == [2, 2, 2]
    with pytest.raises(Refused, match=r"heldout\.folds=4: there are 3 different images, near duplicates counted as one"):
        fold_by_content(twins, 4, 0)
    with pytest.raises(Refused, match="there is 1 different image"):
        fold_by_content([twins[0], twins[3]], 2, 0)
