"""PosSAM as a meta-architecture, its backbone and its head, as Detectron2's registries build them from a cfg."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import MetadataCatalog
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone, build_backbone
from detectron2.modeling.backbone.fpn import LastLevelMaxPool, LastLevelP6P7
from detectron2.utils.registry import Registry
from torch import Tensor, nn

import possam.config
import possam.head
import possam.possam
from detectron2_sam.plugin.datasets import spec_of, vocabulary_to_draw
from detectron2_sam.plugin.structures import to_instances, to_segments
from possam.clip_encoder import build_clip
from possam.feature_pyramid import SamBackbone
from sam_common.config import get_cfg
from sam_common.engine.checkpoint import trained_state
from sam_common.errors import UserError
from sam_common.structures import Vocabulary

OUT_FEATURES = ("p2", "p3", "p4", "p5", "p6")


class SamViTBackbone(SamBackbone, Backbone):
    """SAM's image encoder with a simple feature pyramid, for any Detectron2 model.

    Its maps are "p2" … "p7" at strides 4 … 128, all of one width, also called "res2" … "res7". As in Detectron2's FPNs,
    "p6" is every second cell of "p5" (`LastLevelMaxPool`), and with a "p7" both are convolutions (`LastLevelP6P7`). A
    layer of the pyramid whose map is not made is frozen.

    Reads `MODEL.SAM.SIZE`, `.WEIGHTS` and `.OUT_FEATURES`, `MODEL.POSSAM.FEATURE_PYRAMID`, and
    `MODEL.BACKBONE.FREEZE_AT`: 0 trains the encoder, anything else (Detectron2's default is 2) freezes it.

    Args:
        image_encoder: SAM's, or another that takes RGB with SAM's mean and deviation, which the model around it must
            be given; a cfg with other pixels is refused.
        feature_pyramid: see `possam.feature_pyramid`.
        out_features: names of the maps to make.
    """

    @configurable
    def __init__(
        self, image_encoder: nn.Module, feature_pyramid: nn.Module, *, out_features: Sequence[str] = OUT_FEATURES
    ) -> None:
        super().__init__(image_encoder, feature_pyramid)
        if wrong := [name for name in out_features if not re.fullmatch("(p|res)[2-7]", name)] or not out_features:
            raise UserError(
                f"MODEL.SAM.OUT_FEATURES is {list(out_features)}; give some of p2 … p7 or res2 … res5: {wrong}"
            )
        self.out_features = tuple(out_features)
        levels = {_level(name) for name in out_features}
        width = self.out_channels
        self.top_block = LastLevelP6P7(width, width, in_feature="p5") if "p7" in levels else LastLevelMaxPool()
        for name, layer in feature_pyramid.named_children():
            if name not in levels and not (name == "p5" and levels & {"p6", "p7"}):
                layer.requires_grad_(False)  # it gets no gradient, which DistributedDataParallel would wait for

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec | None = None) -> dict[str, Any]:
        """Raises UserError where `INPUT.FORMAT`, `MODEL.PIXEL_MEAN` or `.PIXEL_STD` are not SAM's."""
        given, wanted = _pixels(cfg), _pixels(get_cfg())
        if wrong := [key for key, value in wanted.items() if given[key] != value]:
            raise UserError(
                f"SamViTBackbone takes SAM's pixels, and {wrong[0]} is {given[wrong[0]]}: "
                f"set {', '.join(f'{key} {wanted[key]}' for key in wrong)}"
            )
        backbone = possam.config.build_backbone(cfg)
        backbone.image_encoder.requires_grad_(cfg.MODEL.BACKBONE.FREEZE_AT == 0)
        parts = {"image_encoder": backbone.image_encoder, "feature_pyramid": backbone.feature_pyramid}
        return {**parts, "out_features": cfg.MODEL.SAM.OUT_FEATURES}

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """[B, 3, H, W], normalised -> for each of `out_features` [B, C, H/2^k, W/2^k], rounded up."""
        maps = super().forward(images)
        maps.update(zip(("p6", "p7"), self.top_block(maps["p5"]), strict=False))
        return _Maps((name, maps[_level(name)]) for name in self.out_features)

    @property
    def size_divisibility(self) -> int:
        return self.size_divisor

    @property
    def padding_constraints(self) -> dict[str, int]:
        return {"size_divisibility": self.size_divisor}

    def output_shape(self) -> dict[str, ShapeSpec]:
        width = self.out_channels
        return _Maps((name, ShapeSpec(channels=width, stride=_stride(name))) for name in self.out_features)


def _pixels(cfg: CfgNode) -> dict[str, Any]:
    """The keys that say what a model's pixels are."""
    statistics = {f"MODEL.{key}": list(cfg.MODEL[key]) for key in ("PIXEL_MEAN", "PIXEL_STD")}
    return {"INPUT.FORMAT": cfg.INPUT.FORMAT, **statistics}


class _Maps(dict[str, Any]):
    """What a backbone makes, by name; asking for another map says how to get it."""

    def __missing__(self, name: str) -> Any:
        raise UserError(
            f"the model asks for the feature map {name!r}, and SamViTBackbone makes {', '.join(self)}: "
            "add it to MODEL.SAM.OUT_FEATURES (out_features), or change the IN_FEATURES of the model"
        )


def _level(name: str) -> str:
    """The map of the pyramid that goes by a name: res4 is p4."""
    return f"p{name[-1]}"


def _stride(name: str) -> int:
    return 2 ** int(name[-1])


class PosSAMHead(possam.head.PosSAMHead):
    """PosSAM's head on the maps "p2" … "p5" of any backbone."""

    @configurable
    def __init__(self, **parts: Any) -> None:
        super().__init__(**parts)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """Raises UserError where the backbone lacks a map, or its maps differ in width or in stride from 4 … 32."""
        names = ("p2", "p3", "p4", "p5")
        shapes = {name: (s.channels, s.stride) for name, s in input_shape.items() if name in names}
        channels = {channels for channels, _ in shapes.values()}
        if len(channels) != 1 or shapes != {name: (*channels, _stride(name)) for name in names}:
            raise UserError(
                f"PosSAMHead needs a backbone with p2 … p5 of one width at strides 4, 8, 16, 32 (a feature pyramid); "
                f"{cfg.MODEL.BACKBONE.NAME} gives {', '.join(input_shape) or 'nothing'}"
            )
        with torch.device("meta"):  # only its dimensions are asked for
            clip = build_clip(cfg.MODEL.CLIP.NAME, "random")
        return possam.config.head_arguments(cfg, *channels, embed_dim=clip.embed_dim, clip_channels=clip.channels)


POSSAM_HEAD_REGISTRY = Registry("POSSAM_HEAD")
POSSAM_HEAD_REGISTRY.__doc__ = """
Heads of PosSAM, which `MODEL.POSSAM.HEAD.NAME` chooses from: called with a cfg and the `output_shape()` of the
backbone, each makes a module with the `forward` of `PosSAMHead`.
"""


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
    by which Detectron2's tools name what they draw (of a benchmark that is not here, those that ship), or what the
    model was trained on. Outputs are the model's, with `instances` as Detectron2's `Instances`.

    Attributes:
        vocabulary: the classes to find in inputs that don't say; may be set to any words at any time.
    """

    @configurable
    def __init__(self, *, train_datasets: Sequence[str] = (), test_datasets: Sequence[str] = (), **parts: Any) -> None:
        super().__init__(**parts)
        self.vocabulary: Vocabulary = ()
        self.train_datasets, self.test_datasets = tuple(train_datasets), tuple(test_datasets)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        clip = build_clip(cfg.MODEL.CLIP.NAME, cfg.MODEL.CLIP.WEIGHTS)
        backbone = build_backbone(cfg)
        head = POSSAM_HEAD_REGISTRY.get(cfg.MODEL.POSSAM.HEAD.NAME)(cfg, backbone.output_shape())
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

    @functools.cached_property
    def _train_words(self) -> Vocabulary:
        return _shared_vocabulary(self.train_datasets)

    @functools.cached_property
    def _test_words(self) -> Vocabulary:
        return _shared_vocabulary(self.test_datasets[:1])

    def _training_words(self) -> Vocabulary:
        vocabulary = self._train_words
        if not vocabulary:
            raise UserError(
                "a training input names no classes: give it a vocabulary, or name its data set in DATASETS.TRAIN"
            )
        return vocabulary

    def _words(self, entry: dict[str, Any]) -> Vocabulary:
        if not self.vocabulary and len(self.test_datasets) > 1 and "file_name" in entry:
            raise UserError(
                f"{entry['file_name']}: DATASETS.TEST has several sets; an input must say whose classes it asks for: "
                "give it a vocabulary (detectron2_sam.vocabulary_of(name)), or set model.vocabulary"
            )
        try:
            vocabulary = self.vocabulary or self._test_words or self.training_vocabulary
        except UserError:
            if not self.training_vocabulary or self._draws_other_words():
                raise
            vocabulary = self.training_vocabulary
        if not vocabulary:
            raise UserError(
                "there are no words to look for: set model.vocabulary, or DATASETS.TEST to a data set, or train first"
            )
        return vocabulary

    def _draws_other_words(self) -> bool:
        """Whether Detectron2's tools have names for what is found, which those of the training would not be."""
        metadata = MetadataCatalog.get(self.test_datasets[0])
        return any(metadata.get(f"{kind}_classes") for kind in ("thing", "stuff"))

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
    vocabularies = [vocabulary_to_draw(spec_of(name)) for name in names]
    for name, vocabulary in zip(names, vocabularies, strict=True):
        if vocabulary != vocabularies[0]:
            raise UserError(f"{name} has other classes than {names[0]}; give every training input its vocabulary")
    return vocabularies[0] if vocabularies else ()
