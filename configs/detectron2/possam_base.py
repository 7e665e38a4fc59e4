"""What the LazyConfigs of PosSAM share: configs/possam_base.yaml with SAM ViT-B, part by part, to exchange any of.

On a CPU: train.device=cpu train.amp.enabled=False at the end of the command.
"""

from detectron2.config import LazyCall as L
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import MultiStepParamScheduler

from detectron2_sam.plugin import lazy
from detectron2_sam.plugin.lazy import (
    CLIP_PIXELS,
    CosineClassifier,
    Criterion,
    FeaturePyramid,
    HungarianMatcher,
    IoUHead,
    LocalDiscriminativePooling,
    MaskedTransformerDecoder,
    PixelDecoder,
    PosSAMHead,
    PosSAMInference,
    SamViTBackbone,
    SegmentationEvaluator,
    SegmentationMapper,
    SelectiveEnsemble,
    build_clip,
    parameter_groups,
)

TRAIN, TEST, SIZE = "coco_2017_train_panoptic", "ade20k_panoptic_val", 1024
_JITTER = {"image_size": SIZE, "min_scale": 0.1, "max_scale": 2.0, "flip": True, "color": False}
_SIZES = {"min_size_test": SIZE, "max_size_test": SIZE}

train = dict(
    output_dir="./output/possam_lazy",
    init_checkpoint="",
    max_iter=250000,
    amp=dict(enabled=True),
    ddp=dict(broadcast_buffers=False, find_unused_parameters=False, fp16_compression=False),
    checkpointer=dict(period=5000, max_to_keep=100),
    eval_period=250000,
    log_period=20,
    device="cuda",
)
model = L(lazy.possam)(
    clip=L(build_clip)(name="convnext_large_d_320", weights="laion2b_s29b_b131k_ft_soup"),
    backbone=L(SamViTBackbone)(
        image_encoder=L(lazy.sam_encoder)(size="B", weights="sam_vit_b"),
        feature_pyramid=L(FeaturePyramid)(channels=256),
    ),
    head=L(PosSAMHead)(
        pixel_decoder=L(PixelDecoder)(in_channels=256, width=256),
        decoder=L(MaskedTransformerDecoder)(width=256, num_queries=100),
        iou_head=L(IoUHead)(width=256),
        pooling=L(LocalDiscriminativePooling)(width=256, embed_dim=768, clip_channels=1536),
        classifier=L(CosineClassifier)(embed_dim=768),
    ),
    ensemble=L(SelectiveEnsemble)(),
    criterion=L(Criterion)(matcher=L(HungarianMatcher)()),
    sam_pixels=([123.675, 116.28, 103.53], [58.395, 57.12, 57.375]),
    clip_pixels=CLIP_PIXELS,
    image_size=SIZE,
    inference=L(PosSAMInference)(),
)
dataloader = dict(
    train=L(lazy.train_loader)(
        name=TRAIN,
        mapper=L(SegmentationMapper)(vocabulary=L(lazy.vocabulary)(name=TRAIN), training=True, **_JITTER, **_SIZES),
        batch_size=16,
    ),
    test=L(lazy.test_loader)(
        name=TEST,
        mapper=L(SegmentationMapper)(vocabulary=L(lazy.vocabulary)(name=TEST), training=False, **_JITTER, **_SIZES),
    ),
    evaluator=L(SegmentationEvaluator)(dataset_name=TEST, output_dir="${...train.output_dir}/inference"),
)
optimizer = L(lazy.adamw)(
    params=L(parameter_groups)(weight_decay=0.05, weight_decay_norm=0.0, weight_decay_embed=0.0),
    lr=0.0001,
    clip_norm=0.01,
)
lr_multiplier = L(WarmupParamScheduler)(
    scheduler=L(MultiStepParamScheduler)(values=[1.0, 0.1, 0.01], milestones=[150000, 200000], num_updates=250000),
    warmup_length=10 / 250000,
    warmup_method="linear",
    warmup_factor=0.001,
)
