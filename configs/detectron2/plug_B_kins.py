"""PLUG with SAM ViT-B on KINS: configs/plug_B_kins.yaml."""

from .plug_base import dataloader, lr_multiplier, model, optimizer, train

train.output_dir = "./output/plug_B_kins_lazy"
model.sam.update(size="B", weights="sam_vit_b")
