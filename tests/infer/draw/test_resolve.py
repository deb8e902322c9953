"""From a Render as it was asked for to one with nothing left open: each file is looked at once, every fault is reported together."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from infer.draw.files import Adapter, Embedding, ImageFile
from infer.draw.render import Render
from infer.draw.resolve import Resolver
from registry.errors import Faults
from registry.record import Record
from registry.store import Store
from tests.infer.conftest import Shelf


class CountingStore(Store):
    """A Store that remembers what it was asked to find."""

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self.found: list[str] = []

    def find(self, reference: str, **options: Any) -> Record:
        self.found.append(reference)
        return super().find(reference, **options)


def test_a_resolved_render_is_resolved_to_itself(shelf: Shelf) -> None:
    asked = Render(base="tiny", adapters=(Adapter(reference="ink", weight=0.5),), negative="", clip_skip=1, sampler="euler")
    resolved = Resolver(shelf.store).resolve(asked)
    assert Resolver(shelf.store).resolve(resolved) == resolved
    assert resolved.key() == Resolver(shelf.store).resolve(asked).key()


def test_what_is_given_is_kept_and_what_is_not_is_the_familys(shelf: Shelf) -> None:
    resolver = Resolver(shelf.store)
    own = resolver.resolve(Render(base="tiny"))
    assert (own.steps, own.guidance, own.guided, own.width, own.height, own.clip_skip) == (50, 7.5, True, 32, 32, None)
    given = resolver.resolve(Render(base="tiny", steps=3, guidance=1.0, width=48, height=32, clip_skip=0))
    assert (given.steps, given.guidance, given.guided, given.width, given.height, given.clip_skip) == (3, 1.0, False, 48, 32, None)


@pytest.mark.parametrize(("asked", "size"), [({}, (48, 32)), ({"width": 32, "height": 32, "fit": "crop"}, (32, 32))])
def test_the_size_is_inits_unless_it_is_given(shelf: Shelf, tmp_path: Path, asked: dict[str, Any], size: tuple[int, int]) -> None:
    Image.new("RGB", (48, 32)).save(tmp_path / "in.png")
    found = Resolver(shelf.store).resolve(Render(base="tiny", init=ImageFile(path=str(tmp_path / "in.png")), **asked))
    assert (found.width, found.height) == size and found.strength == 0.8  # of diffusers' image-to-image pipeline


def test_every_file_is_looked_at_once_however_many_cells_name_it(shelf: Shelf) -> None:
    with closing(CountingStore(shelf.home)) as store:
        resolver = Resolver(store)
        for seed in range(3):
            resolver.resolve(Render(base="tiny", seed=seed, adapters=(Adapter(reference="ink"),)))
        assert sorted(store.found) == ["ink", "tiny"]


def test_a_refusal_is_remembered(shelf: Shelf) -> None:
    with closing(CountingStore(shelf.home)) as store:
        resolver = Resolver(store)
        for seed in range(2):
            with pytest.raises(Faults, match="nix"):
                resolver.resolve(Render(base="tiny", seed=seed, adapters=(Adapter(reference="nix"),)))
        assert store.found.count("nix") == 1


def test_all_faults_of_one_render_are_reported_together(shelf: Shelf, tmp_path: Path) -> None:
    asked = Render(
        base="tiny",
        adapters=(Adapter(reference="ink"), Adapter(reference="ink", weight=0.5)),
        steps=0,
        seed=-1,
        guidance=1e5,
        width=33,
        height=32,
        prompt="\0",
        mask=ImageFile(path=str(tmp_path / "none.png")),
    )
    with pytest.raises(Faults) as caught:
        Resolver(shelf.store).resolve(asked)
    for part in (
        "one file",
        "steps is 0",
        "seed is -1",
        "guidance is 100000.0",
        "multiples of 8",
        "no text",
        "There is no image",
        "no init",
    ):
        assert sum(part in fault for fault in caught.value.faults) == 1, (part, caught.value.faults)


def test_a_missing_base_does_not_hide_the_other_faults(shelf: Shelf) -> None:
    with pytest.raises(Faults) as caught:
        Resolver(shelf.store).resolve(Render(base="nix", adapters=(Adapter(reference="nox"),)))
    assert [next(word for word in ("nix", "nox") if word in fault) for fault in caught.value.faults] == ["nix", "nox"]


def test_the_config_beside_pefts_weights_is_part_of_the_key(shelf: Shelf, tmp_path: Path) -> None:
    """Its alpha is nowhere else: with another one the same weights draw another image."""
    folder = tmp_path / "saved"
    folder.mkdir()
    tensors = load_file(str(shelf.store.find("ink").path))
    renamed = {name.replace("unet.", "base_model.model."): value for name, value in tensors.items()}
    save_file(renamed, folder / "adapter_model.safetensors")
    keys = []
    for alpha in (4, 8, 4):
        (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": alpha}))
        keys.append(Resolver(shelf.store).resolve(Render(base="tiny", adapters=(Adapter(reference=str(folder)),))).key())
    assert keys[0] == keys[2] != keys[1]


def test_peft_is_among_the_versions_only_where_an_adapter_acts(shelf: Shelf) -> None:
    resolver = Resolver(shelf.store)
    names = [
        {name for name, _version in resolver.resolve(Render(base="tiny", adapters=(Adapter(reference="ink", weight=weight),))).versions}
        for weight in (0.0, 1.0)
    ]
    assert names[1] - names[0] == {"peft"}


def test_an_embedding_gets_its_token_and_two_of_one_token_are_refused(shelf: Shelf, tmp_path: Path) -> None:
    for name, value in (("one", 0.0), ("other", 1.0)):
        save_file({"<apple>": torch.full((1, 32), value)}, tmp_path / f"{name}.safetensors")
        shelf.store.add(tmp_path / f"{name}.safetensors", name=name)
    resolver, one, other = Resolver(shelf.store), Embedding(reference="one"), Embedding(reference="other")
    asked = Render(base="tiny", embeddings=(one, other))
    with pytest.raises(Faults, match=r"both .*'<apple>'"):
        resolver.resolve(asked)
    found = resolver.resolve(replace(asked, embeddings=(one, replace(other, token="<pear>"))))
    assert [embedding.token for embedding in found.embeddings] == ["<apple>", "<pear>"]
    assert all(embedding.sha256 for embedding in found.embeddings)


def test_a_registered_file_that_is_gone_is_refused(shelf: Shelf, tmp_path: Path) -> None:
    path = tmp_path / "gone.safetensors"
    path.write_bytes(Path(str(shelf.store.find("ink").path)).read_bytes()[:-4] + b"\0\0\0\1")
    shelf.store.add(path, name="gone")
    path.unlink()
    with pytest.raises(Faults, match="gone"):
        Resolver(shelf.store).resolve(Render(base="tiny", adapters=(Adapter(reference="gone"),)))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"precision": "fp8"}, "precision is 'fp8'. Expected fp32, bf16, fp16."),
        ({"fit": "fill"}, "fit is 'fill'. Expected stretch, crop."),
        ({"width": 8 * 10**7}, "size is (80000000, 32). Expected at most 8192 pixels a side."),
    ],
)
def test_a_value_that_only_another_program_can_have_written_is_refused(
    shelf: Shelf, tmp_path: Path, given: dict[str, Any], words: str
) -> None:
    """`reproduce` draws what an image's metadata asks for: no setting was checked before."""
    Image.new("RGB", (32, 32), "white").save(tmp_path / "in.png")
    image = ImageFile(path=str(tmp_path / "in.png"))
    asked = Render(**{"base": "tiny", "init": image, "mask": image, "width": 32, "height": 32, "fit": "stretch", **given})
    with pytest.raises(Faults) as caught:
        Resolver(shelf.store).resolve(asked)
    assert caught.value.faults == [words]
