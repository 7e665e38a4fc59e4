"""AM-SAM with SAM ViT-B on photographs of people: configs/amsam_B.yaml; boxes are around the true masks."""

from .amsam_base import dataloader, model, optimizer, train

model.sam.update(size="B", weights="sam_vit_b")
