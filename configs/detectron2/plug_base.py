"""What the LazyConfigs of PLUG share: configs/plug_base.yaml with SAM ViT-B, on KINS, part by part, to exchange any of.

On a CPU: train.device=cpu train.amp.enabled=False at the end of the command.
"""

from detectron2.config import LazyCall as L
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import PolynomialDecayParamScheduler

from detectron2_sam.plugin import lazy
from detectron2_sam.plugin.lazy import (
    AmodalEvaluator,
    AmodalMapper,
    PLUGCriterion,
    PLUGInference,
    RefineModule,
    parameter_groups,
)

train = dict(
    output_dir="./output/plug_lazy",
    init_checkpoint="",
    max_iter=74460,
    amp=dict(enabled=True),
    ddp=dict(broadcast_buffers=False, find_unused_parameters=False, fp16_compression=False),
    checkpointer=dict(period=1000, max_to_keep=100),
    eval_period=74460,
    log_period=20,
    device="cuda",
)
model = L(lazy.plug)(
    sam=L(lazy.sam)(size="B", weights="sam_vit_b"),
    size=512,
    lora_rank=16,
    refine=L(RefineModule)(num_branches=2),
    criterion=L(PLUGCriterion)(),
    pixels=([123.675, 116.28, 103.53], [58.395, 57.12, 57.375]),
    inference=L(PLUGInference)(),
)
dataloader = dict(
    train=L(lazy.train_loader)(
        name="kins_train",
        mapper=L(AmodalMapper)(training=True, flip=True),
        batch_size=8,
        instances_per_image=8,
    ),
    test=L(lazy.test_loader)(name="kins_val", mapper=L(AmodalMapper)(training=False)),
    evaluator=L(AmodalEvaluator)(dataset_name="${..test.name}", output_dir="${...train.output_dir}/inference"),
)
optimizer = L(lazy.adamw)(
    params=L(parameter_groups)(weight_decay=0.1, weight_decay_norm=0.1, weight_decay_embed=0.1),
    lr=0.001,
)
lr_multiplier = L(WarmupParamScheduler)(
    scheduler=L(PolynomialDecayParamScheduler)(base_value=1.0, power=0.9),
    warmup_length=250 / 74460,
    warmup_method="linear",
    warmup_factor=0.001,
)
