"""Attention with decomposed relative positions."""

from __future__ import annotations

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sam_common.sam.attention import relative_position_attention, relative_positions


def random_inputs(N: int, heads: int, H: int, W: int, D: int) -> list[torch.Tensor]:
    q, k, v = torch.randn(3, N, heads, H, W, D)
    return [q, k, v, torch.randn(H, H, D), torch.randn(W, W, D)]


def test_relative_positions_are_looked_up_by_query_minus_key() -> None:
    """By hand: a table of the offsets -2..2 for 3 tokens; entry [q, k] is the offset q - k."""
    table = torch.tensor([[-2.0], [-1.0], [0.0], [1.0], [2.0]])
    expected = torch.tensor([[0.0, -1.0, -2.0], [1.0, 0.0, -1.0], [2.0, 1.0, 0.0]])
    torch.testing.assert_close(relative_positions(table, 3)[..., 0], expected)


def test_relative_positions_of_another_size_are_resized_linearly() -> None:
    """By hand: 5 offsets -> 3 (pixel centres, scale 5/3): source coordinates 1/3, 2 and 11/3 of the ramp 0..4."""
    table = torch.arange(5.0)[:, None]
    resized = relative_positions(table, 2)[..., 0]
    torch.testing.assert_close(resized, torch.tensor([[2.0, 1 / 3], [11 / 3, 2.0]]))


def test_equals_the_equation_written_out() -> None:
    """Every logit computed pair by pair from the equation in the file's docstring, on a map that is not square."""
    q, k, v, rel_h, rel_w = random_inputs(1, 1, 2, 3, 4)
    expected = torch.empty(2, 3, 4)
    for y in range(2):
        for x in range(3):
            query = q[0, 0, y, x]
            logits = torch.stack(
                [
                    query @ k[0, 0, j, i] / math.sqrt(4) + query @ rel_h[y, j] + query @ rel_w[x, i]
                    for j in range(2)
                    for i in range(3)
                ]
            )
            expected[y, x] = logits.softmax(0) @ v[0, 0].reshape(6, 4)
    torch.testing.assert_close(relative_position_attention(q, k, v, rel_h, rel_w)[0, 0], expected)


@pytest.mark.parametrize("max_bias", [1, 2 * 3 * 5 * 4 * 5 * 3, 10**9], ids=["row by row", "uneven chunks", "at once"])
def test_chunks_change_nothing(max_bias: int) -> None:
    """The bound on memory is no approximation, also where rows of queries do not divide evenly into chunks."""
    inputs = random_inputs(2, 3, 4, 5, 8)
    reference = relative_position_attention(*inputs)
    torch.testing.assert_close(relative_position_attention(*inputs, max_bias=max_bias), reference)


def test_positions_inside_queries_and_keys_are_the_same_attention() -> None:
    """Result and gradients of all five inputs, in float64, on maps that are not square."""
    inputs = [x.double().requires_grad_() for x in random_inputs(2, 3, 4, 5, 8)]
    direction = torch.randn(2, 3, 4, 5, 8, dtype=torch.float64)
    kept, inside = (relative_position_attention(*inputs, max_kept=limit) for limit in (10**9, 0))
    torch.testing.assert_close(inside, kept)
    expected, found = (torch.autograd.grad(result, inputs, direction) for result in (kept, inside))
    torch.testing.assert_close(found, expected)


def test_a_backward_pass_keeps_nothing_of_all_pairs() -> None:
    """With positions inside, no kept tensor is as large as the attention matrix; else some are."""

    def largest_kept(limit: int) -> int:
        inputs, sizes = [x.requires_grad_() for x in random_inputs(1, 1, 16, 16, 8)], [0]
        with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.numel()) or x, lambda x: x):
            relative_position_attention(*inputs, max_kept=limit)
        return max(sizes)

    pairs = (16 * 16) ** 2
    assert largest_kept(0) < pairs <= largest_kept(pairs)


def test_no_tensor_is_larger_than_the_bound() -> None:
    """Without a gradient, nothing that comes into being has more elements than the bias may have; pairs are 16 times as
    many."""

    class Largest(TorchDispatchMode):
        numel = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            for tensor in result if isinstance(result, tuple) else (result,):
                if isinstance(tensor, torch.Tensor):
                    self.numel = max(self.numel, tensor.numel())
            return result

    inputs, pairs = random_inputs(1, 1, 16, 16, 8), (16 * 16) ** 2
    with torch.no_grad(), Largest() as largest:
        relative_position_attention(*inputs, max_bias=pairs // 16)
    assert largest.numel == pairs // 16
