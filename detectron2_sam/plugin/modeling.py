"""PosSAM as a meta-architecture, its backbone and its head, as Detectron2's registries build them from a cfg."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone, build_backbone, build_sem_seg_head
from torch import Tensor, nn

import possam.config
import possam.possam
from detectron2_sam.plugin.datasets import vocabulary_of
from detectron2_sam.plugin.structures import to_instances, to_segments
from possam.clip_encoder import build_clip
from possam.feature_pyramid import SamBackbone
from possam.head import PosSAMHead as Head
from sam_common.engine.checkpoint import trained_state
from sam_common.errors import UserError
from sam_common.structures import Vocabulary

STRIDES = {"p2": 4, "p3": 8, "p4": 16, "p5": 32, "p6": 64}


class SamViTBackbone(SamBackbone, Backbone):
    """SAM's image encoder with a simple feature pyramid: "p2" … "p6", all of one width, for any Detectron2 model.

    Reads `MODEL.SAM.SIZE` and `.WEIGHTS`, `MODEL.POSSAM.FEATURE_PYRAMID`, and `MODEL.BACKBONE.FREEZE_AT`: 0 trains the
    encoder, anything else (Detectron2's default is 2) freezes it. It expects RGB with SAM's mean and deviation.
    """

    @configurable
    def __init__(self, image_encoder: nn.Module, feature_pyramid: nn.Module) -> None:
        super().__init__(image_encoder, feature_pyramid)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec | None = None) -> dict[str, Any]:
        backbone = possam.config.build_backbone(cfg)
        backbone.image_encoder.requires_grad_(cfg.MODEL.BACKBONE.FREEZE_AT == 0)
        return {"image_encoder": backbone.image_encoder, "feature_pyramid": backbone.feature_pyramid}

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """[B, 3, H, W], normalised -> "p2" … "p6", [B, C, H/2^k, W/2^k]; p6 is every second cell of p5."""
        features = super().forward(images)
        return {**features, "p6": F.max_pool2d(features["p5"], kernel_size=1, stride=2)}

    @property
    def size_divisibility(self) -> int:
        return self.size_divisor

    @property
    def padding_constraints(self) -> dict[str, int]:
        return {"size_divisibility": self.size_divisor}

    def output_shape(self) -> dict[str, ShapeSpec]:
        return {name: ShapeSpec(channels=self.out_channels, stride=stride) for name, stride in STRIDES.items()}


def PosSAMHead(cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> Head:
    """PosSAM's head on the maps "p2" … "p5" of any backbone.

    Raises:
        UserError: the backbone lacks one of them, or they differ in width or in stride from 4, 8, 16, 32.
    """
    names = ("p2", "p3", "p4", "p5")
    shapes = {name: (s.channels, s.stride) for name, s in input_shape.items() if name in names}
    channels = {channels for channels, _ in shapes.values()}
    if len(channels) != 1 or shapes != {name: (*channels, STRIDES[name]) for name in names}:
        raise UserError(
            f"PosSAMHead needs a backbone with p2 … p5 of one width at strides 4, 8, 16, 32 (a feature pyramid); "
            f"{cfg.MODEL.BACKBONE.NAME} gives {', '.join(input_shape) or 'nothing'}"
        )
    with torch.device("meta"):  # only its dimensions are asked for
        clip = build_clip(cfg.MODEL.CLIP.NAME, "random")
    return possam.config.build_head(cfg, *channels, embed_dim=clip.embed_dim, clip_channels=clip.channels)


class TrainedPart(nn.Module):
    """A model that Detectron2 builds of a cfg, and whose `state_dict()` holds what trains and nothing else, so any
    checkpointer writes small files and reads ours.

    Attributes:
        arguments: cfg -> those of the constructor.
    """

    arguments: Callable[[CfgNode], dict[str, Any]]

    @configurable
    def __init__(self, *args: Any, **parts: Any) -> None:
        super().__init__(*args, **parts)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        return cls.arguments(cfg)

    def forward(self, batch: list[Any], whole: Sequence[Any] | None = None) -> Any:
        """The model's own `forward`, between Detectron2's inputs and outputs; losses stay as they are."""
        more = [] if whole is None else [[self._complete(entry) for entry in whole]]
        outputs = super().forward([self._complete(entry) for entry in batch], *more)
        if isinstance(outputs, dict):
            return outputs
        return [{**output, **self._answer(entry, output)} for entry, output in zip(batch, outputs, strict=True)]

    def _complete(self, entry: dict[str, Any]) -> Any:
        """The input with all that the model expects."""
        raise NotImplementedError

    def _answer(self, entry: dict[str, Any], output: Any) -> dict[str, Any]:
        """What Detectron2 expects of the output for an input, beside what the model makes."""
        raise NotImplementedError

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """What trains; as part of another module, that one decides."""
        return super().state_dict(*args, **kwargs) if args or kwargs else trained_state(self)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Loads what trains; frozen weights, which came with the model, are not missed."""
        keys = super().load_state_dict(state_dict, strict=False, assign=assign)
        needed = self.state_dict().keys()
        missing = [key for key in keys.missing_keys if key in needed]
        if strict and (missing or keys.unexpected_keys):
            raise RuntimeError(f"state_dict of another model: missing {missing}, unexpected {keys.unexpected_keys}")
        return type(keys)(missing, keys.unexpected_keys)


class PosSAM(TrainedPart, possam.possam.PosSAM):
    """PosSAM with Detectron2's inputs and outputs.

    Inputs are those of the model itself, and Detectron2's: `image` may be float, `height` and `width` default to its
    size, ground truth may be `instances` or `sem_seg` (see `to_segments`). An input may lack `vocabulary`. In training
    its classes are then those of `DATASETS.TRAIN`; otherwise they are `self.vocabulary`, or those of `DATASETS.TEST`,
    by which Detectron2's tools name what they draw, or what the model was trained on. Outputs are the model's, with
    `instances` as Detectron2's `Instances`.

    Attributes:
        vocabulary: the classes to find in inputs that don't say; may be set to any words at any time.
    """

    @configurable
    def __init__(self, *, train_datasets: Sequence[str] = (), test_datasets: Sequence[str] = (), **parts: Any) -> None:
        super().__init__(**parts)
        self.vocabulary: Vocabulary = ()
        self._train_words = functools.cache(functools.partial(_shared_vocabulary, tuple(train_datasets)))
        self._test_words = functools.cache(functools.partial(_shared_vocabulary, tuple(test_datasets)[:1]))
        self._several_tests = len(test_datasets) > 1

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        clip = build_clip(cfg.MODEL.CLIP.NAME, cfg.MODEL.CLIP.WEIGHTS)
        backbone = build_backbone(cfg)
        head = build_sem_seg_head(cfg, backbone.output_shape())
        parts = possam.config.possam_arguments(cfg, backbone=backbone, clip=clip, head=head)
        return {**parts, "train_datasets": cfg.DATASETS.TRAIN, "test_datasets": cfg.DATASETS.TEST}

    def _answer(self, entry: dict[str, Any], output: Any) -> dict[str, Any]:
        return {"instances": to_instances(output["instances"])} if "instances" in output else {}

    def _complete(self, entry: dict[str, Any]) -> Any:
        height, width = entry["image"].shape[-2:]
        complete = {"height": height, "width": width, "file_name": "", **entry}
        if "vocabulary" not in entry:
            complete["vocabulary"] = self._training_words() if self.training else self._words(entry)
        if self.training:
            segments = complete["segments"] = to_segments(entry)
            num_classes = len(complete["vocabulary"])
            if (
                len(segments)
                and not 0 <= int(segments.gt_classes.min()) <= int(segments.gt_classes.max()) < num_classes
            ):
                raise UserError(
                    f"{complete['file_name'] or 'a training image'} has the class {int(segments.gt_classes.max())}, "
                    f"but the vocabulary has {num_classes} classes"
                )
            complete.setdefault("seed", int(torch.randint(2**62, ())))
        return complete

    def _training_words(self) -> Vocabulary:
        vocabulary = self._train_words()
        if not vocabulary:
            raise UserError(
                "a training input names no classes: give it a vocabulary, or name its data set in DATASETS.TRAIN"
            )
        return vocabulary

    def _words(self, entry: dict[str, Any]) -> Vocabulary:
        if not self.vocabulary and self._several_tests and "file_name" in entry:
            raise UserError(
                f"{entry['file_name']}: DATASETS.TEST has several sets; an input must say whose classes it asks for: "
                "give it a vocabulary (detectron2_sam.vocabulary_of(name)), or set model.vocabulary"
            )
        vocabulary = self.vocabulary or self._test_words() or self.training_vocabulary
        if not vocabulary:
            raise UserError(
                "there are no words to look for: set model.vocabulary, or DATASETS.TEST to a data set, or train first"
            )
        return vocabulary

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """What trains, and the training vocabulary once there is one (readers compare the shapes of what is there)."""
        state = super().state_dict(*args, **kwargs)
        if args or kwargs or self.training_vocabulary:
            return state
        return {key: value for key, value in state.items() if key != "_extra_state"}


def _shared_vocabulary(names: tuple[str, ...]) -> Vocabulary:
    """The classes of these data sets, of none without any.

    Raises:
        UserError: they have different ones, or a file that lists them cannot be read.
    """
    vocabularies = [vocabulary_of(name) for name in names]
    for name, vocabulary in zip(names, vocabularies, strict=True):
        if vocabulary != vocabularies[0]:
            raise UserError(f"{name} has other classes than {names[0]}; give every training input its vocabulary")
    return vocabularies[0] if vocabularies else ()
