"""PosSAM with SAM ViT-H and OpenCLIP ConvNeXt-L: configs/possam_H.yaml."""

from .possam_base import dataloader, lr_multiplier, model, optimizer, train

model.backbone.image_encoder.update(size="H", weights="sam_vit_h")
