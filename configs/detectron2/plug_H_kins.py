"""PLUG with SAM ViT-H on KINS: configs/plug_H_kins.yaml."""

from .plug_base import dataloader, lr_multiplier, model, optimizer, train

train.output_dir = "./output/plug_H_kins_lazy"
model.sam.update(size="H", weights="sam_vit_h")
