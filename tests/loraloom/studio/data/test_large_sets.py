"""The page of a set: the work grows with the images, not with their square."""

import cProfile
import pstats
from pathlib import Path

import pytest

from loraloom.studio.data import pages
from loraloom.studio.data import sizes as shapes
from tests.train.data.test_large_sets import FEW, MANY, written
from train.data.items import Sizes


def calls(path: str) -> int:
    """Calls of functions that a page of a set makes which was not read before, with its buckets and tags."""
    folder, sizes = Path(path), Sizes(sides=(8, 16))
    shapes._shape.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pages, "_KEPT", type(pages._KEPT)())
        with cProfile.Profile() as profile:
            now = pages.set_now(folder)
            page = pages.page_of(now, pages.Filter(bucket="8x8", state="captioned"), sizes, offset=0, limit=20)
            buckets = now.buckets(sizes)
    assert page["shown"] == page["total"] == sum(one["images"] for one in buckets) and len(page["items"]) == 20
    return int(pstats.Stats(profile).total_calls)  # type: ignore[attr-defined]


@pytest.mark.parametrize("table", [False, True], ids=["sidecars", "table"])
def test_the_page_of_a_set_grows_with_its_images(tmp_path: Path, table: bool) -> None:
    paths = [written(tmp_path / str(count), count, table=table) for count in (FEW, MANY)]
    calls(paths[0])  # what is imported at the first time
    few, many = map(calls, paths)
    assert many < 4.4 * few
