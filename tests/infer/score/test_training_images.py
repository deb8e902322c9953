"""The training images of a grid's adapters, as the index has them."""

from pathlib import Path

import numpy
import pytest
from PIL import Image

from infer.score.scorer import Scene
from infer.score.training_images import training_files
from registry.errors import Refused
from tests.infer.conftest import Shelf


def made_set(folder: Path, seed: int) -> Path:
    (folder / "heldout").mkdir(parents=True)
    for number, name in enumerate(("b.png", "a.png", "heldout/c.png")):
        generator = numpy.random.default_rng(seed + number)
        Image.fromarray(generator.integers(0, 256, (8, 8, 3), dtype=numpy.uint8)).save(folder / name)
    return folder


def test_they_are_those_of_the_sets_that_the_adapters_were_trained_on(shelf: Shelf, tmp_path: Path) -> None:
    scenes = []
    for number, name in enumerate(("ink", "hat")):
        folder, sha256 = made_set(tmp_path / f"set {name}", number), str(number) * 64
        shelf.store.add_dataset(folder, name=f"set-{name}", sha256=sha256)
        file = shelf.store.find(name).path
        assert file is not None
        shelf.store.add(file, name=name, parents=[{"role": "dataset", "ref": f"set-{name}", "sha256": sha256}])
        scenes.append(str(shelf.store.find(name).hashes.sha256))
    found = training_files(Scene(adapters=tuple(scenes), store=shelf.store), None)
    assert [str(path.relative_to(tmp_path)) for path in found] == ["set ink/a.png", "set ink/b.png", "set hat/a.png", "set hat/b.png"]
    words = str(shelf.store.find("words").hashes.sha256)
    with pytest.raises(Refused, match=f"no data set that {words[:12]}"):
        training_files(Scene(adapters=(*scenes, words), store=shelf.store), None)
    with pytest.raises(Refused, match="no such folder"):
        training_files(Scene(), str(tmp_path / "none"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(Refused, match="there are none"):
        training_files(Scene(), str(tmp_path / "empty"))
