"""PosSAM: Panoptic Open-vocabulary Segment Anything (arXiv 2403.09620), Figure 3.

    image -> backbone: frozen SAM encoder, feature pyramid --> head: masks, IoU, class logits --> MASE -> inference
    image -> frozen CLIP image encoder ----------------------> head, MASE
    words -> frozen CLIP text encoder -> text embeddings ----> head, MASE

Shapes: B images, Q queries, C classes, E the dimension of CLIP's embedding, [H, W] the padded image, h4 = H/4,
w4 = W/4.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from possam.classifier import cosine_logits
from possam.clip_encoder import ClipEncoder
from possam.criterion import Criterion
from possam.panoptic_inference import instances, panoptic, semantic, semantic_labels
from possam.side_stream import side_stream
from possam.structures import SegmentationInput
from possam.text_embeddings import TextEmbeddings
from sam_common.contracts import Losses, SegmentationOutput
from sam_common.errors import UserError
from sam_common.evaluation.class_groups import seen_classes
from sam_common.layers.pixels import PixelNormalization, crop_and_resize, normalize_and_pad, pad
from sam_common.structures import Category, Segments, Vocabulary

SIZE_DIVISOR = 32  # the coarsest stride of the pyramid and of CLIP


@dataclass(frozen=True)
class Inference:
    """Which outputs are made and with which thresholds (spec section 5)."""

    panoptic: bool = True
    semantic: bool = False
    semantic_labels: bool = False
    instances: bool = False
    overlap_threshold: float = 0.8
    mask_threshold: float = 0.5
    score_threshold: float = 0.0
    max_instances: int = 100

    @property
    def outputs(self) -> set[str]:
        """The keys of what is made of an image."""
        asked = {
            "panoptic_seg": self.panoptic,
            "sem_seg": self.semantic,
            "sem_seg_labels": self.semantic_labels,
            "instances": self.instances,
        }
        return {key for key, wanted in asked.items() if wanted}


class PosSAM(nn.Module):
    """Image and words in, panoptic, semantic or instance segmentation out.

    `forward(batch)` takes a list of dictionaries:
        image: [3, h, w] uint8 RGB, any size.
        vocabulary: the classes to find, the same for the whole batch.
        height, width: the size to return masks at (evaluation).
        segments, seed, file_name: ground truth, key of the random draws, name for messages (training).

    `forward(part, whole=batch)` trains on a part of a batch: the losses of its parts add up to those of the batch.

    In training it returns a dictionary of weighted scalar losses; else a list of dictionaries with
        panoptic_seg: ([height, width] int32 ids, 0 = void; list of id, category_id, isthing, score).
        sem_seg: [C, height, width] class scores.
        sem_seg_labels: int64 [height, width], their best class; thousands of classes need no more memory than one.
        instances: `Instances`, best first.
    as far as `inference` asks for them.
    """

    def __init__(
        self,
        backbone: nn.Module,
        clip: ClipEncoder,
        *,
        head: nn.Module,
        ensemble: nn.Module,
        criterion: Criterion,
        text_embeddings: TextEmbeddings,
        sam_pixels: tuple[Sequence[float], Sequence[float]],
        clip_pixels: tuple[Sequence[float], Sequence[float]],
        image_size: int,
        inference: Inference,
    ) -> None:
        """Args: the parts of Figure 3; mean and std (0..255, RGB) for SAM and for CLIP; the least padded side.

        `backbone` is a `SamBackbone`, or another module that makes "p2" … "p5" of a batch; `head` a `PosSAMHead`.
        """
        super().__init__()
        self.backbone = backbone
        self.clip = clip
        self.head = head
        self.ensemble = ensemble
        self.criterion = criterion
        self.text_embeddings = text_embeddings
        self.image_size = image_size
        self.inference = inference
        self.training_vocabulary: Vocabulary = ()
        self.normalize_for_sam = PixelNormalization(*sam_pixels)
        self.normalize_for_clip = PixelNormalization(*clip_pixels)

    @property
    def outputs(self) -> set[str]:
        """The keys of what it makes of an image."""
        return self.inference.outputs

    @property
    def device(self) -> torch.device:
        return self.normalize_for_sam.device

    def forward(
        self, batch: list[SegmentationInput], whole: Sequence[SegmentationInput] | None = None
    ) -> Losses | list[SegmentationOutput]:
        vocabulary = common_vocabulary(batch)
        text = self.text_embeddings(vocabulary).to(self.device)
        images = [entry["image"].to(self.device) for entry in batch]
        size = padded_size([(image.shape[1], image.shape[2]) for image in images], self.image_size, SIZE_DIVISOR)

        with side_stream(self.device) as join:
            clip_features = self.clip.features(normalize_and_pad(images, self.normalize_for_clip, size))
        features = self.backbone(normalize_and_pad(images, self.normalize_for_sam, size))
        predictions, clip_embeddings = self.head(
            features, clip_features=join(clip_features), project=self.clip.project, text=text
        )
        if self.training:
            self.training_vocabulary = tuple(dict.fromkeys((*self.training_vocabulary, *vocabulary)))
            targets = [pad_segments(entry["segments"].to(self.device), size) for entry in batch]
            seeds, file_names = [entry["seed"] for entry in batch], [entry["file_name"] for entry in batch]
            counts = [len(entry["segments"]) for entry in whole or batch]
            return self.criterion(predictions, targets, seeds, file_names, batch_counts=counts)

        final = predictions[-1]
        clip_logits = cosine_logits(clip_embeddings, text, self.clip.temperature)
        seen = seen_classes(vocabulary, self.training_vocabulary).to(self.device)
        scores = self.ensemble(final.class_logits, clip_logits, final.iou, seen)  # [B, Q, C + 1]
        return [
            self.postprocess(scores[b], final.mask_logits[b], size, batch[b], vocabulary) for b in range(len(batch))
        ]

    def postprocess(
        self,
        scores: Tensor,
        mask_logits: Tensor,
        padded: tuple[int, int],
        entry: SegmentationInput,
        vocabulary: Vocabulary,
    ) -> SegmentationOutput:
        """Scores [Q, C + 1] and masks [Q, h4, w4] of one image -> the outputs asked for, at its original size."""
        valid = (entry["image"].shape[1], entry["image"].shape[2])
        masks = crop_and_resize(mask_logits.float(), valid, padded, (entry["height"], entry["width"]))
        is_thing = torch.tensor([category.is_thing for category in vocabulary], device=masks.device)
        ask = self.inference
        outputs: SegmentationOutput = {}
        if ask.panoptic:
            outputs["panoptic_seg"] = panoptic(
                scores,
                masks,
                is_thing,
                overlap_threshold=ask.overlap_threshold,
                mask_threshold=ask.mask_threshold,
                score_threshold=ask.score_threshold,
            )
        if ask.semantic:
            outputs["sem_seg"] = semantic(scores, masks)
        if ask.semantic_labels:
            outputs["sem_seg_labels"] = semantic_labels(scores, masks)
        if ask.instances:
            outputs["instances"] = instances(scores, masks, is_thing, max_instances=ask.max_instances)
        return outputs

    def get_extra_state(self) -> Tensor:
        """The classes trained on travel with the weights: they decide which classes are *seen* later.

        As JSON in a uint8 tensor, since other programs that read checkpoints expect tensors only.
        """
        classes = [[c.name, list(c.synonyms), c.is_thing, c.id] for c in self.training_vocabulary]
        return torch.frombuffer(bytearray(json.dumps(classes).encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        try:
            self.training_vocabulary = tuple(
                Category(name, tuple(synonyms), is_thing, identifier)
                for name, synonyms, is_thing, identifier in json.loads(state.cpu().numpy().tobytes())
            )
        except (AttributeError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"the checkpoint's list of training classes is damaged or of an earlier version ({reason}); train again"
            ) from error


def common_vocabulary(batch: Sequence[SegmentationInput]) -> Vocabulary:
    """The vocabulary of a batch.

    Raises:
        UserError: images of one batch ask for different vocabularies.
    """
    vocabulary = batch[0]["vocabulary"]
    for entry in batch[1:]:
        if entry["vocabulary"] != vocabulary:
            names = f"{batch[0].get('file_name')} and {entry.get('file_name')}"
            raise UserError(f"one batch holds two vocabularies ({names}); data sets trained together must share one")
    return vocabulary


def pad_segments(segments: Segments, size: tuple[int, int]) -> Segments:
    """Ground truth with its masks padded to the size of the batch."""
    return Segments(segments.gt_classes, pad(segments.gt_masks, size))


def padded_size(sizes: Sequence[tuple[int, int]], at_least: int, divisor: int) -> tuple[int, int]:
    """The (height, width) that holds all `sizes`, at least the square `at_least`, as multiples of `divisor`."""
    height = max(at_least, *(h for h, _ in sizes)) if sizes else at_least
    width = max(at_least, *(w for _, w in sizes)) if sizes else at_least
    return (height + divisor - 1) // divisor * divisor, (width + divisor - 1) // divisor * divisor
