import math

import pytest

from registry.formats.image_file import Size
from train.data.buckets import Bucket, buckets_of, nearest, step_of


def test_the_buckets_of_1024_hold_sizes_of_the_published_list() -> None:
    """Podell et al. 2023, appendix I: widths and heights in steps of 64."""
    found = {(bucket.width, bucket.height) for bucket in buckets_of(1024, step=64)}
    assert {(1024, 1024), (1152, 896), (896, 1152), (1216, 832), (1344, 768), (768, 1344), (1536, 640), (640, 1536), (2048, 512)} <= found


@pytest.mark.parametrize("side", [64, 512, 520, 768, 1024])
def test_no_bucket_has_more_pixels_than_the_square_and_none_could_be_a_step_larger(side: int) -> None:
    step = step_of(side, 8)
    for bucket in buckets_of(side, step=step):
        assert bucket.area <= side * side and max(bucket.width, bucket.height) / min(bucket.width, bucket.height) <= 4
        if bucket.width > bucket.height:
            assert bucket.width * (bucket.height + step) > side * side


def test_steps_suit_the_model_and_small_resolutions() -> None:
    assert [step_of(1024, 8), step_of(512, 16), step_of(256, 8), step_of(64, 8), step_of(64, 16), step_of(1024, 32)] == [
        64,
        64,
        32,
        8,
        16,
        64,
    ]


@pytest.mark.parametrize(
    ("size", "bucket"),
    [
        ((600, 600), (512, 512)),
        ((1920, 1080), (640, 384)),  # 1.778: 640/384 is 1.667, 704/320 is 2.2
        ((1080, 1920), (384, 640)),
        ((3000, 2000), (640, 384)),
        ((10000, 100), (1024, 256)),  # wider than any bucket
    ],
)
def test_an_image_goes_where_least_of_it_is_cropped(size: tuple[int, int], bucket: tuple[int, int]) -> None:
    assert nearest(Size(*size), buckets_of(512, step=64)) == Bucket(*bucket)


def test_what_is_kept_is_the_share_of_the_scaled_image() -> None:
    assert Bucket(512, 512).kept(Size(1024, 512)) == 0.5 and Bucket(640, 384).kept(Size(640, 384)) == 1.0
    assert math.isclose(Bucket(640, 384).kept(Size(1920, 1080)), (640 / 384) / (1920 / 1080))


def test_a_model_with_few_positions_has_no_longer_sides() -> None:
    assert max(bucket.width for bucket in buckets_of(512, step=64, most=640)) == 640
