from registry.formats.image_file import Size
from train.data.buckets import Bucket
from train.data.dataset import Sample
from train.data.items import Sizes, View, heldout_items, images_by_bucket, items_of


def sample(name: str, width: int, height: int) -> Sample:
    return Sample(name, name.ljust(64, "0"), Size(width, height), "a caption", bytes)


SET = (sample("square", 600, 600), sample("wide", 1200, 700), sample("small", 300, 200), sample("tall", 900, 1500))


def test_every_image_is_in_a_bucket_by_name() -> None:
    found = images_by_bucket(items_of(SET, Sizes(sides=(512,))))
    assert list(found.items()) == [(Bucket(640, 384), ["wide", "small"]), (Bucket(384, 640), ["tall"]), (Bucket(512, 512), ["square"])]


def test_squares_alone_without_buckets() -> None:
    assert {item.bucket for item in items_of(SET, Sizes(sides=(512,), buckets=False))} == {Bucket(512, 512)}


def test_several_resolutions_leave_out_those_that_an_image_is_too_small_for() -> None:
    items = items_of(SET, Sizes(sides=(256, 512, 768)))
    sizes = {
        name: [(item.bucket.width, item.bucket.height) for item in items if item.sample.name == name]
        for name in ("square", "small", "tall")
    }
    assert sizes == {"square": [(256, 256), (512, 512)], "small": [(320, 192)], "tall": [(192, 320), (384, 640), (576, 960)]}
    assert [item.enlarged for item in items if item.sample.name == "small"] == [True]
    assert [(item.bucket.width, item.bucket.height) for item in heldout_items(SET, Sizes(sides=(256, 512)))] == [
        (512, 512), (640, 384), (320, 192), (384, 640)
    ]  # fmt: skip


def test_the_view_is_the_centre_of_the_scaled_image() -> None:
    (item,) = items_of([sample("wide", 1000, 500)], Sizes(sides=(64,), buckets=False))
    assert (item.scaled, item.views) == ((128, 64), (View(32, 0),))
