"""The registry's jobs as one call each: what is refused before a byte is written, and what one call leaves."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from registry.errors import LoomError
from registry.jobs import combine_loras, convert, extract_lora, fuse_lora, merge
from registry.store import Store

REFUSED: dict[str, tuple[Callable[[Store, Path], Any], str]] = {
    "a mistyped recipe": (lambda store, out: merge({"methd": "copy", "sources": ["pocket"]}, out, store=store), "Did you mean 'method'"),
    "no adapter": (lambda store, out: fuse_lora("pocket", [], out, store=store), "no adapter was given"),
    "an unknown adapter": (lambda store, out: combine_loras("ink:0.5", out, store=store), "'ink'"),
    "no rank": (lambda store, out: extract_lora("pocket", "pocket", out, store=store), "say how much to keep"),
    "an unknown form": (lambda store, out: convert("pocket", out, to="singlefile", store=store), "Did you mean 'single-file'"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_job_is_refused_before_anything_is_written(what: str, tmp_path: Path) -> None:
    job, message = REFUSED[what]
    with pytest.raises(LoomError, match=message):
        job(Store(tmp_path / "home"), tmp_path / "out.safetensors")
    assert not list(tmp_path.glob("out*"))


def test_merge_reads_a_recipe_file(tmp_path: Path) -> None:
    (tmp_path / "copy.yaml").write_text("method: copy\nsources: [pocket]\n")
    store = Store(tmp_path / "home")
    done = merge(str(tmp_path / "copy.yaml"), tmp_path / "same", store=store)
    assert done.record is not None
    assert store.find("same").parents[0]["ref"] == "pocket"
    assert done.recipe.sources[0].sha256 == store.sha256(store.find("pocket"))
