"""Masks of a set as training reads it: faults and notes by name, in the plan and in `data lint`, and the loss that they make."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from PIL import Image

from registry.errors import Faults, LoomError, Refused
from registry.store import Store
from tests import tiny
from train import run
from train.config import DataConfig, TrainConfig
from train.data.dataset import inspect_set, read_set

Settings = Callable[..., TrainConfig]
LEFT = numpy.zeros((32, 32), numpy.uint8)
LEFT[:, :16] = 255


def masked_set(folder: Path, count: int = 4, values: numpy.ndarray[Any, Any] = LEFT) -> Path:
    """A set whose masks keep the left half."""
    tiny.tiny_dataset(folder, count)
    for number in range(count):
        Image.fromarray(values).save(folder / f"{number:03d}-masklabel.png")
    return folder


def test_masks_beside_are_a_fault_until_they_are_read(tmp_path: Path) -> None:
    folder = masked_set(tmp_path / "set")
    with pytest.raises(Faults, match=r"000-masklabel\.png, .*: named as the mask .* data\.masks=files reads them as masks"):
        read_set(DataConfig(path=str(folder)))
    found = read_set(DataConfig(path=str(folder), masks="files"))
    assert len(found.samples) == 4 and all(sample.mask and sample.mask.share == 0.5 for sample in found.samples)
    plain = tiny.tiny_dataset(tmp_path / "plain", 4)
    assert found.sha256 != read_set(DataConfig(path=str(plain))).sha256


def test_every_fault_of_masks_is_named(tmp_path: Path) -> None:
    folder = masked_set(tmp_path / "set", 6)
    (folder / "000-masklabel.png").unlink()
    Image.new("L", (16, 32), 255).save(folder / "001-masklabel.png")
    Image.new("L", (32, 32), 0).save(folder / "002-masklabel.png")
    (folder / "003-masklabel.png").write_bytes(b"no image")
    Image.new("L", (32, 32), 255).save(folder / "004_mask.png")
    Image.new("L", (32, 32), 255).save(folder / "005-masklabel.png")
    found = inspect_set(DataConfig(masks="files"), path=str(folder))
    assert [fault.partition(": ")[0] for fault in found.faults] == ["001.png", "002.png", "003.png", "004.png", "000.png"]
    text = "\n".join(found.faults)
    assert "its mask 001-masklabel.png: it is 16x32 pixels and its image 32x32" in text and "black everywhere" in text
    assert "there are several (004-masklabel.png, 004_mask.png); keep one" in text
    assert "000.png: no mask file, and data.masks is files: write NAME-masklabel.png beside each" in text
    assert "the mask of 005.png: keeps the whole image" in found.notes
    with pytest.raises(Refused, match="Did you mean 'files'"):
        inspect_set(DataConfig(masks="flies"), path=str(folder))


def test_alpha_is_a_mask_and_the_rest_lies_on_white(tmp_path: Path) -> None:
    folder = tiny.tiny_dataset(tmp_path / "set", 2)
    for file in sorted(folder.glob("*.png")):
        with Image.open(file) as image:
            clear = image.convert("RGBA")
        clear.putalpha(Image.fromarray(LEFT))
        clear.save(file)
    found = read_set(DataConfig(path=str(folder), masks="alpha"))
    assert [sample.mask.name for sample in found.samples if sample.mask] == ["alpha", "alpha"]
    with Image.open(file) as image:
        image.convert("RGB").save(file)
    with pytest.raises(Faults, match=r"001\.png: no alpha channel, and data\.masks is alpha: save each with one"):
        read_set(DataConfig(path=str(folder), masks="alpha"))


def test_the_plan_and_lint_show_masks(tmp_path: Path, settings: Settings, store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    from loraloom.cli import main

    folder = masked_set(tmp_path / "set")
    made = run.plan(settings(data=DataConfig(path=str(folder), masks="files")), store)
    assert "masks      4 (files) keep 50% of their images on average, the smallest 50.0%" in made.to_text()
    assert made.to_json()["masks"] == {"pictures": 4, "kept": 0.5}
    assert main(["data", "lint", str(folder), "--masks", "files", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["masks"] == {"pictures": 4, "kept": 0.5}


def test_a_crop_without_any_of_the_mask_is_refused(tmp_path: Path, settings: Settings, store: Store) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    mask = numpy.zeros((32, 96), numpy.uint8)
    mask[:, :8] = 255
    Image.new("RGB", (96, 32)).save(folder / "a.png")
    Image.fromarray(mask).save(folder / "a_mask.png")
    (folder / "a.txt").write_text("a disc")
    with pytest.raises(LoomError, match=r"a\.png: a crop to 32x32 leaves out all that its mask keeps"):
        run.plan(settings(data=DataConfig(path=str(folder), masks="files", buckets=False)), store)


def test_what_a_mask_leaves_out_changes_no_gradient(tmp_path: Path, settings: Settings, prepared: Callable[[TrainConfig], Any]) -> None:
    """A planted error of 1000 in the target's right half: the same loss and gradient, bit for bit; in the left half another."""
    work = prepared(settings(data=DataConfig(path=str(masked_set(tmp_path / "set")), masks="files")))
    state, usual = work.state, work.state.make_pass

    def planted(columns: slice) -> Callable[..., Any]:
        def make(*given: Any) -> Any:
            found = usual(*given)
            found.target[..., columns] += 1000.0
            return found

        return make

    def gradients() -> tuple[torch.Tensor, list[torch.Tensor]]:
        batch = state.order.step(0)[0][0]
        state.optimizer.zero_grad(set_to_none=True)
        losses, _ = state._pass(0, batch, of=len(batch.items))
        losses.sum().backward()
        return losses.detach(), [weight.grad.clone() for _, weight in state.weights]

    losses, before = gradients()
    state.make_pass = planted(slice(4, None))
    same_losses, same = gradients()
    assert torch.equal(losses, same_losses) and all(torch.equal(a, b) for a, b in zip(before, same, strict=True))
    state.make_pass = planted(slice(0, 4))
    assert not torch.equal(losses, gradients()[0])


@pytest.mark.slow
def test_the_loss_is_the_mean_over_what_is_kept(tmp_path: Path, settings: Settings, prepared: Callable[[TrainConfig], Any]) -> None:
    """Against the plain formula in float64: the left half of the latents, and the weights of a run that keeps .25 of the rest."""
    for of in (0.0, 0.25):
        data = DataConfig(path=str(masked_set(tmp_path / f"set{of}")), masks="files", unmasked_weight=of, normalize_masked_loss=not of)
        work = prepared(settings(data=data))
        state = work.state
        batch = state.order.step(0)[0][0]
        made = state.make_pass(state, 0, batch, len(batch.items))
        losses, _ = state._pass(0, batch, of=len(batch.items))
        error = (state.predict(state.model, made.noisy, made.timesteps, made.text, made.crops) - made.target).double().square()
        half = error.shape[-1] // 2
        kept, rest = error[..., :half].flatten(1), error[..., half:].flatten(1)
        wanted = kept.mean(1) if not of else (kept.mean(1) + of * rest.mean(1)) / 2
        torch.testing.assert_close(losses.double(), wanted, rtol=1e-5, atol=1e-7)


@pytest.mark.slow
def test_held_out_loss_counts_what_masks_keep(tmp_path: Path, settings: Settings, prepared: Callable[[TrainConfig], Any]) -> None:
    folder = masked_set(tmp_path / "set")
    masked_set(folder / "heldout", 2, numpy.ascontiguousarray(LEFT[:, ::-1]))
    for number in range(2):  # other images than the trained ones
        Image.effect_noise((32, 32), 90 + number).convert("RGB").save(folder / "heldout" / f"{number:03d}.png")
    work = prepared(settings(data=DataConfig(path=str(folder), masks="files")))
    masked = work.probe.heldout.table(work.state, model=work.state.model)
    object.__setattr__(work.probe.heldout.latents, "masks", None)
    assert not torch.equal(work.probe.heldout.table(work.state, model=work.state.model), masked)


@pytest.mark.slow
def test_masks_of_another_file_are_other_entries_of_the_cache(
    tmp_path: Path, settings: Settings, prepared: Callable[[TrainConfig], Any]
) -> None:
    folder = masked_set(tmp_path / "set")
    first = prepared(settings(data=DataConfig(path=str(folder), masks="files"))).state.latents.view([0]).kept
    assert first is not None and first.shape == (1, 1, 8, 8) and first[0, 0, 0].tolist() == [1.0] * 4 + [0.0] * 4
    Image.fromarray(255 - LEFT).save(folder / "000-masklabel.png")
    again = prepared(settings(data=DataConfig(path=str(folder), masks="files"))).state.latents.view([0]).kept
    assert again is not None and torch.equal(again, 1 - first)


@pytest.mark.slow
def test_each_set_has_its_own_masks_and_one_has_none(tmp_path: Path, settings: Settings, prepared: Callable[[TrainConfig], Any]) -> None:
    """masks/ in one, NAME-masklabel.png in the second, none in the third, whose images have the loss of a run without masks."""
    half = Image.fromarray(LEFT)
    for name, seed in (("inner", 1), ("beside", 2), ("bare", 3)):
        tiny.tiny_dataset(tmp_path / name, 2, seed=seed)
    (tmp_path / "inner" / "masks").mkdir()
    for number in range(2):
        half.save(tmp_path / "inner" / "masks" / f"00{number}.png")
        half.save(tmp_path / "beside" / f"00{number}-masklabel.png")
    sets: list[dict[str, Any]] = [{"path": str(tmp_path / name)} for name in ("inner", "beside", "bare")]
    with pytest.raises(
        Faults, match=r"bare/000\.png, bare/001\.png: no mask file, and data\.masks is files: .* give the set `masks: none`"
    ):
        read_set(DataConfig(sets=sets, masks="files"))
    masked = DataConfig(sets=[*sets[:2], sets[2] | {"masks": "none"}], masks="files")
    found = [sample.mask.name if sample.mask else None for sample in read_set(masked).samples]
    assert found == ["000.png", "001.png", "000-masklabel.png", "001-masklabel.png", None, None]
    state = prepared(settings(data=masked, batch_size=6)).state
    batch = state.order.step(0)[0][0]
    with torch.no_grad():
        losses = state._pass(0, batch, of=6)[0]
        state.latents = replace(state.latents, masks=None)
        plain = state._pass(0, batch, of=6)[0]
    same = {state.items[item].sample.name: bool(one == other) for item, one, other in zip(batch.items, losses, plain, strict=True)}
    assert [name for name, equal in sorted(same.items()) if equal] == ["bare/000.png", "bare/001.png"]
