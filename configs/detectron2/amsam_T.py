"""AM-SAM on the worms of the embedded world: configs/amsam_T.yaml."""

from .amsam_base import dataloader, model, optimizer, train

train.update(output_dir="./output/amsam_T_lazy", device="cpu")
model.sam.update(size="T", weights="embedded")
dataloader.test.update(name="generated_worms_test", num_workers=0)
