"""The tiny PLUG on COCOA, to try out the data and the commands: configs/plug_T_cocoa.yaml."""

from .plug_T import dataloader, lr_multiplier, model, optimizer, train

train.output_dir = "./output/plug_T_cocoa_lazy"
dataloader.train.update(name="cocoa_cls_train", batch_size=8)
dataloader.test.name = "cocoa_cls_val"
