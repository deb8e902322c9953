from registry.formats.image_file import Size
from train.config import HeldoutConfig, TrainConfig
from train.data.dataset import Sample
from train.data.split import TrainSplit
from train.loop.batches import Order
from train.plan.notes import settings_notes, small_set_notes


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
