import torch

from train.objective.masked import loss_weights, mean_by_image

KEPT = torch.tensor([[[[1.0, 0.5], [0.0, 0.0]]]])  # (1, 1, 2, 2)
ELEMENTS = torch.tensor([[[[1.0, 2.0], [4.0, 8.0]]]])  # (1, 1, 2, 2)


def test_the_loss_is_the_plain_sum_over_what_is_kept() -> None:
    """Normalised: (1*1 + .5*2) / 1.5; not normalised: over all four elements."""
    normal = loss_weights(KEPT, unmasked=0.0, normalize=True)
    assert torch.allclose(mean_by_image(ELEMENTS, normal), torch.tensor([2.0 / 1.5]))
    plain = loss_weights(KEPT, unmasked=0.0, normalize=False)
    assert torch.allclose(mean_by_image(ELEMENTS, plain), torch.tensor([2.0 / 4]))


def test_what_is_left_out_counts_by_its_weight() -> None:
    """w = .1 + .9 kept: 1, .55, .1, .1; the mean is 3.3 / 1.75."""
    weights = loss_weights(KEPT, unmasked=0.1, normalize=False)
    assert torch.allclose(weights, torch.tensor([[[[1.0, 0.55], [0.1, 0.1]]]]))
    assert torch.allclose(mean_by_image(ELEMENTS, loss_weights(KEPT, unmasked=0.1, normalize=True)), torch.tensor([3.3 / 1.75]))


def test_an_error_outside_the_mask_gives_no_gradient() -> None:
    prediction = torch.zeros(1, 3, 2, 2, requires_grad=True)
    target = torch.zeros(1, 3, 2, 2)
    target[:, :, 1] = 1e6  # left out
    target[:, :, 0] = 1.0
    weights = loss_weights(KEPT, unmasked=0.0, normalize=True)
    mean_by_image((prediction - target).square(), weights).sum().backward()  # type: ignore[no-untyped-call]
    assert prediction.grad is not None and not prediction.grad[:, :, 1].any() and bool(prediction.grad[:, :, 0].all())


def test_without_a_mask_it_is_the_plain_mean() -> None:
    assert torch.equal(mean_by_image(ELEMENTS), torch.tensor([3.75]))
