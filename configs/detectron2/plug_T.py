"""PLUG on the embedded world: configs/plug_T.yaml.

    detectron2-sam prepare generated
    python DETECTRON2/tools/lazyconfig_train_net.py --config-file configs/detectron2/plug_T.py

On a GPU: train.device=cuda at the end of the command.
"""

from .plug_base import dataloader, lr_multiplier, model, optimizer, train

train.update(output_dir="./output/plug_T_lazy", max_iter=1600, eval_period=1600, device="cpu")
train.amp.enabled = False
train.checkpointer.period = 400

model.update(size=128, lora_rank=8)
model.sam.update(size="T", weights="embedded")
model.refine.width = 32
model.inference.threshold = 0.5

dataloader.train.update(name="generated_train_amodal", num_workers=0, batch_size=2)
dataloader.test.update(name="generated_test_amodal", num_workers=0)

optimizer.lr = 0.002
lr_multiplier.warmup_length = 50 / 1600
