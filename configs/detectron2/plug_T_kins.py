"""The tiny PLUG on KINS, to try out the data and the commands: configs/plug_T_kins.yaml."""

from .plug_T import dataloader, lr_multiplier, model, optimizer, train

train.output_dir = "./output/plug_T_kins_lazy"
dataloader.train.update(name="kins_train", batch_size=8)
dataloader.test.name = "kins_val"
