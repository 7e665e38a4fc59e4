"""PosSAM with SAM ViT-L and OpenCLIP ConvNeXt-L: configs/possam_L.yaml."""

from .possam_base import dataloader, lr_multiplier, model, optimizer, train

model.backbone.image_encoder.update(size="L", weights="sam_vit_l")
