"""What an iteration of training may be changed in without changing what is learned: precision, parts, recomputation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from possam.classifier import CosineClassifier
from possam.config import CHECKPOINTED, build_possam
from possam.local_discriminative_pooling import masked_average_pool
from possam.possam import PosSAM
from possam.text_embeddings import ClassEmbeddings
from sam_common.structures import Segments
from tests.possam.test_possam import config, entry


def batch() -> list[dict[str, Any]]:
    """Four images with 2, 2, 0 and 1 segments, so that parts of it differ in every count."""
    images = [entry(64, 64, seed=seed) for seed in range(4)]
    for image, count in zip(images, (2, 2, 0, 1), strict=True):
        segments = image["segments"]
        image["segments"] = Segments(segments.gt_classes[:count], segments.gt_masks[:count])
    return images


def build(*options: str) -> PosSAM:
    torch.manual_seed(0)
    return build_possam(config(*options)).train()


def step(model: PosSAM, *parts: list[dict[str, Any]]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Losses and gradients of a batch: in one go, or summed over its parts."""
    whole = [image for part in parts for image in part]
    losses: dict[str, Tensor] = {}
    for part in parts:
        new = model(part) if len(parts) == 1 else model(part, whole=whole)
        sum(new.values()).backward()
        losses = {name: losses.get(name, 0) + loss.detach() for name, loss in new.items()}
    return losses, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("sizes", [(2, 2), (1, 1, 1, 1)])
def test_parts_add_up_to_the_batch(sizes: tuple[int, ...]) -> None:
    """The issue's bound: losses within 1e-5, relative; gradients too, beside the largest of each parameter."""
    images = batch()
    losses, gradients = step(build(), images)
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    parts = [images[start : start + size] for start, size in zip(starts, sizes, strict=True)]
    summed_losses, summed_gradients = step(build(), *parts)
    torch.testing.assert_close(summed_losses, losses, rtol=1e-5, atol=1e-6)
    largest = max(float(gradient.abs().max()) for gradient in gradients.values())
    torch.testing.assert_close(summed_gradients, gradients, rtol=1e-4, atol=1e-5 * largest)


def test_one_part_is_the_batch_to_the_last_bit() -> None:
    """Naming the batch as the whole of itself changes no bit of what was there before there were parts."""
    images, model = batch(), build()
    with torch.no_grad():
        alone, named = model(images), model(images, whole=images)
    assert all(torch.equal(alone[name], named[name]) for name in alone)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_step_in_half_precision_is_near_float32(dtype: torch.dtype) -> None:
    """Losses come in float32, finite, each within 5 % of float32's; gradients are finite and point the same way."""
    images = batch()
    losses, gradients = step(build(), images)
    with torch.autocast("cpu", dtype=dtype):
        half_losses, half_gradients = step(build(), images)
    assert all(loss.dtype == torch.float32 and torch.isfinite(loss) for loss in half_losses.values())
    torch.testing.assert_close(half_losses, losses, rtol=0.05, atol=0.01)
    exact, half = (torch.cat([g[name].flatten() for name in gradients]) for g in (gradients, half_gradients))
    assert torch.isfinite(half).all() and torch.cosine_similarity(exact, half, dim=0) > 0.9


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_classifier_and_pooling_stay_in_float32(dtype: torch.dtype) -> None:
    """Under autocast they give what they give in float32, to the last bit; a mask's sum would overflow float16."""
    text = ClassEmbeddings(torch.nn.functional.normalize(torch.randn(5, 16), dim=-1), torch.tensor([0, 0, 1, 2, 2]))
    classifier, embeddings = CosineClassifier(16), torch.randn(2, 3, 16)
    features, masks = 100 + torch.randn(2, 4, 32, 32), torch.ones(2, 3, 32, 32)
    expected = classifier(embeddings, text), masked_average_pool(features, masks)
    with torch.autocast("cpu", dtype=dtype):
        found = classifier(embeddings, text), masked_average_pool(features, masks)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


KEY = "MODEL.POSSAM.ACTIVATION_CHECKPOINTING"


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("MODEL.POSSAM.DECODER.NAME", "two_way"),
        ("MODEL.POSSAM.POOLING", "cross_attention"),
    ],
    ids=["masked", "two_way", "cross_attention"],
)
def test_recomputed_activations_change_nothing(options: tuple[str, ...]) -> None:
    """Losses, gradients and the names of parameters are equal to the last bit with and without."""
    images = batch()[:2]
    losses, gradients = step(build(*options), images)
    again, recomputed = step(build(*options, KEY, "True"), images)
    assert losses.keys() == again.keys() and gradients.keys() == recomputed.keys()
    assert all(torch.equal(losses[name], again[name]) for name in losses)
    assert all(torch.equal(gradients[name], recomputed[name]) for name in gradients)


def test_recomputing_keeps_less() -> None:
    """Every layer and the pooling run once more in the backward pass, and fewer bytes wait for it."""
    images, kept, calls = batch()[:1], [], []
    for value in ("False", "True"):
        model, sizes, count = build(KEY, value), [], []
        for module in model.modules():
            if isinstance(module, CHECKPOINTED):
                first = next(module.children())
                first.register_forward_hook(lambda *_, count=count: count.append(1))

        def pack(tensor: Tensor, sizes: list[int] = sizes) -> Tensor:
            sizes.append(tensor.numel() * tensor.element_size())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            losses = model(images)
        kept.append(sum(sizes))
        sum(losses.values()).backward()
        calls.append(len(count))
    assert calls[1] == 2 * calls[0] == 2 * (2 + 3 + 4)  # pixel decoder, decoder, pooling at each prediction point
    assert kept[1] < 0.7 * kept[0]


def test_frozen_encoders_leave_no_graph_and_run_in_half_precision() -> None:
    """In training: nothing to differentiate in what they give; every product of theirs in bfloat16 under autocast."""
    model, graphs, products = build(), set(), set()
    encoders = (model.backbone.image_encoder, model.clip.clip.visual.trunk.stages)
    for encoder in encoders:
        encoder.register_forward_hook(lambda module, args, output: graphs.add(output.grad_fn))
        for module in encoder.modules():
            if isinstance(module, torch.nn.Linear | torch.nn.Conv2d):
                module.register_forward_hook(lambda module, args, output: products.add(output.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(batch()[:1])
    assert graphs == {None} and products == {torch.bfloat16}


def test_the_encoder_is_compiled_where_asked() -> None:
    """`MODEL.SAM.COMPILE`: all blocks, or none; compilation itself waits for the first image."""
    for asked in (False, True):
        blocks = build("MODEL.SAM.COMPILE", str(asked)).backbone.image_encoder.blocks
        assert {block._compiled_call_impl is not None for block in blocks} == {asked}
