"""Any detector of Detectron2's as a source of boxes: `INPUT.BOXES.SOURCE`, or `build_detector(name)`."""

from __future__ import annotations

from pathlib import Path

import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.data import MetadataCatalog
from detectron2.data import transforms as T
from detectron2.modeling import build_model
from torch import Tensor, nn

from detectron2_sam.plugin.compat import stock_config
from sam_common.boxes.boxes import Boxes
from sam_common.boxes.detectors import register_detector
from sam_common.config import CfgNode as PlainCfgNode
from sam_common.engine.checkpoint import read_checkpoint
from sam_common.errors import UserError
from sam_common.io.plain_pickle import read_plain_pickle


def register_box_detector(name: str, cfg: CfgNode) -> None:
    """Lets a name stand for the model of a Detectron2 cfg wherever a detector is asked for; again replaces it.

    Its weights are `cfg.MODEL.WEIGHTS` where none are given: a `.pth` of Detectron2's, or a `.pkl` of its model zoo,
    which is read without unpickling it.
    """
    kept = cfg.clone()
    register_detector(
        name, lambda *, weights, device: Detectron2Detector(kept, weights=weights or kept.MODEL.WEIGHTS, device=device)
    )


def named_detector(name: str, *, weights: str, device: torch.device | str) -> Detectron2Detector:
    """What `detectron2:NAME` stands for: a YAML file of Detectron2's, by its path or its name in the model zoo; after a
    comma its weights, in the place of `MODEL.WEIGHTS`.

    Raises:
        UserError: there is no such file, or it is no plain configuration; as `Detectron2Detector`.
    """
    file, _, given = name.partition(",")
    path = Path(file) if Path(file).is_file() else stock_config(file)
    if not path.is_file():
        raise UserError(f"detectron2:{name}: there is no file {file}, here or in Detectron2's model zoo")
    cfg = PlainCfgNode(get_cfg())  # Detectron2's own reader would run what a YAML asks for
    cfg.merge_from_file(path)
    return Detectron2Detector(CfgNode(cfg), weights=weights or given or cfg.MODEL.WEIGHTS, device=device)


class Detectron2Detector:
    """Finds objects in an image, uint8 RGB [3, H, W], as Detectron2's `DefaultPredictor` does.

    Args:
        cfg: of a model whose `instances` have `pred_boxes`. The names of classes are those of `DATASETS.TRAIN`, else
            numbers.
        weights: a file, or `random` for none.
        device: where to run.

    Raises:
        UserError: the weights are missing, cannot be read or are of another model.
    """

    def __init__(self, cfg: CfgNode, *, weights: str, device: torch.device | str = "cpu") -> None:
        cfg = cfg.clone()
        cfg.defrost()
        cfg.MODEL.DEVICE = str(device)
        self.model = build_model(cfg).eval()
        load_detector(self.model, weights)
        self.resize = T.ResizeShortestEdge([cfg.INPUT.MIN_SIZE_TEST] * 2, cfg.INPUT.MAX_SIZE_TEST)
        self.is_bgr = cfg.INPUT.FORMAT == "BGR"
        self.categories = (
            MetadataCatalog.get(cfg.DATASETS.TRAIN[0]).get("thing_classes") if cfg.DATASETS.TRAIN else None
        )

    @torch.inference_mode()
    def __call__(self, image: Tensor) -> Boxes:
        pixels = (image.flip(0) if self.is_bgr else image).permute(1, 2, 0).numpy()
        resized = torch.from_numpy(self.resize.get_transform(pixels).apply_image(pixels)).permute(2, 0, 1).float()
        entry = {"image": resized, "height": image.shape[1], "width": image.shape[2]}
        found = self.model([entry])[0]["instances"].to("cpu")
        labels = found.pred_classes.tolist()
        names = [str(label) if self.categories is None else self.categories[label] for label in labels]
        return Boxes(found.pred_boxes.tensor, found.scores, names)


def load_detector(model: nn.Module, path: str) -> None:
    """Loads all that a model has from a file that Detectron2 wrote; pickles are read without unpickling them.

    Args:
        path: a .pth or a .pkl; `random` leaves the model as it is.

    Raises:
        UserError: there is no path, or the file cannot be read or is of another model.
    """
    if path == "random":
        return
    if not path or "://" in path:
        raise UserError(
            f"MODEL.WEIGHTS {path!r}: give the path of a .pth or .pkl file (detectron2:CONFIG.yaml,FILE), or random"
        )
    content = read_plain_pickle(path) if Path(path).suffix == ".pkl" else read_checkpoint(path)
    if not (isinstance(content, dict) and isinstance(content.get("model"), dict)):
        raise UserError(f"{path} is no checkpoint of Detectron2's: it has no entry 'model'")
    try:
        state = {name: torch.as_tensor(value) for name, value in content["model"].items()}
        keys = model.load_state_dict(state, strict=False)
    except (RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"{path} is for another detector: {' '.join(str(error).split())}") from error
    missing = set(keys.missing_keys) & dict(model.named_parameters()).keys()
    if missing or keys.unexpected_keys:
        told = f"it lacks {len(missing)} of its parameters and has {len(keys.unexpected_keys)} others"
        raise UserError(f"{path} is for another detector: {told}")
