"""What Detectron2's exporters and analysers ask of a model: traces for every size, and models that pickle."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.export import TracingAdapter
from detectron2.modeling import build_backbone, build_model
from detectron2.utils.analysis import flop_count_operators
from torch import Tensor, nn

import detectron2_sam
from possam import parse_vocabulary
from possam.deformable_attention.operator import deformable_attention
from tests.detectron2_sam.plugin.test_stock_models import stock

MASK_RCNN = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml"
BOX = torch.tensor([[5.0, 5, 60, 60]])


def our_cfg(name: str) -> CfgNode:
    cfg = get_cfg()
    detectron2_sam.add_config(cfg)
    cfg.merge_from_file(detectron2_sam.get_config_file(name))
    cfg.MODEL.DEVICE = "cpu"
    return cfg


@pytest.fixture(autouse=True)
def registered() -> None:
    detectron2_sam.register()


def picture(height: int, width: int) -> Tensor:
    return torch.randint(256, (3, height, width), dtype=torch.uint8)


def test_a_trace_of_the_backbone_holds_for_every_size(tmp_path: Path) -> None:
    """Sizes at which windows, positions and pyramid differ from those of the trace give what the model gives."""
    backbone = build_backbone(stock(MASK_RCNN, tmp_path)).eval()

    class Maps(nn.ModuleDict):
        def forward(self, images: Tensor) -> tuple[Tensor, ...]:
            return tuple(self["backbone"](images).values())

    with torch.no_grad():
        trace = torch.jit.trace(Maps({"backbone": backbone}), torch.rand(1, 3, 128, 192))
        for size in ((128, 192), (96, 64), (256, 256), (224, 320)):
            images = torch.rand(2, 3, *size)
            for traced, expected in zip(trace(images), backbone(images).values(), strict=True):
                torch.testing.assert_close(traced, expected, rtol=0, atol=1e-5)


def test_detectron2s_adapter_traces_a_detector_on_it(tmp_path: Path) -> None:
    """As `tools/deploy/export_model.py --export-method tracing` does; boxes and masks at other sizes too."""
    cfg = stock(MASK_RCNN, tmp_path)
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST, cfg.TEST.DETECTIONS_PER_IMAGE = 0.0, 5
    model = build_model(cfg).eval()

    def inference(model: Any, inputs: Any) -> Any:
        return [{"instances": model.inference(inputs, do_postprocess=False)[0]}]

    image = picture(128, 192)
    adapter = TracingAdapter(model, [{"image": image}], inference).eval()
    with torch.no_grad():
        trace = torch.jit.trace(adapter, (image,))
        for size in ((128, 192), (200, 150)):
            image = picture(*size)
            for traced, expected in zip(trace(image), adapter(image), strict=True):
                torch.testing.assert_close(traced, expected, rtol=1e-4, atol=1e-4)


def test_the_deformable_operator_is_traced_as_pytorchs() -> None:
    """A trace has no operator of ours in it, and holds for maps of other sizes."""

    class Sample(nn.Module):
        def forward(self, first: Tensor, second: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
            maps = (first, second)
            value = torch.cat([part.flatten(2).permute(0, 2, 1) for part in maps], dim=1).unflatten(-1, (2, 4))
            return deformable_attention(value, [part.shape[-2:] for part in maps], locations, weights)

    def inputs(height: int, width: int) -> tuple[Tensor, ...]:
        maps = torch.rand(1, 8, height, width), torch.rand(1, 8, height // 2, width // 2)
        return *maps, torch.rand(1, 5, 2, 2, 3, 2), torch.rand(1, 5, 2, 2, 3)

    trace = torch.jit.trace(Sample(), inputs(8, 12))
    assert "detectron2_sam::" not in str(trace.inlined_graph)
    for size in ((8, 12), (10, 6)):
        given = inputs(*size)
        torch.testing.assert_close(trace(*given), Sample()(*given))


@pytest.mark.parametrize("name", ["possam_T", "plug_T", "amsam_T"])
def test_models_are_copied_pickled_and_counted(name: str) -> None:
    """Before and after they have been used; Detectron2's `analyze_model.py --tasks flop` counts their GFLOPs."""
    model: Any = build_model(our_cfg(name)).eval()
    entry: dict[str, Any] = {"image": picture(96, 128), "height": 96, "width": 128}
    entry |= {"vocabulary": parse_vocabulary("dog; sky:stuff")} if name == "possam_T" else {"boxes": BOX}
    with torch.no_grad():
        for _ in range(2):
            for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
                assert other.state_dict().keys() == model.state_dict().keys()
            model([entry])
    assert sum(flop_count_operators(model, [entry]).values()) > 0.1
