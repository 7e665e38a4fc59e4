"""PLUG with SAM ViT-B on COCOA: configs/plug_B_cocoa.yaml."""

from .plug_base import dataloader, lr_multiplier, model, optimizer, train

train.update(output_dir="./output/plug_B_cocoa_lazy", max_iter=5160, eval_period=5160)
model.sam.update(size="B", weights="sam_vit_b")
dataloader.train.update(name="cocoa_cls_train", batch_size=24)
dataloader.test.name = "cocoa_cls_val"
lr_multiplier.warmup_length = 250 / 5160
