"""Any detector of Detectron2's whose objects are completed: its boxes of what is seen, PLUG's masks of the whole."""

from __future__ import annotations

from typing import Any, cast

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.structures import BitMasks, Boxes, Instances, RotatedBoxes
from torch import Tensor, nn
from torch.nn import functional as F

import plug.plug
from detectron2_sam.plugin.structures import to_amodal_instances
from plug.predictor import Predictor
from sam_common.boxes.boxes import clip_boxes
from sam_common.config import one_of
from sam_common.errors import UserError


class AmodalDetector(nn.Module):
    """A detector, and PLUG on the boxes that it finds.

    Inputs, outputs, losses and the state dictionary are the detector's own, so whatever trains, tests, saves or loads
    the detector does so with this. PLUG brings its weights; it is neither trained nor saved. In evaluation an output
    has besides

        amodal: `AmodalInstances` of PLUG, in the order of `instances`;
        instances: the detector's `Instances` [N] of the size that was asked for, with
            pred_amodal_masks: [N, height, width] bool, the whole objects;
            pred_visible_masks: likewise, what PLUG takes for seen, where it has the branch;
            amodal_scores: [N], mean probability inside the amodal mask.

    PLUG looks at the detector's image, resized to `height` and `width`. Each box costs a pass of it, so the detector's
    score threshold decides on the time.

    Args:
        detector: makes `instances` with `pred_boxes`, in pixels of (`height`, `width`), or with `pred_masks` alone.
        completer: PLUG.
        input_format: RGB or BGR, of the detector's images, 0..255.
    """

    @configurable
    def __init__(self, detector: nn.Module, completer: plug.plug.PLUG, *, input_format: str = "BGR") -> None:
        super().__init__()
        self.detector = detector
        self.completer = completer.eval().requires_grad_(False)
        self.is_bgr = input_format == "BGR"

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """The cfg is the detector's; `MODEL.AMODAL_DETECTOR` says what its `META_ARCHITECTURE` was, and which PLUG."""
        keys = cfg.MODEL.AMODAL_DETECTOR
        one_of("INPUT.FORMAT, of what PLUG sees as well,", cfg.INPUT.FORMAT, ("BGR", "RGB"))
        if keys.DETECTOR not in META_ARCH_REGISTRY or META_ARCH_REGISTRY.get(keys.DETECTOR) is cls:
            raise UserError(
                f"MODEL.AMODAL_DETECTOR.DETECTOR is {keys.DETECTOR!r}; give the META_ARCHITECTURE of a detector, "
                "GeneralizedRCNN or RetinaNet for example"
            )
        return {
            "detector": META_ARCH_REGISTRY.get(keys.DETECTOR)(cfg),
            "completer": build_completer(keys.PLUG_CONFIG, keys.PLUG_WEIGHTS),
            "input_format": cfg.INPUT.FORMAT,
        }

    def forward(self, batch: list[dict[str, Any]]) -> dict[str, Tensor] | list[dict[str, Any]]:
        outputs = self.detector(batch)
        if self.training:
            return outputs
        return [self.complete(entry, output) for entry, output in zip(batch, outputs, strict=True)]

    @torch.no_grad()
    def complete(self, entry: dict[str, Any], output: dict[str, Any]) -> dict[str, Any]:
        """The detector's output for one image with what PLUG makes of its boxes.

        Where a box has no area its mask's is taken: Mask2Former and its like leave all boxes zero. Objects without area
        inside the image are left out, as Detectron2's own `detector_postprocess` leaves them out.

        Raises:
            UserError: it has no instances, as of a model that proposes boxes or labels pixels, these have neither boxes
                nor masks, or the boxes are rotated.
        """
        if "instances" not in output:
            raise UserError(
                f"the detector {type(self.detector).__name__} makes {', '.join(output)}, no instances; "
                "give one that does"
            )
        found = _with_boxes(output["instances"], type(self.detector).__name__)
        found = found[_inside(found).nonempty()]
        image = entry["image"].flip(0) if self.is_bgr else entry["image"]
        if image.shape[1:] != found.image_size:
            image = F.interpolate(image[None].float(), found.image_size, mode="bilinear", antialias=True)[0]
        amodal = self.completer([{"image": image, "boxes": _inside(found).tensor}])[0]["amodal"]
        whole = to_amodal_instances(amodal)
        completed = Instances(found.image_size, **found.get_fields())
        completed.pred_amodal_masks, completed.amodal_scores = whole.pred_masks, whole.scores
        if whole.has("pred_visible_masks"):
            completed.pred_visible_masks = whole.pred_visible_masks
        return {**output, "instances": completed, "amodal": amodal}

    def train(self, mode: bool = True) -> AmodalDetector:
        super().train(mode)
        self.completer.eval()
        return self

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """The detector's, so a file of either is a file of the other; as part of another module, all of it."""
        return super().state_dict(*args, **kwargs) if args or kwargs else self.detector.state_dict()

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        return self.detector.load_state_dict(*args, **kwargs)


def _with_boxes(found: Instances, detector: str) -> Instances:
    """The instances, each with a box: of its mask, where the detector gives none that has an area."""
    if not found.has("pred_boxes") and not found.has("pred_masks"):
        raise UserError(f"the instances of {detector} have neither pred_boxes nor pred_masks; give a detector's")
    if found.has("pred_boxes") and isinstance(found.pred_boxes, RotatedBoxes):
        raise UserError("the detector's boxes are rotated, and PLUG is asked by upright ones; give one of those")
    boxes = found.pred_boxes if found.has("pred_boxes") else Boxes(torch.zeros(len(found), 4))
    empty = ~boxes.nonempty()
    if not empty.any():
        return found
    if not found.has("pred_masks"):
        if empty.all():
            raise UserError(f"no box of {detector} has an area, and there are no pred_masks to take boxes from")
        return found
    masks = found.pred_masks.tensor if isinstance(found.pred_masks, BitMasks) else found.pred_masks
    if getattr(masks, "shape", None) != (len(found), *found.image_size):
        raise UserError(f"the pred_masks of {detector} are not of the image's size, so no box can be taken from them")
    of_masks = BitMasks(masks > 0.5).get_bounding_boxes().tensor
    complete = Instances(found.image_size, **found.get_fields())
    complete.pred_boxes = Boxes(torch.where(empty[:, None], of_masks, boxes.tensor.to(of_masks)))
    return complete


def _inside(found: Instances) -> Boxes:
    """Of each box the part inside the image."""
    return Boxes(clip_boxes(found.pred_boxes.tensor, found.image_size))


def build_completer(config_file: str, weights: str) -> plug.plug.PLUG:
    """PLUG as a configuration file of its own describes it, with the weights of a training; on the CPU.

    Args:
        config_file: a path, or the name of a shipped one.
        weights: a checkpoint of its training; `random`: untrained.

    Raises:
        UserError: there are no weights, or they or the file cannot be used.
    """
    if not weights:
        raise UserError(
            f"PLUG ({config_file}) has no weights: give the model_final.pth of its training as "
            "MODEL.AMODAL_DETECTOR.PLUG_WEIGHTS, or random"
        )
    predictor = Predictor.from_config(config_file, weights=weights, options=["MODEL.DEVICE", "cpu"])
    return cast(plug.plug.PLUG, predictor.model)


def whole_objects(found: Instances) -> Instances:
    """The same instances with the whole objects as their `pred_masks`, which is what `Visualizer` draws."""
    fields = {**found.get_fields(), "pred_masks": found.pred_amodal_masks}
    return Instances(found.image_size, **fields)


def is_amodal_detector(cfg: CfgNode) -> bool:
    """Whether the cfg is one for a detector whose inputs, weights and training are Detectron2's own."""
    return META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE) is AmodalDetector
