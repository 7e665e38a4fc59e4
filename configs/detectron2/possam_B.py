"""PosSAM with SAM ViT-B and OpenCLIP ConvNeXt-L: configs/possam_B.yaml."""

from .possam_base import dataloader, lr_multiplier, model, optimizer, train

model.backbone.image_encoder.update(size="B", weights="sam_vit_b")
