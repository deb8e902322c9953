"""What the demo shows: prompts that its LoRA never trains on."""

from loraloom.data_files import data_dir
from loraloom.demo import SHOWN

INK = data_dir() / "ink"


def test_the_shown_prompts_are_held_out() -> None:
    trained = {path.read_text(encoding="utf-8").strip() for path in INK.glob("*.txt")}
    shown = {(INK / "heldout" / f"{name}.txt").read_text(encoding="utf-8").strip() for name in SHOWN}
    assert len(shown) == len(SHOWN) == 8
    assert trained and not shown & trained
    assert all((INK / "heldout" / f"{name}.png").is_file() for name in SHOWN)
