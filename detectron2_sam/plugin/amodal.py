"""PLUG, and the SAM it is compared with, as meta-architectures."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.structures import Instances
from torch import Tensor

import plug.config
import plug.plug
import plug.vanilla_sam
from detectron2_sam.plugin.modeling import TrainedPart
from detectron2_sam.plugin.structures import boxes_of, to_amodal_instances
from sam_common.errors import UserError


class _Amodal(TrainedPart):
    """Detectron2's inputs and outputs for a model of whole objects.

    Inputs are those of the model itself; `boxes` may be Detectron2's `Boxes`, or missing: they are then those of
    `instances`, what a detector found, or of `proposals`. They are in pixels of `image`, which must not be resized; one
    without area inside it is a `UserError`.
    Outputs are the model's, and `instances`, Detectron2's, in the order of the boxes (see `to_amodal_instances`).
    """

    def _complete(self, entry: dict[str, Any]) -> dict[str, Any]:
        if self.training and "amodal_masks" not in entry:
            raise UserError(
                f"{entry.get('file_name') or 'a training image'} has no amodal_masks; use "
                "mapper=detectron2_sam.AmodalMapper(cfg, True)"
            )
        boxes, _ = boxes_of(entry)
        if boxes is None:
            raise UserError(f"{entry.get('file_name') or 'an input'} has no boxes: give boxes, instances or proposals")
        complete = {"file_name": "", **entry, "boxes": boxes}
        if "amodal_masks" in entry and "seeds" not in entry:
            complete["seeds"] = torch.randint(2**62, (len(boxes),)).tolist()
        return complete

    def _answer(self, entry: dict[str, Any], output: Any) -> dict[str, Any]:
        return {"instances": to_amodal_instances(output["amodal"], _classes(entry))}


class PLUG(_Amodal, plug.plug.PLUG):
    """PLUG with Detectron2's inputs and outputs (see `_Amodal`)."""

    arguments = staticmethod(plug.config.plug_arguments)


class VanillaSAM(_Amodal, plug.vanilla_sam.VanillaSAM):
    """SAM asked by `amodal_boxes`, with the same."""

    arguments = staticmethod(plug.config.vanilla_sam_arguments)


def _classes(entry: dict[str, Any]) -> Tensor | None:
    """The classes that the boxes came with: the model has none of its own."""
    found = entry.get("instances")
    if isinstance(found, Instances) and found.has("pred_classes"):
        return found.pred_classes
    known = entry.get("category_ids")
    return None if known is None or None in known else torch.tensor(known, dtype=torch.int64)
