"""PLUG with SAM ViT-L on KINS: configs/plug_L_kins.yaml."""

from .plug_base import dataloader, lr_multiplier, model, optimizer, train

train.output_dir = "./output/plug_L_kins_lazy"
model.sam.update(size="L", weights="sam_vit_l")
