"""Targets that keep guidance, on literals; each against the loss of its paper by the gradient."""

import pytest
import torch

from registry.errors import Faults
from train.objective.contrast import check_contrast, delta_fm, guidance, none

TARGET, OTHER = torch.tensor([1.0, -2.0]), torch.tensor([0.5, 2.0])


def test_the_target_is_guided_away_from_no_prompt() -> None:
    assert none(TARGET, OTHER).tolist() == [1.0, -2.0]
    assert guidance(TARGET, OTHER).tolist() == [2.0, -10.0]  # 0.5 + 3 * 0.5, 2 + 3 * -4
    assert guidance(TARGET, OTHER, contrast_guidance=1.0).tolist() == [1.0, -2.0]


def test_contrastive_flow_matching_has_the_gradient_of_its_paper() -> None:
    weight = 0.2
    moved = delta_fm(TARGET, OTHER, contrast_weight=weight)
    assert moved.tolist() == pytest.approx([1.125, -3.0])  # (1 - 0.1) / 0.8, (-2 - 0.4) / 0.8
    prediction = torch.tensor([0.3, 0.7], requires_grad=True)
    paper = (prediction - TARGET).square().sum() - weight * (prediction - OTHER).square().sum()
    moved_loss = (1 - weight) * (prediction - moved).square().sum()
    assert torch.autograd.grad(paper, prediction)[0].allclose(torch.autograd.grad(moved_loss, prediction)[0])


def test_half_precision_is_taken_in_fp32() -> None:
    for function in (guidance, delta_fm):
        assert function(TARGET.half(), OTHER.half()).dtype == torch.float32


def test_what_has_no_meaning_is_refused_together() -> None:
    check_contrast("guidance", "flow", batch_size=1, text_encoder=False, slider=False)
    check_contrast("none", "epsilon", batch_size=1, text_encoder=True, slider=True)
    with pytest.raises(Faults, match=r"predicts epsilon(.|\n)*batch_size=2(.|\n)*a slider has its own"):
        check_contrast("delta_fm", "epsilon", batch_size=1, text_encoder=False, slider=True)
    with pytest.raises(Faults, match=r"lora\.text_encoder=true"):
        check_contrast("guidance", "flow", batch_size=4, text_encoder=True, slider=False)
