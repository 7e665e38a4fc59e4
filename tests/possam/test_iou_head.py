"""IoU head and its stand-in."""

from __future__ import annotations

import torch

from possam.iou_head import IoUHead, PerfectIoU


def test_iou_head_is_a_sigmoid_of_one_number():
    """A last layer of weight 0 and bias log 3 says 3/4 for every query, whatever its embedding and batch shape."""
    head = IoUHead(16)
    with torch.no_grad():
        head.mlp.layers[-1].weight.zero_()
        head.mlp.layers[-1].bias.fill_(3.0).log_()
    torch.testing.assert_close(head(torch.randn(4, 2, 5, 16)), torch.full((4, 2, 5), 0.75))


def test_iou_head_learns_from_queries():
    """The gradient reaches the query embeddings, and the prediction differs between queries."""
    queries = torch.randn(2, 5, 16, requires_grad=True)
    iou = IoUHead(16)(queries)
    iou.sum().backward()
    assert iou.unique().numel() == 10
    assert queries.grad.abs().sum(-1).gt(0).all()


def test_perfect_iou():
    """p_iou = 1 for every query, with nothing to learn."""
    assert torch.equal(PerfectIoU()(torch.randn(2, 5, 16, requires_grad=True)), torch.ones(2, 5))
