"""AM-SAM with SAM ViT-L on photographs of people: configs/amsam_L.yaml; boxes are around the true masks."""

from .amsam_base import dataloader, model, optimizer, train

model.sam.update(size="L", weights="sam_vit_l")
