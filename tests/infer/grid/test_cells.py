"""The cell store: whole or not there, and a damaged cell is noticed."""

import json
from pathlib import Path

import pytest

from infer.grid.cells import CellError, CellStore
from infer.output.png import encode_png
from tests.infer.images import NAMES, resolved, square


def test_put_and_get(tmp_path: Path) -> None:
    cells, render = CellStore(tmp_path), resolved()
    png = encode_png(square((1, 2, 3)), render, NAMES)
    assert cells.get(render.key()) is None and not cells.has(render.key())
    stored = cells.put(render, png, seconds=0.5, forwards=20)
    found = CellStore(tmp_path).get(render.key())
    assert found is not None and cells.has(render.key())
    assert (found.png, found.path, found.seconds, found.forwards) == (png, stored.path, 0.5, 20)
    assert [path.name for path in tmp_path.rglob(".tmp-*")] == []


def test_an_image_without_its_entry_is_not_there(tmp_path: Path) -> None:
    cells, render = CellStore(tmp_path), resolved()
    stored = cells.put(render, encode_png(square((1, 2, 3)), render, NAMES), seconds=0, forwards=1)
    stored.path.with_suffix(".json").unlink()  # as a kill between the two writes leaves it
    assert cells.get(render.key()) is None


@pytest.mark.parametrize("damage", ["picture", "entry", "keys"])
def test_damage_is_noticed(tmp_path: Path, damage: str) -> None:
    cells, render = CellStore(tmp_path), resolved()
    path = cells.put(render, encode_png(square((1, 2, 3)), render, NAMES), seconds=0, forwards=1).path
    if damage == "picture":
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    elif damage == "entry":
        path.with_suffix(".json").write_text("{")
    else:
        path.with_suffix(".json").write_text(json.dumps({"key": render.key()}))
    with pytest.raises(CellError, match=render.key()):
        cells.get(render.key())


def test_time_is_reported_from_cells_like_it(tmp_path: Path) -> None:
    cells = CellStore(tmp_path)
    for seed, seconds in ((1, 2.0), (2, 4.0), (3, 6.0)):
        render = resolved(seed=seed)
        cells.put(render, encode_png(square((1, 2, 3)), render, NAMES), seconds=seconds, forwards=20)
    assert cells.seconds_a_forward(resolved(seed=9, steps=5)) == pytest.approx(0.2)
    assert cells.seconds_a_forward(resolved(width=128)) is None
    assert cells.seconds_a_forward(resolved(guidance=1.0)) is None  # half the work: no unconditional pass
    for file in cells.folder.glob("*/*.json"):
        file.write_text(json.dumps({**json.loads(file.read_text()), "seconds": 10**400}))
    assert cells.seconds_a_forward(resolved(seed=9, steps=5)) is None
