"""AM-SAM's loss, by hand."""

from __future__ import annotations

import math

import torch

from amsam.criterion import dice_loss, few_shot_losses


def test_a_perfect_answer_loses_nothing_and_the_opposite_everything() -> None:
    """Dice 0 and 1 for both classes."""
    one_hot = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).view(1, 2, 1, 2)
    assert dice_loss(one_hot, one_hot) < 1e-5
    assert dice_loss(one_hot.flip(1), one_hot) > 0.9999


def test_undecided_logits() -> None:
    """By hand: p = 1/2 everywhere, 1 of 4 pixels object. Dice of background 1 - 3 / (1 + 3), of the object
    1 - 1 / (1 + 1); cross-entropy log 2."""
    labels = torch.tensor([[[1, 0, 0, 0]]])
    losses = few_shot_losses(torch.zeros(1, 2, 1, 4), labels)
    torch.testing.assert_close(losses["loss_cross_entropy"], torch.tensor(0.2 * math.log(2)))
    torch.testing.assert_close(losses["loss_dice"], torch.tensor(0.8 * (0.25 + 0.5) / 2), rtol=1e-4, atol=0)


def test_an_empty_class_is_finite() -> None:
    """A batch without an object pixel, answered rightly, loses next to nothing and has a finite gradient."""
    logits = torch.tensor([20.0, -20.0]).view(1, 2, 1, 1).expand(1, 2, 3, 3).clone().requires_grad_()
    loss = sum(few_shot_losses(logits, torch.zeros(1, 3, 3, dtype=torch.int64)).values())
    loss.backward()
    assert loss < 1e-4 and logits.grad.isfinite().all()


def test_pixels_that_nothing_is_said_of_do_not_count() -> None:
    """Whatever the logits there: the same losses as without those pixels."""
    logits, labels = torch.randn(1, 3, 2, 4), torch.tensor([[[0, 1, 2, 0], [-1, -1, -1, -1]]])
    ours, expected = few_shot_losses(logits, labels), few_shot_losses(logits[:, :, :1], labels[:, :1])
    for name, value in expected.items():
        torch.testing.assert_close(ours[name], value)


def test_an_image_of_which_nothing_is_said_teaches_nothing() -> None:
    """Both losses and the gradient are 0, not NaN, which would end the training."""
    logits = torch.randn(1, 2, 3, 3, requires_grad=True)
    loss = sum(few_shot_losses(logits, torch.full((1, 3, 3), -1)).values())
    loss.backward()
    assert loss == 0 and (logits.grad == 0).all()
