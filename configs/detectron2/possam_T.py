"""PosSAM on the embedded world: configs/possam_T.yaml.

    detectron2-sam prepare generated
    python DETECTRON2/tools/lazyconfig_train_net.py --config-file configs/detectron2/possam_T.py

On a GPU: train.device=cuda at the end of the command.
"""

from detectron2.config import LazyCall as L
from fvcore.common.param_scheduler import CosineParamScheduler

from .possam_base import dataloader, lr_multiplier, model, optimizer, train

train.update(output_dir="./output/possam_T_lazy", max_iter=1300, eval_period=1300, device="cpu")
train.amp.enabled = False
train.checkpointer.period = 325

model.image_size = 256
model.clip.update(name="tiny", weights="embedded")
model.backbone.image_encoder.update(size="T", weights="embedded")
model.backbone.feature_pyramid.channels = 128
model.head.pixel_decoder.update(in_channels=128, width=64, num_layers=2, num_heads=4, ffn_width=256)
model.head.decoder.update(width=64, num_queries=30, num_layers=3, ffn_width=256)
model.head.iou_head.width = 64
model.head.pooling.update(width=64, embed_dim=128, clip_channels=256)
model.head.classifier.embed_dim = 128
model.criterion.num_points = model.criterion.matcher.num_points = 1024

for loader, name in ((dataloader.train, "generated_train_panoptic"), (dataloader.test, "generated_test_panoptic")):
    loader.update(name=name, num_workers=0)
    loader.mapper.vocabulary.name = name
    loader.mapper.update(image_size=256, min_scale=1.0, max_scale=1.0, min_size_test=256, max_size_test=256)
dataloader.train.batch_size = 4
dataloader.evaluator.dataset_name = "generated_test_panoptic"

optimizer.update(lr=0.0006, clip_norm=0.1)
lr_multiplier.scheduler = L(CosineParamScheduler)(start_value=1.0, end_value=0.0)
lr_multiplier.warmup_length = 50 / 1300
