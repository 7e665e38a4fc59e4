"""Amodal Mask R-CNN as a LazyConfig: Detectron2's own model, and PLUG on what it finds.

    from detectron2.config import LazyConfig, instantiate
    model = instantiate(LazyConfig.load("configs/detectron2/amodal_mask_rcnn.py").model)

Another detector is another `detector`; `completer.config_file` and `.weights` name another PLUG, here the demo's.
"""

from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig

from detectron2_sam.plugin.amodal_detector import AmodalDetector, build_completer
from detectron2_sam.plugin.compat import stock_config

model = L(AmodalDetector)(
    detector=LazyConfig.load(str(stock_config("common/models/mask_rcnn_fpn.py"))).model,
    completer=L(build_completer)(config_file="configs/plug_T.yaml", weights="output/demo/plug/model_final.pth"),
    input_format="BGR",
)
