"""PosSAM on the embedded world as a LazyConfig: what configs/possam_T.yaml describes, part by part, to exchange any of.

    detectron2-sam prepare generated
    python DETECTRON2/tools/lazyconfig_train_net.py --config-file configs/detectron2/possam_T.py

On a GPU: train.device=cuda at the end of the command.
"""

from detectron2.config import LazyCall as L
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import CosineParamScheduler

from detectron2_sam.plugin import lazy
from detectron2_sam.plugin.evaluation import SegmentationEvaluator
from detectron2_sam.plugin.modeling import SamViTBackbone
from possam.classifier import CosineClassifier
from possam.clip_encoder import PIXEL_MEAN, PIXEL_STD, build_clip
from possam.criterion import Criterion
from possam.data.mapper import SegmentationMapper
from possam.feature_pyramid import FeaturePyramid
from possam.head import PosSAMHead
from possam.iou_head import IoUHead
from possam.local_discriminative_pooling import LocalDiscriminativePooling
from possam.mask_aware_selective_ensemble import SelectiveEnsemble
from possam.masked_transformer_decoder import MaskedTransformerDecoder
from possam.matcher import HungarianMatcher
from possam.pixel_decoder import PixelDecoder
from possam.possam import Inference
from sam_common.engine.optimizer import parameter_groups

TRAIN, TEST, SIZE = "generated_train_panoptic", "generated_test_panoptic", 256
_JITTER = {"image_size": SIZE, "min_scale": 1.0, "max_scale": 1.0, "flip": True, "color": False}
_SIZES = {"min_size_test": SIZE, "max_size_test": SIZE}

train = dict(
    output_dir="./output/possam_T_lazy",
    init_checkpoint="",
    max_iter=1300,
    amp=dict(enabled=False),
    ddp=dict(broadcast_buffers=False, find_unused_parameters=False, fp16_compression=False),
    checkpointer=dict(period=325, max_to_keep=100),
    eval_period=1300,
    log_period=20,
    device="cpu",
)
model = L(lazy.possam)(
    clip=L(build_clip)(name="tiny", weights="embedded"),
    backbone=L(SamViTBackbone)(
        image_encoder=L(lazy.sam_encoder)(size="T", weights="embedded"),
        feature_pyramid=L(FeaturePyramid)(channels=128),
    ),
    head=L(PosSAMHead)(
        pixel_decoder=L(PixelDecoder)(in_channels=128, width=64, num_layers=2, num_heads=4, ffn_width=256),
        decoder=L(MaskedTransformerDecoder)(width=64, num_queries=30, num_layers=3, ffn_width=256),
        iou_head=L(IoUHead)(width=64),
        pooling=L(LocalDiscriminativePooling)(width=64, embed_dim=128, clip_channels=256),
        classifier=L(CosineClassifier)(embed_dim=128),
    ),
    ensemble=L(SelectiveEnsemble)(alpha=0.4, beta=0.8),
    criterion=L(Criterion)(matcher=L(HungarianMatcher)(num_points=1024), num_points=1024),
    sam_pixels=([123.675, 116.28, 103.53], [58.395, 57.12, 57.375]),
    clip_pixels=(PIXEL_MEAN, PIXEL_STD),
    image_size=SIZE,
    inference=L(Inference)(panoptic=True),
)
dataloader = dict(
    train=L(lazy.train_loader)(
        name=TRAIN,
        mapper=L(SegmentationMapper)(vocabulary=L(lazy.vocabulary)(name=TRAIN), training=True, **_JITTER, **_SIZES),
        batch_size=4,
        seed=0,
        num_workers=0,
    ),
    test=L(lazy.test_loader)(
        name=TEST,
        mapper=L(SegmentationMapper)(vocabulary=L(lazy.vocabulary)(name=TEST), training=False, **_JITTER, **_SIZES),
        num_workers=0,
    ),
    evaluator=L(SegmentationEvaluator)(dataset_name=TEST, output_dir="${...train.output_dir}/inference"),
)
optimizer = L(lazy.adamw)(
    params=L(parameter_groups)(weight_decay=0.05, weight_decay_norm=0.0, weight_decay_embed=0.0),
    lr=0.0006,
    clip_norm=0.1,
)
lr_multiplier = L(WarmupParamScheduler)(
    scheduler=L(CosineParamScheduler)(start_value=1.0, end_value=0.0),
    warmup_length=50 / 1300,
    warmup_method="linear",
    warmup_factor=0.001,
)
