import importlib.util
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from registry.errors import JobFailed
from registry.families import FAMILIES
from registry.family import Family
from registry.parts import Conditioning, Parts, Posterior, collate
from registry.progress import silent
from train.config import DataConfig
from train.data.buckets import Bucket
from train.data.dataset import Sample, read_set
from train.data.images import to_pixels
from train.data.items import Item, Sizes, View, items_of
from train.loop.cache import Cache
from train.loop.encode import Latents, Prompts, cached_bytes, encode_latents, encode_texts, module_hash

SD1 = FAMILIES["sd1"]
CPU = torch.device("cpu")


@pytest.fixture
def parts(base: Path) -> Parts:
    return SD1.load(base, dtype=torch.float32, device="cpu")


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache("latents", root=tmp_path / "cache")


def samples(folder: Path) -> tuple[Sample, ...]:
    return read_set(DataConfig(path=str(folder))).samples


def encode(parts: Parts, chosen: tuple[Sample, ...], cache: Cache, resolution: int = 32) -> tuple[Latents, int]:
    """(latents, how many had to be encoded)."""
    before = len(list(cache.folder.rglob("*.safetensors"))) if cache.folder.exists() else 0
    items = items_of(chosen, Sizes(sides=(resolution,)))
    latents = encode_latents(SD1, parts, items, device=CPU, cache=cache, report=silent)
    return latents, len(list(cache.folder.rglob("*.safetensors"))) - before


def test_the_cache_gives_what_the_vae_gave(parts: Parts, images: Path, cache: Cache) -> None:
    first, made = encode(parts, samples(images), cache)
    again, more = encode(parts, samples(images), cache)
    assert (made, more) == (6, 0)
    assert all(torch.equal(one[name], two[name]) for one, two in zip(first.rows, again.rows, strict=True) for name in ("mean", "logvar"))
    direct = _direct(parts, samples(images)[2])
    assert torch.equal(first.view([2]).posterior.mean, direct.mean)


def _direct(parts: Parts, sample: Sample) -> Posterior:
    from registry.formats.image_file import decode
    from train.data.images import fit

    with torch.no_grad():
        return SD1.encode_images(parts, to_pixels(fit(decode(sample.read())[0], 32, 32)).unsqueeze(0))


def test_a_family_that_trains_on_the_mean_keeps_no_variance(parts: Parts, images: Path, cache: Cache) -> None:
    family = replace(SD1, trains_on_mean=True)
    latents = encode_latents(family, parts, items_of(samples(images), Sizes(sides=(32,))), device=CPU, cache=cache, report=silent)
    posterior = latents.view([0]).posterior
    assert posterior.logvar is None and posterior.sample(torch.ones(1, 4, 8, 8)).equal(latents.rows[0]["mean"])


def test_keys_follow_the_version_of_the_encoding_and_not_its_source_text(parts: Parts, images: Path, cache: Cache, tmp_path: Path) -> None:
    chosen = samples(images)[:2]
    encode(parts, chosen, cache)
    (tmp_path / "edited.py").write_text(
        "from registry.families import FAMILIES\n\n\ndef encode_images(parts, pixels):\n"
        "    return FAMILIES['sd1'].encode_images(parts, pixels)  # the same values from another text\n"
    )
    spec = importlib.util.spec_from_file_location("edited", tmp_path / "edited.py")
    assert spec is not None and spec.loader is not None
    edited = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(edited)

    def entries(family: Family) -> int:
        encode_latents(family, parts, items_of(chosen, Sizes(sides=(32,))), device=CPU, cache=cache, report=silent)
        return len(list(cache.folder.rglob("*.safetensors")))

    assert entries(replace(SD1, encode_images=edited.encode_images)) == 2
    assert entries(replace(SD1, encoding_version=SD1.encoding_version + 1)) == 4


def test_another_version_encodes_prompts_again(parts: Parts, cache: Cache) -> None:
    for family in (SD1, SD1, replace(SD1, encoding_version=SD1.encoding_version + 1)):
        encode_texts(family, parts, ["a cat"], device=CPU, cache=cache, report=silent)
    assert len(list(cache.folder.rglob("*.safetensors"))) == 2


def test_an_edited_image_is_encoded_anew(parts: Parts, images: Path, cache: Cache, tmp_path: Path) -> None:
    import shutil

    folder = Path(shutil.copytree(images, tmp_path / "copy"))
    encode(parts, samples(folder), cache)
    (folder / "000.png").write_bytes((folder / "001.png").read_bytes())
    latents, made = encode(parts, samples(folder), cache)
    assert made == 0 and torch.equal(latents.rows[0]["mean"], latents.rows[1]["mean"])


def test_size_and_vae_are_part_of_the_key(parts: Parts, images: Path, cache: Cache) -> None:
    encode(parts, samples(images), cache)
    assert encode(parts, samples(images), cache, resolution=16)[1] == 6
    with torch.no_grad():
        next(parts.vae.parameters()).add_(1e-3)
    assert encode(parts, samples(images), cache)[1] == 6
    vae: Any = parts.vae
    vae.register_to_config(scaling_factor=0.5)
    assert encode(parts, samples(images), cache)[1] == 6


def test_a_damaged_entry_is_made_again(parts: Parts, images: Path, cache: Cache) -> None:
    first, _ = encode(parts, samples(images), cache)
    for file in cache.folder.rglob("*.safetensors"):
        whole = file.read_bytes()
        file.write_bytes(whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:])  # one bit of one number
    again, _ = encode(parts, samples(images), cache)
    assert all(torch.equal(one["mean"], two["mean"]) for one, two in zip(first.rows, again.rows, strict=True))


def test_an_image_that_changed_since_the_plan_stops_the_run(parts: Parts, images: Path, cache: Cache, tmp_path: Path) -> None:
    import shutil

    folder = Path(shutil.copytree(images, tmp_path / "copy"))
    chosen = samples(folder)
    (folder / "000.png").write_bytes((folder / "001.png").read_bytes())
    with pytest.raises(JobFailed, match=r"000\.png changed"):
        encode(parts, chosen, cache)


def test_the_posterior_is_sampled_anew_from_what_is_kept() -> None:
    row = {"mean": torch.zeros(1, 1, 2, 2), "logvar": torch.full((1, 1, 2, 2), 2 * math.log(3.0))}
    latents = Latents([row, row], (0, 1), ((1, 2, 2), (1, 2, 2)))
    drawn = latents.view([1]).posterior.sample(torch.ones(1, 1, 2, 2))
    torch.testing.assert_close(drawn, torch.full((1, 1, 2, 2), 3.0))


def test_a_vae_that_overflows_is_named_with_the_image(parts: Parts, images: Path, cache: Cache) -> None:
    with torch.no_grad():
        next(parts.vae.parameters()).fill_(float("inf"))
    with pytest.raises(JobFailed, match=r"not finite for 000\.png"):
        encode(parts, samples(images), cache)
    assert not list(cache.folder.rglob("*.safetensors"))


def test_what_is_read_from_the_cache_each_time_is_what_is_kept_in_memory(parts: Parts, images: Path, cache: Cache) -> None:
    items = items_of(samples(images), Sizes(sides=(32,)))
    kept, streamed = (
        encode_latents(SD1, parts, items, device=CPU, cache=cache, report=silent, in_memory=in_memory) for in_memory in (True, False)
    )
    one, two = (latents.view([4, 1]) for latents in (kept, streamed))
    assert one.posterior.mean.equal(two.posterior.mean) and one.posterior.logvar.equal(two.posterior.logvar)  # type: ignore[union-attr, arg-type]
    assert cached_bytes(streamed, Prompts(())) == 0 < cached_bytes(kept, Prompts(()))
    for file in cache.folder.rglob("*.safetensors"):
        file.unlink()
    with pytest.raises(JobFailed, match="is gone from the cache while the run reads it"):
        streamed.view([4])


def test_each_view_is_the_part_of_the_image_that_its_corner_names(parts: Parts, cache: Cache, tmp_path: Path) -> None:
    import numpy
    from PIL import Image

    pixels = numpy.random.default_rng(0).integers(0, 256, (32, 64, 3), dtype=numpy.uint8)
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    (tmp_path / "wide.txt").write_text("noise", encoding="utf-8")
    (sample,) = samples(tmp_path)
    item = Item(sample, 0, Bucket(32, 32), (View(5, 0), View(5, 0, flipped=True)))
    latents = encode_latents(SD1, parts, [item], device=CPU, cache=cache, report=silent)
    for view, cut in ((0, pixels[:, 5:37]), (1, pixels[:, ::-1][:, 5:37])):
        with torch.no_grad():
            wanted = SD1.encode_images(parts, to_pixels(Image.fromarray(numpy.ascontiguousarray(cut))).unsqueeze(0))
        assert latents.view([0], [view]).posterior.mean.equal(wanted.mean)
    assert latents.crops is not None and latents.crops.tolist() == [[32, 64, 0, 5]] * 2


def test_equal_prompts_are_encoded_once_and_pairs_hold(parts: Parts, cache: Cache) -> None:
    prompts = ["a cat", "a dog", "a cat"]
    texts = encode_texts(SD1, parts, prompts, device=CPU, cache=cache, report=silent)
    assert len(texts.states) == 2 and texts.index == (0, 1, 0)
    rows = texts.rows([2, 1])["embeds"]
    with torch.no_grad():
        alone = SD1.encode_prompts(parts, ["a cat"])["embeds"]
    assert torch.equal(rows[:1], alone) and not torch.equal(rows[1:], alone)


def test_another_text_encoder_is_another_key(parts: Parts, cache: Cache) -> None:
    encode_texts(SD1, parts, ["a cat"], device=CPU, cache=cache, report=silent)
    with torch.no_grad():
        next(parts.text_encoders["text_encoder"].parameters()).add_(1e-3)
    encode_texts(SD1, parts, ["a cat"], device=CPU, cache=cache, report=silent)
    assert len(list(cache.folder.rglob("*.safetensors"))) == 2


def test_the_hash_sees_every_weight() -> None:
    one, two = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    two.load_state_dict(one.state_dict())
    assert module_hash(one) == module_hash(two)
    with torch.no_grad():
        two.bias[1] += 1e-7
    assert module_hash(one) != module_hash(two)


def test_lengths_are_padded_only_where_a_mask_tells() -> None:
    short, long = ({"embeds": torch.ones(1, n, 2), "mask": torch.ones(1, n, dtype=torch.bool)} for n in (2, 3))
    batch: Conditioning = collate([short, long])
    assert batch["embeds"].shape == (2, 3, 2) and batch["mask"].tolist() == [[True, True, False], [True, True, True]]
    with pytest.raises(JobFailed, match="without a mask"):
        collate([{"embeds": torch.ones(1, n, 2)} for n in (2, 3)])


def test_clip_skip_is_a_part_of_a_texts_key(parts: Parts, cache: Cache) -> None:
    plain, skipped, again = (
        encode_texts(SD1, parts, ["a red disc"], device=CPU, cache=cache, report=silent, clip_skip=skip).states[0]["embeds"]
        for skip in (None, 1, None)
    )
    with torch.no_grad():
        direct = SD1.encode_prompts(parts, ["a red disc"], clip_skip=1)["embeds"]
    assert torch.equal(skipped, direct) and torch.equal(plain, again) and not torch.equal(plain, skipped)
