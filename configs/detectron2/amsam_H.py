"""AM-SAM with SAM ViT-H on photographs of people: configs/amsam_H.yaml; boxes are around the true masks."""

from .amsam_base import dataloader, model, optimizer, train

model.sam.update(size="H", weights="sam_vit_h")
