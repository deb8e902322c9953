from registry.formats.image_file import Size
from train.config import TrainConfig
from train.data.dataset import Sample
from train.data.split import TrainSplit
from train.loop.batches import Order
from train.plan.notes import settings_notes


def test_images_that_are_never_reached_are_counted_over_all_processes() -> None:
    images = TrainSplit(tuple(Sample(f"{i}.png", f"{i:064x}", Size(8, 8), f"a {i}", bytes) for i in range(100)), (), "none")
    config = TrainConfig(steps=10, batch_size=4)
    orders = (Order(0, (tuple(range(100)),), 4, 1, processes) for processes in (1, 4))
    alone, together = (settings_notes(config, images, order, ["a"], lambda _text: (1, 77)) for order in orders)
    assert "10 steps of 4 do not reach every one of the 100 images once" in alone
    assert not any("do not reach" in note for note in together)
