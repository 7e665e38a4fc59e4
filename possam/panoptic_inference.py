"""From mask scores and mask logits to panoptic, semantic and instance segmentation: pure functions of one image.

PosSAM, arXiv 2403.09620, Section 4 follows Mask2Former (arXiv 2112.01527) here. Two things differ from Mask2Former:
scores are final (the ensemble has already normalised them; a second softmax would flatten them), and no query is
dropped for a low score (`score_threshold` 0).

Shapes: Q queries, C classes, H and W the pixels of the image the masks were resized to.
    scores: [Q, C+1] in [0, 1], void last.
    mask_logits: [Q, H, W]; a sigmoid makes them probabilities.
    is_thing: [C] bool, countable objects; the others are stuff.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sam_common.boxes.boxes import tight_boxes
from sam_common.contracts import Panoptic, PanopticSegment
from sam_common.structures import Instances

_STRIP = 2**24  # scores that are held at a time beside the masks


def panoptic(
    scores: Tensor,
    mask_logits: Tensor,
    is_thing: Tensor,
    *,
    overlap_threshold: float = 0.8,
    mask_threshold: float = 0.5,
    score_threshold: float = 0.0,
) -> Panoptic:
    """Every pixel's segment: queries compete by score × mask probability, the first of equals wins.

    A query's label is its best column; void queries take no part. A query that won much less than its own mask is
    mostly hidden behind better ones, and its pixels become void. Regions of one stuff class become one segment.

    Args:
        scores, mask_logits, is_thing: as in the file's header.
        overlap_threshold: a query is kept if (pixels won) / (pixels of its own mask) is at least this. As in
            Mask2Former, the pixels won include those below `mask_threshold`.
        mask_threshold: mask probability from which a pixel belongs to a mask, in (0, 1).
        score_threshold: queries take part with a score above this.

    Returns:
        [H, W] int32 segment ids on the masks' device (0 is void, ids count from 1 in the order of the queries), and one
        dictionary for each id: `id`, `category_id` (index in the vocabulary), `isthing`, `score` (of several queries of
        one stuff class, the best).
    """
    best_scores, labels = scores.max(dim=-1)
    kept = (labels != scores.shape[-1] - 1) & (best_scores > score_threshold)
    if scores.device.type == "cpu":  # only they need to compete; on a GPU, to know how many would be to wait for it
        best_scores, labels, mask_logits, kept = (x[kept] for x in (best_scores, labels, mask_logits, kept))
    if not len(labels):
        return torch.zeros(mask_logits.shape[-2:], dtype=torch.int32, device=mask_logits.device), []
    thing = torch.cat((is_thing, is_thing.new_ones(1)))[labels]  # void is neither
    id_map, ids = _segment(best_scores, labels, thing, kept, mask_logits, overlap_threshold, mask_threshold)

    # Ids and labels are exact in float64, so all is read back at once.
    columns = torch.stack([column.double() for column in (ids, labels, thing, best_scores)], dim=1)
    segments: list[PanopticSegment] = []
    for identifier, label, isthing, score in columns.tolist():
        if identifier > len(segments):
            segments.append(
                {"id": int(identifier), "category_id": int(label), "isthing": bool(isthing), "score": score}
            )
        elif identifier:
            segment = segments[int(identifier) - 1]
            segment["score"] = max(segment["score"], score)
    return id_map, segments


def _segment(
    scores: Tensor,
    labels: Tensor,
    thing: Tensor,
    kept: Tensor,
    mask_logits: Tensor,
    overlap_threshold: float,
    mask_threshold: float,
) -> tuple[Tensor, Tensor]:
    """What `panoptic` decides of K queries, without the host.

    Args:
        scores, labels, thing: [K] of each query's best class.
        kept: [K] bool, those that take part.
        mask_logits: [K, H, W].

    Returns:
        [H, W] int32 ids; [K] int64, the id of each query, 0 for none.
    """
    winner, inside, areas = _compete(scores, kept, mask_logits, mask_threshold)
    won, own, visible = areas.unbind(dim=1)
    kept = kept & (visible > 0) & (won >= overlap_threshold * own.double())
    # The regions of one stuff class belong to the first of its queries.
    order = torch.arange(len(labels), device=labels.device)
    same = (labels[:, None] == labels) & ~thing & kept
    leader = torch.where(same.any(dim=1), same.int().argmax(dim=1), order)
    ids = torch.where(kept, (kept & (leader == order)).cumsum(dim=0)[leader], 0)
    return ids.int()[winner] * inside, ids


def _compete(scores: Tensor, kept: Tensor, mask_logits: Tensor, mask_threshold: float) -> tuple[Tensor, Tensor, Tensor]:
    """Who wins each pixel, for K queries; the others win only where none is kept.

    Args:
        scores, kept: [K], as above.
        mask_logits: [K, H, W].
        mask_threshold: mask probability from which a pixel belongs to a mask.

    Returns:
        [H, W] int64 winning query; [H, W] bool, whether the pixel is inside the winner's own mask; [K, 3] int64 areas
        in pixels: won, own mask, won and inside the own mask.
    """
    handicap = torch.where(kept, 0.0, -2.0)[:, None, None]  # below every score × probability
    weights = scores.float()[:, None, None]
    winners, insides, areas = [], [], []
    for strip in _strips(mask_logits, len(scores)):
        probs = strip.float().sigmoid()
        winner = torch.addcmul(handicap, weights, probs).argmax(dim=0)
        inside_masks = probs >= mask_threshold
        inside = inside_masks.gather(0, winner[None])[0]
        counts = torch.zeros(2 * len(scores), dtype=torch.int64, device=scores.device)
        cells = (2 * winner + inside).flatten()
        outside_area, visible = counts.scatter_add_(0, cells, torch.ones_like(cells)).view(-1, 2).unbind(dim=1)
        areas.append(torch.stack([outside_area + visible, inside_masks.flatten(1).sum(dim=1), visible], dim=1))
        winners.append(winner)
        insides.append(inside)
    return torch.cat(winners), torch.cat(insides), torch.stack(areas).sum(dim=0)


def _strips(mask_logits: Tensor, depth: int) -> tuple[Tensor, ...]:
    """Rows of [Q, H, W] so many at a time that `depth` maps of them hold no more than `_STRIP` numbers."""
    return mask_logits.split(max(1, _STRIP // (depth * mask_logits.shape[-1])), dim=-2)


def semantic(scores: Tensor, mask_logits: Tensor) -> Tensor:
    """[C, H, W] class scores Σ_q scores[q, c] · sigmoid(mask_logits[q]), no void; a pixel's class is the argmax."""
    return torch.einsum("qc,qhw->chw", scores[:, :-1].float(), mask_logits.float().sigmoid())


def semantic_labels(scores: Tensor, mask_logits: Tensor) -> Tensor:
    """int64 [H, W], the argmax of `semantic` over the classes, made strip by strip: no tensor is [C, H, W]."""
    return torch.cat([semantic(scores, strip).argmax(dim=0) for strip in _strips(mask_logits, max(scores.shape))])


def instances(scores: Tensor, mask_logits: Tensor, is_thing: Tensor, *, max_instances: int = 100) -> Instances:
    """Things as independent, possibly overlapping masks.

    The best (query, class) pairs are taken, then those of stuff are dropped, so stuff uses up places as in Mask2Former.
    A pair's score is multiplied by the mean mask probability inside its mask.

    Args:
        scores, mask_logits, is_thing: as in the file's header.
        max_instances: how many pairs are taken.

    Returns:
        Instances sorted by score, best first, ties in the order of (query, class); a mask is `mask_logits > 0`.
    """
    num_classes = scores.shape[-1] - 1
    # A stable sort, as topk leaves the order of equal scores open.
    pair_scores, pairs = scores[:, :-1].float().flatten().sort(descending=True, stable=True)
    pair_scores, pairs = pair_scores[:max_instances], pairs[:max_instances]
    things = is_thing.to(pairs.device)[pairs % num_classes]
    pair_scores, pairs = pair_scores[things], pairs[things]
    queries, classes = pairs // num_classes, pairs % num_classes

    masks = mask_logits > 0
    inside = (mask_logits.float().sigmoid() * masks).flatten(1).sum(dim=1)
    mask_quality = inside / masks.flatten(1).sum(dim=1).clamp(min=1)
    final_scores, order = (pair_scores * mask_quality[queries]).sort(descending=True, stable=True)
    queries, classes = queries[order], classes[order]
    height, width = mask_logits.shape[-2:]
    return Instances((height, width), masks[queries], final_scores, classes, tight_boxes(masks)[queries])
