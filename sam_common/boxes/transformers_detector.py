"""Detectors of the package `transformers` (Apache-2.0), which is imported when one is built: RT-DETR, Grounding DINO …

    transformers:PekingU/rtdetr_r50vd                           a model of the Hugging Face hub, or a folder with one
    transformers:PekingU/rtdetr_r50vd@REVISION                  a commit of the hub's, so that it stays the same
    transformers:IDEA-Research/grounding-dino-tiny:person, dog  one that is told in words what to look for

Code of the hub is never run, and weights are read from safetensors alone.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor

from sam_common.boxes.boxes import Boxes
from sam_common.errors import UserError

logger = logging.getLogger(__name__)

_TEXT_THRESHOLD = 0.25
"""From which a word counts as part of what a box shows; Grounding DINO's own."""


class TransformersDetector:
    """Finds objects in an image, uint8 RGB [3, H, W].

    Args:
        name: see the module, without the prefix.
        weights: "" for the model's own, `random` for none.
        device: where to run.

    Raises:
        UserError: the package is missing, the model cannot be had, or it needs words and has none.
    """

    def __init__(self, name: str, *, weights: str = "", device: torch.device | str = "cpu") -> None:
        try:
            import transformers
        except ImportError as error:
            raise UserError(
                f"the detector transformers:{name} needs the package transformers (Apache-2.0), which cannot be "
                f"imported ({error}); pip install 'transformers>=4.51'"
            ) from error
        if weights not in ("", "random"):
            raise UserError(f"transformers:{name} has its own weights; name the folder of others in its place")
        source, _, words = name.partition(":")
        model, _, revision = source.partition("@")
        # As these models learned them: in lower case, a full stop after each.
        self.words = "".join(f"{word.strip().lower()}. " for word in words.split(",") if word.strip()).strip()
        logger.info("detector transformers:%s: the package is Apache-2.0, the model has the licence on its page", name)
        known: dict[str, Any] = {"revision": revision or None, "trust_remote_code": False}
        try:
            config = transformers.AutoConfig.from_pretrained(model, **known)
            zero_shot = type(config) in transformers.MODEL_FOR_ZERO_SHOT_OBJECT_DETECTION_MAPPING
            _check_words(name, needed=zero_shot, given=bool(self.words))
            auto = (
                transformers.AutoModelForZeroShotObjectDetection
                if zero_shot
                else transformers.AutoModelForObjectDetection
            )
            if weights == "random":
                self.model = auto.from_config(config)
            else:
                self.model = auto.from_pretrained(model, use_safetensors=True, **known)
            processor = transformers.AutoProcessor if zero_shot else transformers.AutoImageProcessor
            self.processor = processor.from_pretrained(model, **known)
        except UserError:
            raise
        except (OSError, ValueError, ImportError) as error:  # how the package tells that it has no such model
            raise UserError(
                f"the detector transformers:{name} cannot be loaded ({' '.join(str(error).split())}); a folder that "
                "holds its config.json, preprocessor_config.json and model.safetensors may take the place of its name"
            ) from error
        self.device = torch.device(device)
        self.model.to(self.device).eval()

    @torch.inference_mode()
    def __call__(self, image: Tensor) -> Boxes:
        prompt = {"text": self.words} if self.words else {}
        inputs = self.processor(images=image, input_data_format="channels_first", return_tensors="pt", **prompt)
        outputs = self.model(**inputs.to(self.device))
        sizes = [(image.shape[1], image.shape[2])]
        if not self.words:
            (found,) = self.processor.post_process_object_detection(outputs, threshold=0.0, target_sizes=sizes)
            names = [self.model.config.id2label[label] for label in found["labels"].tolist()]
        else:
            (found,) = self.processor.post_process_grounded_object_detection(
                outputs, inputs["input_ids"], threshold=0.0, text_threshold=_TEXT_THRESHOLD, target_sizes=sizes
            )
            names = list(found["text_labels"])
        return Boxes(found["boxes"].float().cpu(), found["scores"].float().cpu(), names)


def _check_words(name: str, *, needed: bool, given: bool) -> None:
    if needed and not given:
        raise UserError(f"transformers:{name} looks for what it is told; give words: transformers:{name}:person, dog")
    if given and not needed:
        raise UserError(f"transformers:{name}: this model knows its own classes and takes no words; leave them out")
