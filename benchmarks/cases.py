"""What the benchmarks of whole models run: a configuration at its real size, random weights, random pixels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detectron2_sam.methods import full_cfg, methods
from possam.text_embeddings import ClassEmbeddings
from sam_common.config import CfgNode, resolve_device
from sam_common.data.vocabulary_file import parse_vocabulary
from sam_common.engine.launch import choose_precision
from sam_common.structures import Segments, Vocabulary

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
PICTURE = 480, 640  # height and width, where the configuration gives none
SEGMENTS = 16  # of a training image of PosSAM


@dataclass(frozen=True)
class Case:
    """What one process measures.

    Attributes:
        config: name of a file in configs/, without its ending.
        mode: "training" | "inference".
        count: see `COUNTS`.
        checkpointing: ACTIVATION_CHECKPOINTING of the method.
        options: KEY VALUE pairs over the configuration.
    """

    config: str
    mode: str
    count: int
    checkpointing: bool = False
    device: str = "cpu"
    threads: int = 1
    options: tuple[str, ...] = ()

    def begin(self) -> tuple[CfgNode, torch.device, torch.autocast]:
        """Sets threads, seed and methods of this process; the configuration, its device and its precision."""
        torch.set_num_threads(self.threads)
        torch.manual_seed(0)
        methods()
        cfg, device = read_config(self.config), resolve_device(self.device)
        cfg.merge_from_list(list(self.options))
        cfg.MODEL.DEVICE = self.device
        cfg.MODEL.SAM.WEIGHTS = cfg.MODEL.CLIP.WEIGHTS = "random"
        cfg.MODEL.POSSAM.ACTIVATION_CHECKPOINTING = cfg.MODEL.PLUG.ACTIVATION_CHECKPOINTING = self.checkpointing
        dtype = choose_precision(device, cfg.SOLVER.AMP.PRECISION if cfg.SOLVER.AMP.ENABLED else "float32")
        return cfg, device, torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


def read_config(name: str) -> CfgNode:
    cfg = full_cfg()
    cfg.merge_from_file(CONFIGS / f"{name}.yaml")
    return cfg


@torch.no_grad()
def predict(model: nn.Module, precision: torch.autocast, batch: list[dict[str, Any]]) -> None:
    with precision:
        model(batch)


def make_batch(cfg: CfgNode, model: Any, case: Case) -> list[dict[str, Any]]:
    """A batch of random pixels, with everything that the model asks for in this mode."""
    method = cfg.MODEL.META_ARCHITECTURE
    if method == "PosSAM":
        words = parse_vocabulary(CONFIGS / "vocabularies" / "ade20k.txt")
        text = random_embeddings(words, model.clip.embed_dim).to(model.device)
        model.text_embeddings = lambda vocabulary: text
        return [panoptic_entry(cfg, words) for _ in range(case.count)]
    if method == "PLUG":
        return [amodal_entry(case.count)]
    return [few_shot_entry(level) for level in ((1, 2) if model.training else (1,))]


def random_embeddings(vocabulary: Vocabulary, width: int) -> ClassEmbeddings:
    counts = torch.tensor([len(category.synonyms) for category in vocabulary])
    index = torch.repeat_interleave(torch.arange(len(counts)), counts)
    return ClassEmbeddings(F.normalize(torch.randn(len(index), width), dim=-1), index)


def panoptic_entry(cfg: CfgNode, vocabulary: Vocabulary) -> dict[str, Any]:
    """A square that is full, cut into stripes."""
    side = cfg.INPUT.IMAGE_SIZE
    of_row = torch.arange(side) * SEGMENTS // side
    masks = (of_row == torch.arange(SEGMENTS)[:, None])[:, :, None].repeat(1, 1, side)
    segments = Segments(torch.arange(SEGMENTS) % len(vocabulary), masks)
    entry = {"image": pixels(side, side), "height": side, "width": side, "file_name": "random", "seed": 0}
    return entry | {"vocabulary": vocabulary, "segments": segments}


def amodal_entry(count: int) -> dict[str, Any]:
    """A picture of some objects, whose upper half is seen."""
    height, width = PICTURE
    amodal = torch.zeros(count, height, width, dtype=torch.bool)
    amodal[:, height // 4 : height // 2, width // 4 : width // 2] = True
    visible = amodal.clone()
    visible[:, height * 3 // 8 :] = False
    box = torch.tensor([width // 4, height // 4, width // 2, height * 3 // 8], dtype=torch.float32)
    truth = {"visible_masks": visible, "amodal_masks": amodal, "seeds": list(range(count))}
    return {"image": pixels(height, width), "boxes": box.repeat(count, 1), **truth}


def few_shot_entry(level: int) -> dict[str, Any]:
    """A picture of one half of the shots."""
    height, width = PICTURE
    labels = torch.zeros(height, width, dtype=torch.int64)
    labels[: height // 2] = 1
    box = torch.tensor([[0.0, 0.0, width, height // 2]])
    return {"image": pixels(height, width), "boxes": box, "labels": labels, "level": level}


def pixels(height: int, width: int) -> Tensor:
    return torch.randint(256, (3, height, width), dtype=torch.uint8)
