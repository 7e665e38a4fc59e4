"""Trains the tiny SAM (size T) on generated scenes: class-agnostic masks from boxes and points.

The scenes show seen classes only, drawn as they are needed; each image is encoded once and prompted with every thing
and every stuff region in it, by a jittered box and, for some, by a point. Targets are visible masks. As in SAM, the
first mask token answers every prompt, the other three answer together (the best of them is corrected), and the IoU head
learns the IoU of each mask.

Symbols: B images, N prompts of one image, S the side of a scene, s = S / 4 the side of a mask.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sam_common.boxes.boxes import tight_boxes
from sam_common.data.generated.scene import Scene, generate_scene
from sam_common.data.generated.vocabulary import seen_vocabulary, world_vocabulary
from sam_common.layers.pixels import PixelNormalization
from sam_common.sam.box_prompt import predict_masks_from_boxes
from sam_common.sam.build import Sam, build_sam
from sam_common.sam.load import load_sam_weights
from sam_common.structures import Vocabulary

from .training import build_optimizer, in_words, metadata_of, update, write

_WORLD, _VALIDATION_WORLD, _TEST_WORLD = 2_000_000, 3_000_000, 4_000_000  # far from the seeds of data sets
_POINTS = 2  # prompts by point per image
_WARMUP = 200
_EVAL_PERIOD = 500
_JITTER = 0.08  # of the box's side
_NORMALIZE = PixelNormalization((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))


def train_tiny_sam(
    output: Path,
    *,
    seed: int,
    iterations: int,
    batch_size: int = 8,
    learning_rate: float = 1e-3,
    start: Path | None = None,
) -> dict[str, float]:
    """Trains a tiny SAM, writes it to `output` (float16 safetensors) and returns its scores on 200 test scenes.

    Every `_EVAL_PERIOD` iterations it is scored on 40 validation scenes of seen classes; the best state is kept and
    written.

    Args:
        output: the file.
        seed: of the initial weights, the scenes and the prompts.
        iterations: of `batch_size` scenes; the learning rate follows a cosine over them.
        batch_size: scenes.
        learning_rate: the highest, after warm-up.
        start: a file that this function wrote, to go on from; default: random weights.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    sam = build_sam("T").train()
    command = f"python -m weights.tiny_encoders --only sam --seed {seed} --sam-iterations {iterations}"
    command += f" --sam-batch-size {batch_size} --sam-learning-rate {learning_rate}"
    if start is not None:
        load_sam_weights(sam, start)
        command += f" --sam-start FILE, with FILE from: {metadata_of(start)['command']}"
    metadata = {"seed": str(seed), "command": command}
    optimizer = build_optimizer(sam, learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _learning_rate_factor(step, iterations))
    best, kept = (-1.0 if start is None else _validate(sam)), _half_state(sam)
    began = time.monotonic()
    for iteration in range(1, iterations + 1):
        first = (iteration - 1) * batch_size
        scenes = [generate_scene(_WORLD + seed, first + i, categories=seen_vocabulary()) for i in range(batch_size)]
        losses = training_losses(sam, scenes, generator)
        update(sam, optimizer, torch.stack(list(losses.values())).sum())
        schedule.step()
        minutes = (time.monotonic() - began) / 60
        if iteration % 50 == 0:
            print(
                f"sam {iteration}/{iterations} {minutes:.1f} min  {in_words(losses)}",
                flush=True,
            )
        if iteration % _EVAL_PERIOD == 0 or iteration == iterations:
            validation = _validate(sam)
            print(f"sam {iteration}/{iterations} validation box mIoU {validation:.3f}", flush=True)
            if validation > best:
                best, kept = validation, _half_state(sam)
                metadata |= {"iteration": f"{iteration} of {iterations}", "minutes": f"{minutes:.0f}"}
                write(output, kept, metadata)
    sam.load_state_dict(kept)
    scores = box_scores(sam, _TEST_WORLD, count=200, categories=world_vocabulary())
    write(output, kept, metadata | {"box_miou": in_words(scores)})
    return scores


def _validate(sam: Sam) -> float:
    return box_scores(sam, _VALIDATION_WORLD, count=40, categories=seen_vocabulary())["all"]


def _half_state(sam: Sam) -> dict[str, Tensor]:
    return {name: tensor.half() for name, tensor in sam.state_dict().items()}


def _learning_rate_factor(step: int, iterations: int) -> float:
    """Linear warm-up, then a cosine to 1% of the learning rate."""
    if step < _WARMUP:
        return (step + 1) / _WARMUP
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - _WARMUP) / max(1, iterations - _WARMUP)))


def training_losses(sam: Sam, scenes: list[Scene], generator: torch.Generator) -> dict[str, Tensor]:
    """Mask losses of the single-mask token and of the best of the other three, and the IoU head's, over all prompts."""
    with torch.autocast("cpu", torch.bfloat16):
        embeddings = sam.image_encoder(normalised_images(scenes))
        prompts = [_draw_prompts(sam, visible_masks(scene), generator) for scene in scenes]
        counts = torch.tensor([len(sparse) for sparse, _ in prompts])
        sparse, target = (torch.cat(parts) for parts in zip(*prompts, strict=True))
        logits, predicted_iou = _decode(sam, embeddings.repeat_interleave(counts, dim=0), sparse)
    logits, predicted_iou, target = logits.float(), predicted_iou.float(), target[:, None]
    coverage = F.avg_pool2d(target, 4)  # [P, 1, s, s], how much of each mask pixel the segment covers
    mask_loss = _mask_loss(logits, coverage.expand_as(logits))
    with torch.no_grad():
        hit, truth = logits > 0, coverage > 0.5
        iou = (hit & truth).sum((-2, -1)) / (hit | truth).sum((-2, -1)).clamp(min=1)
    return {
        "single": mask_loss[:, 0].mean(),
        "best_of_three": 0.3 * mask_loss[:, 1:].amin(1).mean(),
        "iou": F.mse_loss(predicted_iou, iou),
    }


def _mask_loss(logits: Tensor, coverage: Tensor) -> Tensor:
    """Binary cross entropy plus Dice of mask logits against coverage in [0, 1], both [..., s, s] -> [...].

    The coverage is soft at borders, so that the zero crossing of the logits is learned to a fraction of a pixel.
    """
    cross_entropy = F.binary_cross_entropy_with_logits(logits, coverage, reduction="none").mean((-2, -1))
    probability = logits.sigmoid()
    overlap = 2 * (probability * coverage).sum((-2, -1)) + 1
    dice = 1 - overlap / ((probability**2).sum((-2, -1)) + (coverage**2).sum((-2, -1)) + 1)
    return 5 * cross_entropy + dice


def normalised_images(scenes: Iterable[Scene]) -> Tensor:
    """[B, 3, S, S] float32, with SAM's mean and deviation."""
    images = torch.from_numpy(np.stack([scene.image for scene in scenes])).permute(0, 3, 1, 2)
    return _NORMALIZE(images)


def visible_masks(scene: Scene) -> Tensor:
    """[N, S, S] float32, of every thing, then of every stuff region."""
    return torch.from_numpy(np.stack([mask for _, mask in scene.segments()])).float()


def _draw_prompts(sam: Sam, masks: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A box for every mask, tight or jittered, and points in some: sparse embeddings [N, 2, C], targets [N, S, S]."""
    boxes = tight_boxes(masks)
    sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    noise = torch.randn(boxes.shape, generator=generator).clamp(-2, 2) * _JITTER
    jittered = torch.rand(len(boxes), 1, generator=generator) < 0.5
    side = masks.shape[-1]
    boxes = (boxes + noise * sides * jittered).clamp(0, side)
    chosen = torch.randint(len(masks), (_POINTS,), generator=generator)
    coordinates = torch.stack([_draw_point(mask, generator) for mask in masks[chosen]])[:, None]
    labels = torch.ones(_POINTS, 1, dtype=torch.int)
    by_box, _ = sam.prompt_encoder(points=None, boxes=boxes, masks=None)
    by_point, _ = sam.prompt_encoder(points=(coordinates, labels), boxes=None, masks=None)
    return torch.cat([by_box, by_point]), torch.cat([masks, masks[chosen]])


def _draw_point(mask: Tensor, generator: torch.Generator) -> Tensor:
    """[2] x, y of any pixel of a mask [S, S]; the prompt encoder itself moves points to pixel centres."""
    inside = mask.nonzero()
    row, column = inside[torch.randint(len(inside), (), generator=generator)].tolist()
    return torch.tensor([column, row], dtype=torch.float32)


def _decode(sam: Sam, embeddings: Tensor, sparse: Tensor) -> tuple[Tensor, Tensor]:
    """All four masks of each prompt: logits [P, 4, s, s] and predicted IoU [P, 4].

    Args:
        embeddings: [P, C, s / 4, s / 4], of the image that each prompt is for.
        sparse: [P, 2, C].
    """
    # The decoder adds its dense prompts to the embedding of one image: prompts of several images go through in one call
    # when each brings its own image's embedding along and the one image is zero.
    return sam.mask_decoder.predict_masks(
        image_embeddings=torch.zeros_like(embeddings[:1]),
        image_pe=sam.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=embeddings + sam.prompt_encoder.no_mask_embed.weight.view(1, -1, 1, 1),
    )


@torch.no_grad()
def box_scores(sam: Sam, world: int, *, count: int, categories: Vocabulary) -> dict[str, float]:
    """Mean IoU of single masks drawn from the tight boxes of all things with their visible masks, at full size.

    Args:
        sam: of any size; it is put into training mode again if it was.
        world, count, categories: the scenes, as `generate_scene` takes them.

    Returns:
        Of things of all, seen and unseen classes; and what the filled box itself would score.
    """
    was_training = sam.training
    sam.eval()
    ious, boxes_alone, seen = [], [], []
    for index in range(count):
        scene = generate_scene(world, index, categories=categories)
        truth = visible_masks(scene)[: len(scene.things)].bool()
        boxes = tight_boxes(truth)
        logits, _ = predict_masks_from_boxes(sam, normalised_images([scene]), [boxes])
        drawn = F.interpolate(logits, size=truth.shape[-2:], mode="bilinear")[:, 0] > 0
        ious.append((drawn & truth).sum((1, 2)) / (drawn | truth).sum((1, 2)))
        boxes_alone.append(truth.sum((1, 2)) / (boxes[:, 2:] - boxes[:, :2]).prod(1))
        seen += [categories[thing.category] in seen_vocabulary() for thing in scene.things]
    sam.train(was_training)
    iou, is_seen = torch.cat(ious), torch.tensor(seen)
    parts = {"all": iou, "seen": iou[is_seen], "unseen": iou[~is_seen], "the box itself": torch.cat(boxes_alone)}
    return {name: part.mean().item() for name, part in parts.items()}
