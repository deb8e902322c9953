"""What one run of a sweep has of its own, as part of a name."""

import pytest

from loraloom.hydra.points import LONGEST, run_label, swept_keys
from registry.references import NAME


@pytest.mark.parametrize(
    ("point", "label"),
    [
        (["lora.rank=4", "seed=1"], "lora.rank=4,seed=1"),
        (["optim.lr=1e-4"], "optim.lr=0.0001"),
        (["optim.lr=0.00012345678"], "optim.lr=0.0001235"),
        (["optim.lr=1e+2"], "optim.lr=100.0"),
        (["data.path='/home/me/my set'"], "data.path=-home-me-my-set"),
        (["lora.alpha=null"], "lora.alpha=null"),
        (["lora.text_encoder=true"], "lora.text_encoder=true"),
        (["lora.targets=[to_q,to_k]"], "lora.targets=to_q-to_k"),
        (["lora.targets='/.*attn[12].*/'"], "lora.targets=-.-attn[12].-"),
        (["experiment=ink"], "experiment=ink"),
    ],
)
def test_a_label_is_fit_for_a_reference_and_a_file(point: list[str], label: str) -> None:
    keys = [one.partition("=")[0] for one in point]
    assert run_label(point, keys) == label
    assert NAME.fullmatch(f"ink@{label}")


def test_long_labels_are_cut_and_stay_apart() -> None:
    first, second = (run_label([f"data.path='{'x' * 150}{end}'"], ["data.path"]) for end in "ab")
    assert first != second
    assert len(first) < LONGEST + 12


def test_only_what_varies_is_in_a_label() -> None:
    overrides = ["experiment=ink", "lora.rank=4,8", "seed=range(1,3)", "name=a,b"]
    assert swept_keys(overrides) == ["lora.rank", "seed"]
    assert run_label(["experiment=ink", "lora.rank=4", "seed=1", "name=a"], swept_keys(overrides)) == "lora.rank=4,seed=1"
