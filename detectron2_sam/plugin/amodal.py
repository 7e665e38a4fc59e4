"""PLUG, and the SAM it is compared with, as meta-architectures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.structures import Instances
from torch import Tensor

import plug.config
import plug.plug
import plug.vanilla_sam
from detectron2_sam.plugin.modeling import TrainedPart
from detectron2_sam.plugin.structures import boxes_of, to_amodal_instances
from plug.structures import AmodalInput, AmodalOutput
from sam_common.errors import UserError


class PLUG(TrainedPart, plug.plug.PLUG):
    """PLUG with Detectron2's inputs and outputs.

    Inputs are those of the model itself; `boxes` may be Detectron2's `Boxes`, or missing: they are then those of
    `instances`, what a detector found, or of `proposals`. They are in pixels of `image`, which must not be resized; one
    without area inside it is a `UserError`.
    Outputs are the model's, and `instances`, Detectron2's, in the order of the boxes (see `to_amodal_instances`).
    """

    arguments = staticmethod(plug.config.plug_arguments)

    def forward(self, batch: list[Any], whole: Sequence[Any] | None = None) -> Any:
        complete_whole = None if whole is None else [_complete(entry) for entry in whole]
        outputs = super().forward([_complete(entry) for entry in batch], complete_whole)
        return outputs if isinstance(outputs, dict) else _with_instances(batch, outputs)


class VanillaSAM(TrainedPart, plug.vanilla_sam.VanillaSAM):
    """SAM asked by `amodal_boxes`, with the same outputs."""

    arguments = staticmethod(plug.config.vanilla_sam_arguments)

    def forward(self, batch: list[Any]) -> Any:
        return _with_instances(batch, super().forward([_complete(entry) for entry in batch]))


def _complete(entry: dict[str, Any]) -> AmodalInput:
    """The input with all that the model expects."""
    boxes, _ = boxes_of(entry)
    if boxes is None:
        raise UserError(f"{entry.get('file_name') or 'an input'} has no boxes: give boxes, instances or proposals")
    complete: Any = {"file_name": "", **entry, "boxes": boxes}
    if "amodal_masks" in entry and "seeds" not in entry:
        complete["seeds"] = torch.randint(2**62, (len(complete["boxes"]),)).tolist()
    return complete


def _with_instances(batch: list[dict[str, Any]], outputs: list[AmodalOutput]) -> list[dict[str, Any]]:
    return [
        {**output, "instances": to_amodal_instances(output["amodal"], _classes(entry))}
        for entry, output in zip(batch, outputs, strict=True)
    ]


def _classes(entry: dict[str, Any]) -> Tensor | None:
    """The classes that the boxes came with: the model has none of its own."""
    found = entry.get("instances")
    if isinstance(found, Instances) and found.has("pred_classes"):
        return found.pred_classes
    known = entry.get("category_ids")
    return None if known is None or None in known else torch.tensor(known, dtype=torch.int64)
