"""What an iteration of training may be changed in without changing what is learned: parts, precision, recomputation."""

from __future__ import annotations

from functools import partialmethod
from typing import Any

import pytest
import torch
from torch import Tensor

from plug.config import build_plug
from plug.plug import PLUG
from sam_common.errors import UserError
from sam_common.sam.image_encoder import ImageEncoder
from tests.plug.test_plug import config, entry

NO_REFINE = ("MODEL.PLUG.REFINE", False)  # its batch statistics are of a part, see `docs/papers/plug.md`


def batch() -> list[dict[str, Any]]:
    """Groups of 2, 1 and 3 objects, each with draws of its own: parts of it differ in every count."""
    groups = [entry(count) for count in (2, 1, 3, 2)]
    for index, group in enumerate(groups):
        group["seeds"] = [10 * index + seed for seed in group["seeds"]]
    return groups


def build(*options: object) -> PLUG:
    torch.manual_seed(0)
    model = build_plug(config(*options)).train()
    for name, parameter in model.named_parameters():
        if name.endswith("up"):
            torch.nn.init.normal_(parameter, std=0.02)
    return model


def step(model: PLUG, *parts: list[dict[str, Any]]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Losses and gradients of a batch: in one go, or summed over its parts."""
    whole = [group for part in parts for group in part]
    losses: dict[str, Tensor] = {}
    for part in parts:
        new = model(part) if len(parts) == 1 else model(part, whole=whole)
        sum(new.values()).backward()
        losses = {name: losses.get(name, 0) + loss.detach() for name, loss in new.items()}
    return losses, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def assert_same(one: tuple[Any, Any], other: tuple[Any, Any]) -> None:
    """Losses within 1e-5, gradients too, beside the largest of all."""
    torch.testing.assert_close(other[0], one[0], rtol=1e-5, atol=1e-6)
    largest = max(float(gradient.abs().max()) for gradient in one[1].values())
    torch.testing.assert_close(other[1], one[1], rtol=1e-4, atol=1e-5 * largest)


@pytest.mark.parametrize("size", [1, 2])
def test_parts_add_up_to_the_batch(size: int) -> None:
    """Means over all objects, however the groups, which differ in size, are dealt out to parts.

    Losses with points, gradients without: of two pixels that are in doubt alike, rounding may choose the other one.
    """
    groups = batch()
    parts = [groups[start : start + size] for start in range(0, len(groups), size)]
    losses, _ = step(build(*NO_REFINE), groups)
    torch.testing.assert_close(step(build(*NO_REFINE), *parts)[0], losses, rtol=1e-5, atol=1e-6)
    plain = (*NO_REFINE, "MODEL.PLUG.POINT_LOSS", False)
    assert_same(step(build(*plain), groups), step(build(*plain), *parts))


def test_losses_are_means_over_objects_not_groups() -> None:
    """By hand: the loss of 1 and of 3 objects together is a quarter of the first and three quarters of the second."""
    model, (one, three) = build(*NO_REFINE), batch()[1:3]
    both, first, second = (model(groups) for groups in ([one, three], [one], [three]))
    for name, loss in both.items():
        torch.testing.assert_close(loss, (first[name] + 3 * second[name]) / 4)


def test_recomputed_activations_change_nothing() -> None:
    """Refine module included: what has batch statistics is not run twice."""
    model = build("MODEL.PLUG.ACTIVATION_CHECKPOINTING", True)
    assert_same(step(build(), batch()), step(model, batch()))
    assert model.refine.blocks[0].residual[1].num_batches_tracked == 1


def test_half_precision_judges_in_float32() -> None:
    """Under bfloat16 losses are float32 and near those without; a box's embedding is the same to the last bit."""
    model = build()
    exact = model(batch())
    with torch.autocast("cpu", torch.bfloat16):
        losses = model(batch())
        logits, doubt, refined = model.segment(torch.randn(2, 3, 64, 64), torch.tensor([[1.0, 2, 30, 40]] * 2))
    assert {x.dtype for x in (*losses.values(), logits, doubt, refined)} == {torch.float32}
    torch.testing.assert_close(losses, exact, rtol=0.05, atol=0.01)


def test_what_gets_no_gradient_is_what_the_model_names() -> None:
    """Exactly these parameters, so that processes neither wait for others nor forget any."""
    model = build()
    _, gradients = step(model, batch())
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained - gradients.keys() == set(model.never_used()) == set(model._ddp_params_and_buffers_to_ignore)
    assert len(trained - gradients.keys()) == 3 + 10 + 2 * 6


def test_merged_weights_are_the_parallel_pass() -> None:
    """In evaluation only, equal within 1e-5, with nothing more in the state; training goes on as before."""
    merged, parallel = build("MODEL.PLUG.TEST.MERGED", True), build("MODEL.PLUG.TEST.MERGED", False)
    assert merged.state_dict().keys() == parallel.state_dict().keys()
    crops = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        one, other = merged.eval().encoder(crops), parallel.eval().encoder(crops)
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5 * float(other.abs().max()))
    assert_same(step(parallel.train(), batch()), step(merged.train(), batch()))


def test_compiled_blocks_learn_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """`MODEL.SAM.COMPILE`, traced without a compiler, with all of LoRA's gradients; not where blocks are recomputed."""
    monkeypatch.setattr(ImageEncoder, "compile_blocks", partialmethod(ImageEncoder.compile_blocks, backend="aot_eager"))
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    assert_same(step(build(), batch()[:1]), step(build("MODEL.SAM.COMPILE", True), batch()[:1]))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    with pytest.raises(UserError, match="MODEL.SAM.COMPILE does not go with"):
        build("MODEL.SAM.COMPILE", True, "MODEL.PLUG.ACTIVATION_CHECKPOINTING", True)
