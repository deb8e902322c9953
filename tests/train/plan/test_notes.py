from registry.formats.image_file import Size
from train.config import HeldoutConfig, LoraConfig, OptimConfig, TrainConfig
from train.data.dataset import Sample
from train.data.split import TrainSplit
from train.loop.batches import Order
from train.plan.notes import settings_notes, small_set_notes, unusual_rates


def notes(**optim: object) -> list[str]:
    return list(unusual_rates(TrainConfig(optim=OptimConfig(**optim), lora=LoraConfig(text_encoder=True))))  # type: ignore[arg-type]


def test_a_rate_that_destroys_a_lora_is_noted() -> None:
    (note,) = notes(lr=1.0)
    assert note.startswith("optim.lr is 1: with adamw each weight moves by about that much a step") and "1e-4 suits rank 16" in note
    assert ["optim.text_lr is 0.5" in note for note in notes(name="torch.optim.NAdam", lr=1e-3, text_lr=0.5)] == [True]
    assert "next to nothing" in notes(name="adafactor", lr=1e-7)[0]


def test_rates_that_suit_are_not() -> None:
    assert notes() == notes(lr=1e-2) == notes(lr=1e-6) == notes(name="sgd", lr=1.0) == notes(name="prodigy", lr=1.0) == []


def test_images_that_are_never_reached_are_counted_over_all_processes() -> None:
    images = TrainSplit(tuple(Sample(f"{i}.png", f"{i:064x}", Size(8, 8), f"a {i}", bytes) for i in range(100)), (), "none")
    config = TrainConfig(steps=10, batch_size=4)
    orders = (Order(0, (tuple(range(100)),), 4, 1, processes) for processes in (1, 4))
    alone, together = (settings_notes(config, images, order, ["a"], lambda _text: (1, 77)) for order in orders)
    assert "10 steps of 4 do not reach every one of the 100 images once" in alone
    assert not any("do not reach" in note for note in together)


def test_a_set_of_a_few_images_is_answered_with_parts_of_it() -> None:
    def split(images: int, held: int) -> TrainSplit:
        every = [Sample(f"{i}.png", f"{i:064x}", Size(8, 8), f"a {i}", bytes) for i in range(images)]
        return TrainSplit(tuple(every[held:]), tuple(every[:held]), "")

    (note,) = small_set_notes(TrainConfig(heldout=HeldoutConfig(share=0.2)), split(6, 1))
    assert note.startswith(
        "of 6 images one is held out, which gives no interval: loraloom train --multirun heldout.folds=3 heldout.fold=0,1,2"
    )
    assert small_set_notes(TrainConfig(), split(6, 0))[0].startswith("none of 6 images is held out")
    assert small_set_notes(TrainConfig(heldout=HeldoutConfig(folds=3)), split(6, 2)) == []
    assert small_set_notes(TrainConfig(), split(40, 0)) == small_set_notes(TrainConfig(), split(10, 2)) == []
